"""How much the tests try: `CKPT_TESTS` is ``short``, ``all`` or ``every``.

``short`` (`make test`, and pytest alone) takes about three minutes on two cores: fewer points of
each fault, fewer rounds of each experiment, no test that is marked ``long``. ``all``
(`make test-all`, CI) runs everything. ``every`` (`make faults`) tries every point of every command.
"""

import os
from collections.abc import Sequence
from typing import TypeVar

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


def thinned(points: Sequence[T]) -> Sequence[T]:
    """All points; in the short form each sixth."""
    return points[::6] if SHORT else points
