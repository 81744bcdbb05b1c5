"""Simpler expressions of equal value: what was joined and split again is what it was before.

Law: `simplified(e)` has the value, shape and dtype of `e`, bit for bit.
"""

from collections.abc import Sequence
from dataclasses import replace

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


def simplified(made: Expression) -> Expression:
    """The expression without steps that undo each other."""
    match made:
        case Source() | Filled():
            return made
        case Joined(parts=parts, dim=dim):
            return _joined([simplified(part) for part in parts], dim)
        case Merged(of=inner, other=other):
            return Merged(simplified(inner), simplified(other))
        case Narrowed(of=inner, dim=dim, start=start, length=length):
            return _narrowed(simplified(inner), dim, start, length)
        case Permuted(of=inner, dims=dims):
            return _permuted(simplified(inner), dims)
        case Reshaped(of=inner, shape=shape):
            return _reshaped(simplified(inner), shape)
        case Cast() | Copied() | Averaged() | Resized():
            return replace(made, of=simplified(made.of))


def _narrowed(of: Expression, dim: int, start: int, length: int) -> Expression:
    if (start, length) == (0, of.shape[dim]):
        return of
    if isinstance(of, Narrowed) and of.dim == dim:
        return _narrowed(of.of, dim, of.start + start, length)
    if isinstance(of, Joined) and of.dim == dim:
        at = 0
        for part in of.parts:
            size = part.shape[dim]
            if at <= start and start + length <= at + size:
                return _narrowed(part, dim, start - at, length)
            at += size
    return Narrowed(of, dim, start, length)


def _joined(parts: Sequence[Expression], dim: int) -> Expression:
    """Neighbours that are neighbouring parts of one tensor become one part of it."""
    flat: list[Expression] = []
    for part in parts:
        flat += part.parts if isinstance(part, Joined) and part.dim == dim else (part,)
    made: list[Expression] = []
    for part in flat:
        last = made[-1] if made else None
        if (
            isinstance(last, Narrowed)
            and isinstance(part, Narrowed)
            and last.dim == part.dim == dim
            and last.start + last.length == part.start
            and last.of == part.of
        ):
            made[-1] = _narrowed(part.of, dim, last.start, last.length + part.length)
        else:
            made.append(part)
    return made[0] if len(made) == 1 else Joined(tuple(made), dim)


def _permuted(of: Expression, dims: tuple[int, ...]) -> Expression:
    if isinstance(of, Permuted):
        return _permuted(of.of, tuple(of.dims[dim] for dim in dims))
    return of if dims == tuple(range(len(dims))) else Permuted(of, dims)


def _reshaped(of: Expression, shape: tuple[int, ...]) -> Expression:
    if isinstance(of, Reshaped):
        return _reshaped(of.of, shape)
    return of if of.shape == shape else Reshaped(of, shape)
