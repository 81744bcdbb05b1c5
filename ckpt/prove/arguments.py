"""The arguments of `forward`, and the input of a proof."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from inspect import Parameter, signature
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Inputs:
    """The arguments of `forward`: those by place, and those by name."""

    places: tuple["Tensor", ...] = ()
    names: Mapping[str, "Tensor"] = field(default_factory=dict)

    def cast(self, dtype: "torch.dtype") -> "Inputs":
        """With floating-point tensors in another dtype."""

        def as_run(tensor: "Tensor") -> "Tensor":
            return tensor.to(dtype) if tensor.is_floating_point() else tensor

        return Inputs(
            tuple(map(as_run, self.places)), {k: as_run(it) for k, it in self.names.items()}
        )


def places_of(model: "nn.Module", *, needed: bool = False) -> list[str]:
    """The arguments of `forward` that can be passed by place; if `needed`, without a default."""
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    known = [it for it in signature(model.forward).parameters.values() if it.kind in kinds]
    return [it.name for it in known if not needed or it.default is Parameter.empty]


def renamed_arguments(old: Sequence[str], new: "nn.Module") -> dict[str, str]:
    """The names that a `forward` has for arguments of an old one, in the same place.

    Args:
        old: The places of the old one.
        new: The model of the other.
    """
    known = signature(new.forward).parameters
    return {
        name: other for name, other in zip(old, places_of(new), strict=False) if name not in known
    }
