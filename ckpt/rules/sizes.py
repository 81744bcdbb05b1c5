"""Expressions that change the size of a dimension: slices, padding, resized position tables."""

from collections.abc import Iterator, Sequence
from math import prod

from ckpt.errors import PlanError
from ckpt.rules.expressions import (
    MOST_ELEMENTS,
    Averaged,
    Expression,
    Filled,
    Joined,
    Merged,
    Narrowed,
    Resized,
    Source,
    dimension,
    filled,
    joined,
    with_size,
)

MEAN = "mean"  # the value that stands for the mean of the rows
MODES = ("bicubic", "bilinear")
_FLOATS = ("float64", "float32", "float16", "bfloat16")  # for which torch has these functions


def sliced(of: Expression, dim: int, start: int, stop: int | None) -> Expression:
    """The elements from `start` to before `stop` of a dimension; negative ones count from the end.

    Raises:
        PlanError: The dimension does not have these elements, or none of them is left.
    """
    dim = dimension(of.shape, dim)
    length = of.shape[dim]
    first = start + length if start < 0 else start
    last = length if stop is None else stop + length if stop < 0 else stop
    if not 0 <= first < last <= length:
        shown = f"{start} to {length if stop is None else stop}"
        raise PlanError(f"dimension {dim} of shape {list(of.shape)} has no elements {shown}")
    return Narrowed(of, dim, first, last - first)


def padded(of: Expression, dim: int, size: int, value: float | str) -> Expression:
    """The expression with more elements at the end of a dimension, up to `size`.

    Args:
        of: The expression.
        dim: The dimension; a negative one counts from the end.
        size: Its new size.
        value: The value of the new elements; ``mean`` for the mean along the dimension.

    Raises:
        PlanError: The dimension has more elements, or the dtype lacks this value.
    """
    dim = dimension(of.shape, dim)
    more = size - of.shape[dim]
    if more < 0 or size >= MOST_ELEMENTS:
        raise PlanError(f"cannot pad dimension {dim} of shape {list(of.shape)} to {size:,}")
    if not more:
        return of
    if isinstance(value, str):
        if not of.shape[dim]:
            raise PlanError(f"dimension {dim} of shape {list(of.shape)} has no mean")
        _expect_floats(of, "averaged")
        return joined([of, Averaged(of, dim, more)], dim)
    return joined([of, filled(of.dtype, with_size(of.shape, dim, more), value)], dim)


def resized(
    of: Expression,
    old: Sequence[int],
    new: Sequence[int],
    *,
    mode: str,
    prefix: int,
    antialias: bool,
) -> Expression:
    """A position table for another grid; see `Resized`.

    Raises:
        PlanError: The table does not have the rows of the grid and the prefix, or no floats.
    """
    rows = of.shape[-2] if len(of.shape) > 1 else 0
    old_size, new_size = prod(old), prod(new)
    if rows != prefix + old_size or not prod(of.shape) or new_size >= MOST_ELEMENTS:
        more = rows - old_size
        raise PlanError(
            f"shape {list(of.shape)} is not a table of {prefix} + {old[0]} × {old[1]} rows",
            hint=f"prefix = {more}  keeps the rows before the grid" if more > 0 else None,
        )
    _expect_floats(of, "interpolated")
    return Resized(of, (old[0], old[1]), (new[0], new[1]), mode, prefix, antialias)


def in_memory(expression: Expression) -> Iterator[Expression]:
    """The operands that are held in memory as a whole, to work it out."""
    match expression:
        case Source() | Filled():
            return
        case Joined(parts=parts):
            for part in parts:
                yield from in_memory(part)
        case Merged(of=inner, other=other):
            yield from in_memory(inner)
            yield from in_memory(other)
        case _:
            if isinstance(expression, Averaged | Resized):
                yield expression.of
            yield from in_memory(expression.of)


def _expect_floats(of: Expression, done: str) -> None:
    if of.dtype not in _FLOATS:
        raise PlanError(f"{of.dtype} cannot be {done}; these can: {', '.join(_FLOATS)}")
