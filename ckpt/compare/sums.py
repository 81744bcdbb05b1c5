"""Sums of float64 whose squares neither overflow nor vanish: each has an exponent of its own."""

from dataclasses import dataclass
from math import frexp, inf, isfinite, ldexp, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckpt.compare.numbers import Numbers

_SMALLEST = 1e-280  # a sum of products below it may have lost some


@dataclass(slots=True)
class Sum:
    """A sum of float64 values, each with a power of two; law: `value` has 53 bits or is 0."""

    value: float = 0.0
    exponent: int = 0

    def add(self, value: float, exponent: int = 0) -> None:
        """Add `value` × 2^`exponent`."""
        if not value:
            return
        if not self.value:
            self.value, self.exponent = value, exponent
        else:
            top = max(self.exponent, exponent)
            self.value = ldexp(self.value, self.exponent - top) + ldexp(value, exponent - top)
            self.exponent = top
        self.value, shift = frexp(self.value)
        self.exponent += shift


def product(x: "Numbers", y: "Numbers") -> tuple[float, int]:
    """The dot product as a value and a power of two."""
    import numpy as np

    found = float(x @ y)
    if (isfinite(found) and abs(found) > _SMALLEST) or not x.size:
        return found, 0
    # As numbers below 1: out of reach of both ends of float64.
    shifts = [frexp(float(np.abs(each).max()))[1] for each in (x, y)]
    x, y = (np.ldexp(each, -shift) for each, shift in zip((x, y), shifts, strict=True))
    return float(x @ y), sum(shifts)


def scaled(value: float, exponent: int) -> float:
    """`value` × 2^`exponent`, as a plain float64."""
    try:
        return ldexp(value, exponent)
    except OverflowError:
        return inf


def ratio_of_roots(above: Sum, below: Sum) -> float | None:
    """√`above` / √`below`; 0 of two zeros, None of what is divided by 0."""
    if not below.value:
        return None if above.value else 0.0
    odd = (above.exponent - below.exponent) % 2
    ratio = above.value / below.value * (1 + odd)
    return scaled(sqrt(ratio), (above.exponent - below.exponent - odd) // 2)


def cosine(dot: Sum, before: Sum, after: Sum) -> float | None:
    """The cosine out of a dot product and two squares; None where one of these is 0."""
    if not before.value or not after.value:
        return None
    both = before.exponent + after.exponent
    norms = sqrt(before.value * after.value * (1 + both % 2))
    return max(-1.0, min(1.0, scaled(dot.value / norms, dot.exponent - both // 2)))
