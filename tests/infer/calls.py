"""Count the work of a function, whatever else the machine does."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

MOST_CALLS = 3_000_000  # of Python functions; a core makes that many in some two seconds


@contextmanager
def counted_calls() -> Iterator[list[int]]:
    """Count the calls of Python functions: work, which no busy machine changes."""
    count = [0]

    def note(_frame: FrameType, event: str, _argument: Any) -> None:
        count[0] += event == "call"

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield count
    finally:
        sys.setprofile(before)
