"""Values: how far the numbers of one tensor are from those of another, block after block.

Laws: an element differs if its bits do, be it by one ulp, the sign of a zero or what a NaN carries;
elements that are not finite on both sides are counted apart and enter no sum and no maximum, so
that no result is NaN; and the sums are float64 with an exponent of their own, so that squares
neither overflow nor vanish. Pure: bytes in, numbers out.
"""

from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING

from ckpt.compare.numbers import FLOATS, INTEGERS, has_numbers, integers, numbers, parts_of, ranks
from ckpt.compare.numbers import rounded as rounded_to
from ckpt.compare.special_values import has_special_values
from ckpt.compare.sums import Sum, cosine, product, ratio_of_roots, scaled
from ckpt.dtypes import itemsize

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ckpt.compare.numbers import Numbers

    Flags = NDArray[np.bool]

# Numbers at once: they stay in the processor's cache, and BLAS starts no thread for them. Larger
# ones would keep several threads busy, and lose as much to the memory.
_BLOCK = 8192


@dataclass(frozen=True, slots=True)
class ValueDiff:
    """How one tensor differs from another of its shape.

    Of complex elements, and of bytes that hold two four-bit floats, the numbers are the parts.

    Attributes:
        elements: In all.
        differ: Elements with other bits; of tensors of two dtypes, with other values.
        left_out: Elements that are NaN or infinite on a side, and so in none of the figures below.
        incomparable: Of these, those where the sides are not alike: NaN and a number, for example,
            or infinities of two signs; but not two NaN of different bits.
        nan: NaN elements of each side; None of dtypes that have none.
        inf: Infinite elements of each side; None likewise.
        max_abs: The greatest |b - a|; None where no element is finite, or no number.
        mean_abs: The mean |b - a| of all that were not left out, equal ones too; None likewise.
        relative_l2: ‖b - a‖₂ / ‖a‖₂; None likewise, and where ‖a‖₂ alone is 0.
        cosine: a·b / (‖a‖₂ ‖b‖₂); None likewise, and where a norm is 0.
        max_ulps: The greatest distance in numbers of that floating dtype: 1 between neighbours, -0
            and +0 among them. None of other dtypes, and of tensors of two.
        exact_cast: Of tensors of two dtypes: whether the second is the first converted, as torch
            does it; None where this is not known, as of float8.
    """

    elements: int
    differ: int
    left_out: int = 0
    incomparable: int = 0
    nan: tuple[int, int] | None = None
    inf: tuple[int, int] | None = None
    max_abs: float | None = None
    mean_abs: float | None = None
    relative_l2: float | None = None
    cosine: float | None = None
    max_ulps: int | None = None
    exact_cast: bool | None = None

    def within(self, tolerance: float) -> bool:
        """Whether no number is further than that from its partner, and each has one."""
        if self.max_abs is None:
            return not self.incomparable and self.elements == self.left_out
        return not self.incomparable and self.max_abs <= tolerance


def comparable(before: str, after: str) -> bool:
    """Whether tensors of these two dtypes can be compared by value."""
    return before == after or {before, after} <= FLOATS


@dataclass(slots=True)
class Tally:
    """Counts and sums of a range of two tensors; ranges are joined in their order by `join`.

    Args:
        before: dtype of the first.
        after: dtype of the second, another only where they are `comparable`.
    """

    before: str
    after: str
    elements: int = 0
    differ: int = 0
    left_out: int = 0
    incomparable: int = 0
    nan: list[int] = field(default_factory=lambda: [0, 0])
    inf: list[int] = field(default_factory=lambda: [0, 0])
    max_abs: float = 0.0
    max_ulps: int = 0
    exact_cast: bool | None = None
    # Of |b - a|, its square, a·a, b·b and a·b.
    _sums: list[Sum] = field(default_factory=lambda: [Sum() for _ in range(5)])

    def add(self, before: bytes, after: bytes) -> None:
        """The next elements of both: as many of them, and whole ones."""
        import numpy as np

        widths = itemsize(self.before), itemsize(self.after)
        step = _BLOCK // parts_of(self.before)
        with np.errstate(all="ignore"):
            for first in range(0, len(before) // widths[0], step):
                a, b = (
                    data[first * width : (first + step) * width]
                    for data, width in zip((before, after), widths, strict=True)
                )
                self.elements += len(a) // widths[0]
                self._add(a, b)

    def join(self, following: "Tally") -> None:
        """Add what was found in the range that follows."""
        self.elements += following.elements
        self.differ += following.differ
        self.left_out += following.left_out
        self.incomparable += following.incomparable
        for mine, other in ((self.nan, following.nan), (self.inf, following.inf)):
            mine[:] = (mine[0] + other[0], mine[1] + other[1])
        self.max_abs = max(self.max_abs, following.max_abs)
        self.max_ulps = max(self.max_ulps, following.max_ulps)
        self._cast(following.exact_cast)
        for total, part in zip(self._sums, following._sums, strict=True):
            total.add(part.value, part.exponent)

    def found(self) -> ValueDiff:
        """The figures."""
        special = has_special_values(self.before)
        finite = (self.elements - self.left_out) * parts_of(self.before)
        known = has_numbers(self.before) and finite > 0
        floating = special and self.before == self.after
        absolute, square, before, after, dot = self._sums
        return ValueDiff(
            elements=self.elements,
            differ=self.differ,
            left_out=self.left_out,
            incomparable=self.incomparable,
            nan=(self.nan[0], self.nan[1]) if special else None,
            inf=(self.inf[0], self.inf[1]) if special else None,
            max_abs=self.max_abs if known else None,
            mean_abs=scaled(absolute.value / finite, absolute.exponent) if known else None,
            relative_l2=ratio_of_roots(square, before) if known else None,
            cosine=cosine(dot, before, after) if known else None,
            max_ulps=self.max_ulps if known and floating else None,
            exact_cast=self.exact_cast,
        )

    def _add(self, before: bytes, after: bytes) -> None:
        if not has_numbers(self.before):
            self.differ += int(_other_bits(before, after, self.before).sum())
            return
        a = numbers(self.before, before)
        if before == after and self.before == self.after:
            self._add_same(a)
            return
        b = numbers(self.after, after)
        other = self._others(before, after, a, b)
        self.differ += int(other.reshape(-1, parts_of(self.before)).any(axis=1).sum())
        finite = self._finite(a, b)
        if self.before in INTEGERS:
            self._add_distances(_apart(self.before, before, after))
        elif finite is None:
            self._add_differences(a, b)
        else:
            a, b, other = a[finite], b[finite], other & finite
            self._add_differences(a, b)
        self._add_products(a, b)
        if self.before == self.after and has_special_values(self.before):
            self._add_ranks(before, after, other)

    def _add_same(self, a: "Numbers") -> None:
        """Of equal numbers only their size matters."""
        finite = self._finite(a, a)
        kept = a if finite is None else a[finite]
        square = product(kept, kept)
        for total in self._sums[2:]:
            total.add(*square)

    def _others(self, before: bytes, after: bytes, a: "Numbers", b: "Numbers") -> "Flags":
        """The numbers that differ, part by part."""
        import numpy as np

        if self.before == self.after:
            return _other_bits(before, after, self.before)
        neither = np.isnan(a) & np.isnan(b)
        cast = rounded_to(a, self.after)
        if cast is not None:
            self._cast(bool(((cast == b) | neither).all()))
        others: Flags = (a != b) & ~neither
        return others

    def _cast(self, exact: bool | None) -> None:
        if exact is not None:
            self.exact_cast = exact and self.exact_cast is not False

    def _finite(self, a: "Numbers", b: "Numbers") -> "Flags | None":
        """Which numbers belong to elements that are finite on both sides; None: all do."""
        import numpy as np

        finite = np.isfinite(a)
        if b is not a:
            finite &= np.isfinite(b)
        if finite.all():
            return None
        parts = parts_of(self.before)
        for side, values in enumerate((a, b)):
            for counts, found in ((self.nan, np.isnan(values)), (self.inf, np.isinf(values))):
                counts[side] += int(found.reshape(-1, parts).any(axis=1).sum())
        whole = finite.reshape(-1, parts).all(axis=1)
        self.left_out += int((~whole).sum())
        alike = (a == b) | (np.isnan(a) & np.isnan(b)) | finite
        self.incomparable += int((~alike.reshape(-1, parts).all(axis=1)).sum())
        kept: Flags = whole.repeat(parts)
        return kept

    def _add_differences(self, a: "Numbers", b: "Numbers") -> None:
        import numpy as np

        difference = np.abs(b - a)
        if np.isfinite(difference).all():
            self._add_distances(difference)
        else:  # two of the largest float64, of opposite signs
            self._add_distances(np.abs(b / 2 - a / 2), 1)

    def _add_distances(self, distances: "Numbers", exponent: int = 0) -> None:
        """All |b - a|, to be multiplied by 2^`exponent`."""
        import numpy as np

        if not distances.size:
            return
        self.max_abs = max(self.max_abs, scaled(float(distances.max()), exponent))
        total = float(distances.sum())
        if isfinite(total):
            self._sums[0].add(total, exponent)
        else:
            self._sums[0].add(float(np.ldexp(distances, -64).sum()), exponent + 64)
        square, twice = product(distances, distances)
        self._sums[1].add(square, twice + 2 * exponent)

    def _add_products(self, a: "Numbers", b: "Numbers") -> None:
        for total, (x, y) in zip(self._sums[2:], ((a, a), (b, b), (a, b)), strict=True):
            total.add(*product(x, y))

    def _add_ranks(self, before: bytes, after: bytes, other: "Flags") -> None:
        """The distances in ulps; they need 64 bits without a sign."""
        import numpy as np

        x, y = ranks(self.before, before), ranks(self.after, after)
        if not other.all():
            x, y = x[other], y[other]
        if x.size:
            apart = (np.maximum(x, y) - np.minimum(x, y)).view(np.uint64)
            self.max_ulps = max(self.max_ulps, int(apart.max()))


def _other_bits(before: bytes, after: bytes, dtype: str) -> "Flags":
    """Which numbers have other bits; of two four-bit floats both, if one has."""
    import numpy as np

    real = parts_of(dtype) if itemsize(dtype) > 1 else 1
    x, y = (np.frombuffer(data, f"<u{itemsize(dtype) // real}") for data in (before, after))
    others: Flags = x != y
    return others if real == parts_of(dtype) else others.repeat(2)


def _apart(dtype: str, before: bytes, after: bytes) -> "Numbers":
    """The distances of integers, exact until they become float64."""
    import numpy as np

    x, y = integers(dtype, before), integers(dtype, after)
    if itemsize(dtype) < 8:
        x, y = x.astype(np.int64), y.astype(np.int64)
    apart: NDArray[np.int64] = np.maximum(x, y) - np.minimum(x, y)
    return apart.view(np.uint64).astype(np.float64)
