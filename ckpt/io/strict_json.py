"""JSON without surprises: no key twice in one object, no NaN, no endless nesting.

Python's own parser takes the last of two equal keys, accepts ``NaN``, and answers deep nesting
with a RecursionError.
"""

import json
from collections import Counter
from collections.abc import Mapping
from math import isfinite
from typing import Any

_DIGITS = 400  # more than a double has
_SHOWN = 80  # characters of a foreign key in a message


def parse(text: str) -> Any:
    """The document.

    Raises:
        ValueError: It is no JSON, or could be understood in two ways.
    """
    try:
        return json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_integer
        )
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def plain(value: object) -> object:
    """`value` for JSON: NaN and infinities, which JSON lacks, as text."""
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{key[:_SHOWN]!r} stands twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
