"""Operations that need a whole tensor in memory: the mean of its rows, a resized position table."""

from typing import TYPE_CHECKING

from ckpt.formats.stream import tensor_bytes
from ckpt.io.sources import ByteSource
from ckpt.rules.expressions import Averaged, Resized
from ckpt.tensors import TensorEntry

if TYPE_CHECKING:
    from torch import Tensor


def tensor_of(source: ByteSource, entry: TensorEntry) -> "Tensor":
    """The tensor, which has elements, in memory of its own."""
    import torch

    data = bytearray().join(tensor_bytes(source, entry))
    return torch.frombuffer(data, dtype=getattr(torch, entry.dtype)).reshape(entry.shape)


def averaged(tensor: "Tensor", made: Averaged) -> "Tensor":
    """The mean along a dimension, `made.length` times."""
    mean = tensor.contiguous().mean(made.dim, keepdim=True)
    return mean.expand(made.shape)


def resized(table: "Tensor", made: Resized) -> "Tensor":
    """The table for the new grid; see `Resized`."""
    import torch

    (height, width), prefix = made.old, table[..., : made.prefix, :]
    grid = table[..., made.prefix :, :]  # (…, height * width, size)
    exact = grid if grid.dtype == torch.float64 else grid.float()
    images = exact.reshape(-1, height, width, table.shape[-1]).permute(0, 3, 1, 2)
    images = torch.nn.functional.interpolate(
        images, size=made.new, mode=made.mode, align_corners=False, antialias=made.antialias
    )
    rows = images.permute(0, 2, 3, 1).reshape(*grid.shape[:-2], -1, table.shape[-1])
    return torch.cat([prefix, rows.to(table.dtype)], -2)
