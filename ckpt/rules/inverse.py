"""The inverse of a plan: how to make the tensors of the source from those of the result.

Law: a plan, then its inverse, is the identity on every key, dtype, shape and bit.
"""

from collections import defaultdict
from collections.abc import Iterable

from ckpt.errors import PlanError
from ckpt.rules.expressions import (
    Cast,
    Copied,
    Expression,
    Filled,
    Joined,
    Narrowed,
    Permuted,
    Reshaped,
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
# A part of a tensor: the dimension along which it was cut, its start, and its expression.
_Piece = tuple[int, int, Expression]
_Place = tuple[Expression, int]  # the tensor that was cut, and along which dimension


def inverse(sources: Iterable[Source], planned: Iterable[Planned]) -> list[Planned]:
    """Make the tensors of the source from those of the result.

    Args:
        sources: Every tensor of the source, in order.
        planned: The tensors of the result.

    Raises:
        PlanError: A tensor of the source is not, or not exactly, in the result.
    """
    found: dict[str, Expression] = {}
    pieces: defaultdict[str, dict[_Place, list[_Piece]]] = defaultdict(lambda: defaultdict(list))
    for tensor in planned:
        whole = Source(tensor.key, tensor.made_of.dtype, tensor.made_of.shape)
        _undo(tensor.made_of, whole, found, pieces)
    return [Planned(source.key, _found(source, found, pieces)) for source in sources]


def _undo(
    made: Expression,
    of: Expression,
    found: dict[str, Expression],
    pieces: dict[str, dict[_Place, list[_Piece]]],
) -> None:
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
        case Cast(of=inner) if inner.dtype == made.dtype or (inner.dtype, made.dtype) in _WIDENS:
            _undo(inner, Cast(of, inner.dtype), found, pieces)
        case Joined(parts=parts, dim=dim):
            start = 0
            for part in parts:
                _undo(part, Narrowed(of, dim, start, part.shape[dim]), found, pieces)
                start += part.shape[dim]
        case Narrowed(of=inner, dim=dim, start=start):
            found_pieces = pieces[_key_of(inner)][inner, dim]
            found_pieces.append((dim, start, of))
            whole = _whole(inner, dim, found_pieces)
            if whole is not None:
                _undo(inner, whole, found, pieces)
        case Cast() | Filled():
            pass


def _key_of(expression: Expression) -> str:
    return next(sources_of(expression), "")


def _whole(inner: Expression, dim: int, pieces: list[_Piece]) -> Expression | None:
    """The pieces joined, once they cover all of `inner`."""
    position, parts = 0, []
    for _, start, piece in sorted(pieces, key=lambda piece: piece[1]):
        if start == position:
            parts.append(piece)
            position += piece.shape[dim]
    if position != inner.shape[dim]:
        return None
    return parts[0] if len(parts) == 1 else Joined(tuple(parts), dim)


def _found(
    source: Source,
    found: dict[str, Expression],
    pieces: dict[str, dict[_Place, list[_Piece]]],
) -> Expression:
    if source.key in found:
        return found[source.key]
    why = "was cast, which rounds, or dropped"
    if source.key in pieces:
        why = "is only partly in the result"
    raise PlanError(
        f"{source.key}: {why}; the plan has no inverse", hint="keep the file that it was made from"
    )
