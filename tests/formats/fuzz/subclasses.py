"""Subclasses of tensors that torch is told to accept, and names of others that it refuses."""

from typing import Any

import torch


class Marked(torch.Tensor):
    """A plain tensor of another class."""


class Wrapped(torch.Tensor):
    """A tensor without bytes of its own; its attributes hold tensors, as torchao's do."""

    @classmethod
    def __torch_dispatch__(cls, function: Any, _types: Any, _given: Any = (), _named: Any = None):  # type: ignore[no-untyped-def, override]
        raise NotImplementedError(f"{function} of a {cls.__name__}")


OWN = (Marked, Wrapped)
NAMES = (
    *3 * [(each.__module__, each.__name__) for each in OWN],  # torch refuses the others
    ("torchao.dtypes.affine_quantized_tensor", "AffineQuantizedTensor"),
    ("torchao.quantization", "Int4Tensor"),
    ("torch.distributed.tensor", "DTensor"),
    ("torch.nested._internal.nested_tensor", "NestedTensor"),
    ("torch.nn.parameter", "UninitializedParameter"),
)
