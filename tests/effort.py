"""How much the tests try: `CKPT_TESTS` is ``short``, ``all`` or ``every``.

``short`` (`make test`, and pytest alone) takes about three minutes on two cores: fewer points of
each fault, fewer rounds and examples, one case of each test, no test that is marked ``long``.
``all`` (`make test-all`, CI) runs everything, in 20 to 60 minutes. ``every`` (`make faults`)
tries every point of every command.
"""

import os
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any, TypeVar

import pytest

LEVELS = ("short", "all", "every")
LEVEL = os.environ.get("CKPT_TESTS", "short")
if LEVEL not in LEVELS:
    raise RuntimeError(f"CKPT_TESTS is {LEVEL!r}, expected one of {', '.join(LEVELS)}")
SHORT = LEVEL == "short"
EVERY = LEVEL == "every"

# Seconds after which a process that hangs is given up; no test measures anything by it.
PATIENCE = 900

T = TypeVar("T")


def by_effort(short: T, normal: T, every: T) -> T:
    """The value for the level that is asked for."""
    return {"short": short, "all": normal, "every": every}[LEVEL]


def examples(count: int) -> int:
    """How many examples hypothesis draws; in the short form a tenth of them, and at least five."""
    return max(count // 10, 5) if SHORT else count


def long_but(short: Sequence[T], values: Iterable[T]) -> list[Any]:
    """Parameters of a test, all but those in `short` marked ``long``."""
    return [
        each if each in short else pytest.param(each, marks=pytest.mark.long) for each in values
    ]


def long_pairs(
    short: Iterable[tuple[Any, ...]], firsts: Iterable[Any], seconds: Iterable[Any]
) -> list[Any]:
    """Two parameters of a test, each with each; all but the pairs in `short` marked ``long``."""
    kept = {*short}
    return [
        pytest.param(*pair, marks=() if pair in kept else pytest.mark.long)
        for pair in product(firsts, seconds)
    ]


def thinned(points: Sequence[T]) -> Sequence[T]:
    """All points in `make faults`, each fourth in CI, in the short form each fortieth."""
    return points[:: by_effort(40, 4, 1)]
