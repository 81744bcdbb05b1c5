"""How a tensor of the result is made: an expression over tensors of the source.

Expressions are descriptions; nothing is computed here.
Law: `shape` and `dtype` are those that torch's operation of the same name would give.
Shapes count elements; a dimension is never negative here.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf, isfinite, prod

from ckpt.dtypes import DTYPES
from ckpt.errors import PlanError


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor of the source, as it is."""

    key: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _SameDtype:
    """An operation on one operand that keeps its dtype."""

    of: "Expression"

    @property
    def dtype(self) -> str:
        return self.of.dtype


@dataclass(frozen=True, slots=True)
class Permuted(_SameDtype):
    """Dimensions in another order: dimension `i` of the result is `dims[i]` of the operand."""

    dims: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.of.shape[dim] for dim in self.dims)


@dataclass(frozen=True, slots=True)
class Reshaped(_SameDtype):
    """The same elements, row by row, in another shape."""

    shape: tuple[int, ...]


def with_size(shape: tuple[int, ...], dim: int, size: int) -> tuple[int, ...]:
    """The shape, of which one dimension has another size."""
    return (*shape[:dim], size, *shape[dim + 1 :])


@dataclass(frozen=True, slots=True)
class Narrowed(_SameDtype):
    """A slice of one dimension, `length` elements from `start`."""

    dim: int
    start: int
    length: int

    @property
    def shape(self) -> tuple[int, ...]:
        return with_size(self.of.shape, self.dim, self.length)


@dataclass(frozen=True, slots=True)
class Joined:
    """Parts concatenated along one dimension."""

    parts: tuple["Expression", ...]
    dim: int

    @property
    def dtype(self) -> str:
        return self.parts[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        shape = self.parts[0].shape
        length = sum(part.shape[self.dim] for part in self.parts)
        return with_size(shape, self.dim, length)


@dataclass(frozen=True, slots=True)
class Cast:
    """The values in another dtype, rounded as torch's `to` does."""

    of: "Expression"
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.of.shape


@dataclass(frozen=True, slots=True)
class Copied(_SameDtype):
    """The same tensor, with bytes of its own."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.of.shape


@dataclass(frozen=True, slots=True)
class Merged(_SameDtype):
    """The same tensor, tied; `other`, whose place it takes, must have equal bytes."""

    other: "Expression"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.of.shape


@dataclass(frozen=True, slots=True)
class Filled:
    """A new tensor whose elements all have one value."""

    dtype: str
    shape: tuple[int, ...]
    value: float


@dataclass(frozen=True, slots=True)
class Averaged(_SameDtype):
    """The mean along one dimension, as torch's `mean` of the contiguous tensor, `length` times."""

    dim: int
    length: int

    @property
    def shape(self) -> tuple[int, ...]:
        return with_size(self.of.shape, self.dim, self.length)


@dataclass(frozen=True, slots=True)
class Resized(_SameDtype):
    """A position table, (…, prefix + rows of the grid, width), interpolated for another grid.

    As `torch.nn.functional.interpolate` does it with ``align_corners=False``, in float32 for
    narrower dtypes. This is how timm resizes the tables of a ViT (`resample_abs_pos_embed`).

    Attributes:
        old: Height and width of the grid; its rows are in the order of reading.
        new: Those of the new grid.
        mode: ``bicubic`` or ``bilinear``.
        prefix: How many rows before the grid stay as they are.
        antialias: As in `interpolate`.
    """

    old: tuple[int, int]
    new: tuple[int, int]
    mode: str
    prefix: int
    antialias: bool

    @property
    def shape(self) -> tuple[int, ...]:
        shape = self.of.shape
        return (*shape[:-2], self.prefix + prod(self.new), shape[-1])


MOST_ELEMENTS = 1 << 60  # of one tensor; no file holds as many
_NO_VALUES = ("bits", "float4")  # torch has no numbers for packed dtypes

Expression = (
    Source | Permuted | Reshaped | Narrowed | Joined | Cast | Copied | Merged | Filled
    | Averaged | Resized
)  # fmt: skip


def sources_of(expression: Expression) -> Iterator[str]:
    """The keys of the source that it uses."""
    match expression:
        case Source(key=key):
            yield key
        case Joined(parts=parts):
            for part in parts:
                yield from sources_of(part)
        case Merged(of=inner, other=other):
            yield from sources_of(inner)
            yield from sources_of(other)
        case Filled():
            return
        case _:
            yield from sources_of(expression.of)


def whole_source(expression: Expression) -> str | None:
    """The key of the one tensor that it consists of, all of its elements; else None."""
    match expression:
        case Source(key=key):
            return key
        case Permuted() | Reshaped() | Cast() | Copied():
            return whole_source(expression.of)
        case Merged(other=other):
            return whole_source(other)
        case _:
            return None


def merged(of: Expression, other: Expression) -> Merged:
    """The expression in place of another one of the same dtype and shape.

    Raises:
        PlanError: The other one has another dtype or shape.
    """
    if (of.dtype, of.shape) != (other.dtype, other.shape):
        texts = [f"{each.dtype} {list(each.shape)}" for each in (other, of)]
        raise PlanError(f"{texts[0]} cannot be tied to {texts[1]}")
    return Merged(of, other)


def permuted(of: Expression, dims: Sequence[int]) -> Expression:
    """The expression with its dimensions in the order `dims`; negative ones count from the end.

    Raises:
        PlanError: `dims` does not name every dimension once.
    """
    count = len(of.shape)
    order = tuple(dim + count if dim < 0 else dim for dim in dims)
    if sorted(order) != list(range(count)):
        raise PlanError(f"{list(dims)} does not name each of its {count} dimensions once")
    return Permuted(of, order)


def transposed(of: Expression, one: int, other: int) -> Expression:
    """The expression with two dimensions exchanged.

    Raises:
        PlanError: It lacks such dimensions.
    """
    one, other = dimension(of.shape, one), dimension(of.shape, other)
    dims = list(range(len(of.shape)))
    dims[one], dims[other] = dims[other], dims[one]
    return Permuted(of, tuple(dims))


def reshaped(of: Expression, shape: Sequence[int]) -> Expression:
    """The expression in another shape, in which one size may be -1.

    Raises:
        PlanError: The shape has another number of elements.
    """
    wanted, numel = list(shape), prod(of.shape)
    known = prod(size for size in wanted if size != -1)
    if wanted.count(-1) == 1 and known and numel % known == 0:
        wanted[wanted.index(-1)] = numel // known
    if min(wanted, default=0) < 0 or prod(wanted) != numel:
        raise PlanError(f"shape {list(of.shape)} has {numel:,} elements; {list(shape)} does not")
    return Reshaped(of, tuple(wanted))


def squeezed(of: Expression, dim: int) -> Expression:
    """The expression without a dimension of one element.

    Raises:
        PlanError: The dimension does not exist or has more elements.
    """
    dim = dimension(of.shape, dim)
    if of.shape[dim] != 1:
        raise PlanError(f"dimension {dim} of shape {list(of.shape)} has more than one element")
    return Reshaped(of, (*of.shape[:dim], *of.shape[dim + 1 :]))


def unsqueezed(of: Expression, dim: int) -> Expression:
    """The expression with a new dimension of one element before `dim`.

    Raises:
        PlanError: `dim` is out of range.
    """
    dim = dimension((*of.shape, 1), dim)
    return Reshaped(of, (*of.shape[:dim], 1, *of.shape[dim:]))


def split(
    of: Expression, dim: int, count: int, sizes: Sequence[int] | None = None
) -> list[Expression]:
    """The expression in parts along a dimension.

    Args:
        of: The whole.
        dim: The dimension; a negative one counts from the end.
        count: The number of parts.
        sizes: The sizes of the parts; None for equal ones.

    Raises:
        PlanError: The parts do not add up to the whole.
    """
    dim = dimension(of.shape, dim)
    length = of.shape[dim]
    if sizes is None:
        if length % count:
            raise PlanError(
                f"cannot split dimension {dim} of shape {list(of.shape)} into {count} equal parts"
            )
        sizes = [length // count] * count
    if len(sizes) != count or sum(sizes) != length or min(sizes) < 0:
        raise PlanError(
            f"sizes {list(sizes)} do not add up to dimension {dim} of shape {list(of.shape)}"
        )
    starts = accumulate(sizes[:-1], initial=0)
    return [Narrowed(of, dim, start, size) for start, size in zip(starts, sizes, strict=True)]


def joined(parts: Sequence[Expression], dim: int) -> Expression:
    """The parts concatenated.

    Raises:
        PlanError: They differ in dtype or in another dimension.
    """
    first = parts[0]
    dim = dimension(first.shape, dim)
    for part in parts:
        if part.dtype != first.dtype:
            raise PlanError(f"cannot join {first.dtype} and {part.dtype}")
        others = (*part.shape[:dim], *part.shape[dim + 1 :])
        alike = others == (*first.shape[:dim], *first.shape[dim + 1 :])
        if not alike or len(part.shape) != len(first.shape):
            raise PlanError(
                f"cannot join along dimension {dim}: {list(first.shape)} and {list(part.shape)}"
            )
    return Joined(tuple(parts), dim)


def cast(of: Expression, dtype: str) -> Expression:
    """The expression in another dtype.

    Raises:
        PlanError: The dtype is unknown, or has no values.
    """
    if dtype not in DTYPES:
        raise PlanError(f"{dtype} is not a dtype like float32 or bfloat16")
    for name in (of.dtype, dtype):
        if name.startswith(_NO_VALUES):
            raise PlanError(f"{name} has no values to cast")
    return Cast(of, dtype)


def filled(dtype: str, shape: Sequence[int], value: float) -> Expression:
    """A new tensor whose elements all have one value.

    Raises:
        PlanError: The dtype lacks this value, or the shape is invalid.
    """
    if min(shape, default=0) < 0 or prod(shape) >= MOST_ELEMENTS:
        raise PlanError(f"{list(shape)} is not the shape of a tensor")
    if dtype.startswith(_NO_VALUES) or not _has_value(dtype, value):
        raise PlanError(f"{dtype} cannot hold {value!r:.40}")
    return Filled(dtype, tuple(shape), value)


def _has_value(dtype: str, value: float) -> bool:
    if dtype == "bool":
        return value in (0, 1)
    if "int" in dtype:
        bits = DTYPES[dtype].bits - (not dtype.startswith("u"))
        least = 0 if dtype.startswith("u") else -(1 << bits)
        whole = isinstance(value, int) or (isfinite(value) and value == int(value))
        return whole and least <= value < 1 << bits
    return not abs(value) > sys.float_info.max or value in (inf, -inf)


def dimension(shape: Sequence[int], dim: int) -> int:
    """The dimension's number; a negative one counts from the end.

    Raises:
        PlanError: The dimension does not exist.
    """
    found = dim + len(shape) if dim < 0 else dim
    if not 0 <= found < len(shape):
        raise PlanError(f"shape {list(shape)} has no dimension {dim}")
    return found
