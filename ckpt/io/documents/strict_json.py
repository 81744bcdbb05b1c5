"""JSON without surprises: no duplicate keys, no NaN, no endless nesting.

Python's own parser takes the last of two equal keys, accepts ``NaN``, and raises RecursionError
on deep nesting.
"""

import json
from collections import Counter
from collections.abc import Mapping
from math import isfinite
from typing import Any

from ckpt.errors import excerpt

_DIGITS = 400  # more than a double has


def parse(text: str) -> Any:
    """The document.

    Raises:
        ValueError: It is not valid JSON, or ambiguous.
    """
    try:
        return json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_integer
        )
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def plain(value: object) -> object:
    """`value` for JSON, which lacks NaN and infinities: they become text."""
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{excerpt(key)!r} appears twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
