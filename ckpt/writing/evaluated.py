"""The value of an expression over a state_dict in memory."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ckpt.rules.expressions import (
    Averaged,
    Cast,
    Copied,
    Expression,
    Filled,
    Joined,
    Merged,
    Narrowed,
    Permuted,
    Reshaped,
    Resized,
    Source,
)
from ckpt.writing.whole import averaged, resized

if TYPE_CHECKING:
    from torch import Tensor


def evaluated(made: Expression, state: "Mapping[str, Tensor]") -> "Tensor":
    """The value of an expression; a view of the source's memory where that is possible."""
    import torch

    match made:
        case Source(key=key):
            return state[key]
        case Permuted(of=inner, dims=dims):
            return evaluated(inner, state).permute(dims)
        case Reshaped(of=inner, shape=shape):
            return evaluated(inner, state).reshape(shape)
        case Narrowed(of=inner, dim=dim, start=start, length=length):
            return evaluated(inner, state).narrow(dim, start, length)
        case Joined(parts=parts, dim=dim):
            return torch.cat([evaluated(part, state) for part in parts], dim)
        case Cast(of=inner, dtype=dtype):
            return evaluated(inner, state).to(getattr(torch, dtype))
        case Copied(of=inner):
            return evaluated(inner, state).clone()
        case Merged(of=inner):
            return evaluated(inner, state)
        case Averaged(of=inner):
            return averaged(evaluated(inner, state), made)
        case Resized(of=inner):
            return resized(evaluated(inner, state), made)
        case Filled(dtype=dtype, shape=shape, value=value):
            return torch.full(shape, value, dtype=getattr(torch, dtype))
