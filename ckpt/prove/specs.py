"""Inputs as one types them: ``1x3x224x224``, ``input_ids=1x16:int64<1000``."""

import re
from dataclasses import dataclass

from ckpt.dtypes import DTYPES
from ckpt.errors import UsageError

_SPEC = re.compile(r"(?:(?P<name>\w+)=)?(?P<shape>[\dx]+)(?::(?P<dtype>\w+))?(?:<(?P<below>\d+))?")
_MOST = 1 << 20  # of one dimension


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One tensor that is drawn.

    Attributes:
        shape: Its shape.
        name: The argument of `forward` that it is passed as; None for the next place.
        dtype: Its dtype; None for what the model takes.
        below: Integers are drawn from 0 to below this; None for what the model takes.
    """

    shape: tuple[int, ...]
    name: str | None = None
    dtype: str | None = None
    below: int | None = None


def parse_input(text: str) -> InputSpec:
    """Read ``[NAME=]SHAPE[:DTYPE][<MAX]``; a MAX alone means int64.

    Raises:
        UsageError: It does not have this form.
    """
    found = _SPEC.fullmatch(text)
    sizes = found["shape"].split("x") if found else []
    if found is None or not all(size.isdecimal() and 0 < int(size) < _MOST for size in sizes):
        raise UsageError(
            f"{text!r} is not an input like 1x3x224x224 or input_ids=1x16:int64<1000",
            hint="[NAME=]SHAPE[:DTYPE][<MAX]",
        )
    dtype, below = found["dtype"], found["below"]
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"{text!r}: {dtype} is not a dtype like float32 or int64")
    if below is not None and (int(below) < 1 or "float" in (dtype or "") or dtype == "bool"):
        raise UsageError(f"{text!r}: <{below} is for integers, from 0 to below {below}")
    if below is not None:
        dtype = dtype or "int64"
    most = int(below) if below is not None else None
    return InputSpec(tuple(map(int, sizes)), found["name"], dtype, most)
