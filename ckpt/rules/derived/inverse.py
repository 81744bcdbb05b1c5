"""The inverse of a plan: how to make the tensors of the source from those of the result.

Law: a plan, then its inverse, is the identity on every key, dtype, shape and bit.
"""

from collections import defaultdict
from collections.abc import Iterable
from operator import itemgetter

from ckpt.errors import PlanError
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
    sources_of,
)
from ckpt.rules.planned import Planned

# The second dtype holds every value of the first, so that a cast back is exact.
_WIDENS = {
    ("float16", "float32"), ("float16", "float64"), ("bfloat16", "float32"),
    ("bfloat16", "float64"), ("float32", "float64"),
    ("int8", "int16"), ("int8", "int32"), ("int8", "int64"), ("int16", "int32"),
    ("int16", "int64"), ("int32", "int64"), ("uint8", "int16"), ("uint8", "int32"),
    ("uint8", "int64"), ("bool", "uint8"),
}  # fmt: skip
# By the tensor that was cut and the dimension: the starts of its parts and their expressions.
_Pieces = defaultdict[tuple[Expression, int], list[tuple[int, Expression]]]


def inverse(sources: Iterable[Source], planned: Iterable[Planned]) -> list[Planned]:
    """Make the tensors of the source from those of the result.

    Args:
        sources: Every tensor of the source, in order.
        planned: The tensors of the result.

    Raises:
        PlanError: A tensor of the source is not, or not exactly, in the result.
    """
    found: dict[str, Expression] = {}
    pieces: _Pieces = defaultdict(list)
    for tensor in planned:
        whole = Source(tensor.key, tensor.made_of.dtype, tensor.made_of.shape)
        _undo(tensor.made_of, whole, found, pieces)
    wanted = list(sources)
    lost = next((source.key for source in wanted if source.key not in found), None)
    if lost is not None:
        partly = any(lost in sources_of(cut) for cut, _ in pieces)
        why = (
            "is only partly in the result"
            if partly
            else "was cast or resized, which rounds, or dropped"
        )
        raise PlanError(
            f"{lost}: {why}; the plan has no inverse", hint="keep the file that it was made from"
        )
    return [Planned(source.key, found[source.key]) for source in wanted]


def _undo(made: Expression, of: Expression, found: dict[str, Expression], pieces: _Pieces) -> None:
    """Note how to make the sources of `made` from `of`, whose value is that of `made`."""
    match made:
        case Source(key=key):
            found.setdefault(key, of)
        case Permuted(of=inner, dims=dims):
            back = tuple(dims.index(dim) for dim in range(len(dims)))
            _undo(inner, Permuted(of, back), found, pieces)
        case Reshaped(of=inner):
            _undo(inner, Reshaped(of, inner.shape), found, pieces)
        case Copied(of=inner):
            _undo(inner, of, found, pieces)
        case Merged(of=inner, other=other):
            _undo(inner, of, found, pieces)
            _undo(other, of, found, pieces)
        case Cast(of=inner) if inner.dtype == made.dtype or (inner.dtype, made.dtype) in _WIDENS:
            _undo(inner, Cast(of, inner.dtype), found, pieces)
        case Joined(parts=parts, dim=dim):
            start = 0
            for part in parts:
                _undo(part, Narrowed(of, dim, start, part.shape[dim]), found, pieces)
                start += part.shape[dim]
        case Narrowed(of=inner, dim=dim, start=start):
            parts_of = pieces[inner, dim]
            parts_of.append((start, of))
            whole = _whole(inner.shape[dim], dim, parts_of)
            if whole is not None:
                _undo(inner, whole, found, pieces)
        case Cast() | Filled() | Averaged() | Resized():
            pass


def _whole(length: int, dim: int, pieces: list[tuple[int, Expression]]) -> Expression | None:
    """The pieces joined, once they cover the whole length of the dimension."""
    position, parts = 0, []
    for start, piece in sorted(pieces, key=itemgetter(0)):
        if start == position:
            parts.append(piece)
            position += piece.shape[dim]
    if position != length:
        return None
    return parts[0] if len(parts) == 1 else Joined(tuple(parts), dim)
