"""How far the numbers of one tensor are from those of another, block after block.

Laws: an element differs if its bits do, also by one ulp, the sign of a zero or the payload of a
NaN; elements that are not finite on both sides are counted apart and enter no sum and no maximum,
so that no result is NaN; squares neither overflow nor vanish (`sums`). Pure: bytes in, numbers out.
"""

from dataclasses import dataclass, field
from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING

from ckpt.compare.numbers import (
    FLOATS,
    INTEGERS,
    has_numbers,
    has_special_values,
    integers,
    numbers,
    parts_of,
    ranks,
    rounded,
)
from ckpt.compare.sums import cosine, mean, product, ratio_of_roots, scaled, total
from ckpt.dtypes import itemsize

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ckpt.compare.numbers import Numbers

    Flags = NDArray[np.bool]

# Numbers at once: few enough to stay in the processor's cache, and for BLAS to start no threads.
# Larger blocks would keep several threads busy, and lose as much to the memory.
_BLOCK = 8192


@dataclass(frozen=True, slots=True)
class ValueDiff:
    """How one tensor differs from another of its shape.

    The parts of complex elements, and both four-bit floats of a byte, are numbers of their own.

    Attributes:
        elements: Total.
        differ: Elements with other bits; if the dtypes differ, with other values.
        max_abs: The greatest |b - a|; None if no element is finite, or the dtype has no numbers.
        mean_abs: The mean |b - a| of all elements not left out, equal ones too; None likewise.
        relative_l2: ‖b - a‖₂ / ‖a‖₂; None likewise, and if only ‖a‖₂ is 0.
        cosine: a·b / (‖a‖₂ ‖b‖₂); None likewise, and if a norm is 0.
        max_ulps: The greatest distance, counted in numbers of the floating dtype: 1 between
            neighbours, also between -0 and +0. None for other dtypes, and if the dtypes differ.
        nan: NaN elements on each side; None for dtypes without NaN.
        inf: Infinite elements on each side; None likewise.
        left_out: Elements that are NaN or infinite on a side, which the figures above leave out.
        incomparable: Those of them that differ in kind: for example NaN and a number, or infinities
            of opposite signs; two NaN of different bits do not.
        exact_cast: If the dtypes differ: whether the second tensor is the first, as torch converts
            it; None if this is not known, as for float8.
    """

    elements: int
    differ: int
    max_abs: float | None = None
    mean_abs: float | None = None
    relative_l2: float | None = None
    cosine: float | None = None
    max_ulps: int | None = None
    nan: tuple[int, int] | None = None
    inf: tuple[int, int] | None = None
    left_out: int = 0
    incomparable: int = 0
    exact_cast: bool | None = None

    def within(self, tolerance: float) -> bool:
        """Whether every number has a partner, no further away than that."""
        if self.max_abs is None:
            return not self.incomparable and self.elements == self.left_out
        return not self.incomparable and self.max_abs <= tolerance


def comparable(before: str, after: str) -> bool:
    """Whether tensors of these two dtypes can be compared by value."""
    return before == after or {before, after} <= FLOATS


@dataclass(slots=True)
class Tally:
    """Counts and sums over a range of two tensors; `join` joins ranges in their order.

    Args:
        before: dtype of the first.
        after: dtype of the second; different only if they are `comparable`.
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
    # |b - a|, its square, a·a, b·b and a·b.
    _sums: list[Decimal] = field(default_factory=lambda: [Decimal()] * 5)

    def add(self, before: bytes, after: bytes) -> None:
        """The next elements of both tensors, equally many and whole."""
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
        """Add the results of the range that follows."""
        self.elements += following.elements
        self.differ += following.differ
        self.left_out += following.left_out
        self.incomparable += following.incomparable
        for mine, other in ((self.nan, following.nan), (self.inf, following.inf)):
            mine[:] = (mine[0] + other[0], mine[1] + other[1])
        self.max_abs = max(self.max_abs, following.max_abs)
        self.max_ulps = max(self.max_ulps, following.max_ulps)
        self._cast(following.exact_cast)
        self._sums = [*map(total, self._sums, following._sums)]

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
            mean_abs=mean(absolute, finite) if known else None,
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
        """Equal numbers add to the norms and the dot product alone."""
        finite = self._finite(a, a)
        kept = a if finite is None else a[finite]
        square = product(kept, kept)
        for which in (2, 3, 4):
            self._add_to(which, square)

    def _others(self, before: bytes, after: bytes, a: "Numbers", b: "Numbers") -> "Flags":
        """Which numbers differ, part by part."""
        import numpy as np

        if self.before == self.after:
            return _other_bits(before, after, self.before)
        neither = np.isnan(a) & np.isnan(b)
        cast = rounded(a, self.after)
        if cast is not None:
            self._cast(bool(((cast == b) | neither).all()))
        others: Flags = (a != b) & ~neither
        return others

    def _cast(self, exact: bool | None) -> None:
        if exact is not None:
            self.exact_cast = exact and self.exact_cast is not False

    def _finite(self, a: "Numbers", b: "Numbers") -> "Flags | None":
        """Which numbers belong to elements that are finite on both sides; None if all do."""
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

    def _add_to(self, which: int, value: Decimal) -> None:
        self._sums[which] = total(self._sums[which], value)

    def _add_distances(self, distances: "Numbers", exponent: int = 0) -> None:
        """All |b - a|, as multiples of 2^`exponent`."""
        import numpy as np

        if not distances.size:
            return
        self.max_abs = max(self.max_abs, float(scaled(float(distances.max()), exponent)))
        whole, shift = float(distances.sum()), 0
        if not isfinite(whole):
            whole, shift = float(np.ldexp(distances, -64).sum()), 64
        self._add_to(0, scaled(whole, exponent + shift))
        self._add_to(1, scaled(product(distances, distances), 2 * exponent))

    def _add_products(self, a: "Numbers", b: "Numbers") -> None:
        for which, (x, y) in enumerate(((a, a), (b, b), (a, b)), start=2):
            self._add_to(which, product(x, y))

    def _add_ranks(self, before: bytes, after: bytes, other: "Flags") -> None:
        """The distances in ulps, which need all 64 bits of an unsigned integer."""
        import numpy as np

        x, y = ranks(self.before, before), ranks(self.after, after)
        if not other.all():
            x, y = x[other], y[other]
        if x.size:
            apart = (np.maximum(x, y) - np.minimum(x, y)).view(np.uint64)
            self.max_ulps = max(self.max_ulps, int(apart.max()))


def _other_bits(before: bytes, after: bytes, dtype: str) -> "Flags":
    """Which numbers have other bits; if one of two four-bit floats has, both do."""
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
