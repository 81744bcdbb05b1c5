"""Sums of float64 whose squares neither overflow nor vanish: decimals, whose exponents suffice."""

from decimal import Context, Decimal
from math import frexp, isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckpt.compare.numbers import Numbers

_SMALLEST = 1e-280  # below it a sum of products may have lost some
_DECIMAL = Context(prec=28)  # of our own: a program that imports ckpt may have changed its own


def total(one: Decimal, other: Decimal) -> Decimal:
    """Their sum."""
    return _DECIMAL.add(one, other)


def scaled(value: float | Decimal, exponent: int) -> Decimal:
    """`value` × 2^`exponent`."""
    return (
        _DECIMAL.multiply(Decimal(value), _DECIMAL.power(2, exponent))
        if exponent
        else Decimal(value)
    )


def product(x: "Numbers", y: "Numbers") -> Decimal:
    """The dot product."""
    import numpy as np

    found = float(x @ y)
    if (isfinite(found) and abs(found) > _SMALLEST) or not x.size:
        return Decimal(found)
    # As numbers below 1, far from both ends of float64.
    shifts = [frexp(float(np.abs(side).max()))[1] for side in (x, y)]
    x, y = (np.ldexp(side, -shift) for side, shift in zip((x, y), shifts, strict=True))
    return scaled(float(x @ y), sum(shifts))


def mean(whole: Decimal, count: int) -> float:
    """`whole` / `count`, infinite where float64 cannot hold it."""
    return float(_DECIMAL.divide(whole, count))


def ratio_of_roots(above: Decimal, below: Decimal) -> float | None:
    """√`above` / √`below`; 0 if both are 0, None if only `below` is."""
    if not below:
        return None if above else 0.0
    return float(_DECIMAL.sqrt(_DECIMAL.divide(above, below)))


def cosine(dot: Decimal, before: Decimal, after: Decimal) -> float | None:
    """The cosine from a dot product and two squares; None if one of these is 0."""
    if not before or not after:
        return None
    norms = _DECIMAL.sqrt(_DECIMAL.multiply(before, after))
    return max(-1.0, min(1.0, float(_DECIMAL.divide(dot, norms))))
