"""Writes TOML for people: literal strings, so that a regular expression looks as it was typed.

Source: TOML v1.0.0, "String", "Array", "Inline Table". (tomli-w has no literal strings, and gives
each number of a shape a line.)
"""

import json
import re
from collections.abc import Mapping
from math import isnan

_LONG = 100  # characters of a line
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def text_of(document: Mapping[str, object]) -> str:
    """The document: a line for each field, and for each item of a list of lists or tables.

    A table that is too long for a line has a line for each item of its lists.
    """
    return "".join(f"{_key(name)} = {_lines(value)}\n" for name, value in document.items())


def _lines(value: object) -> str:
    if isinstance(value, list | tuple) and any(isinstance(e, list | tuple | dict) for e in value):
        return "[\n" + "".join(f"    {_item(each)},\n" for each in value) + "]"
    return _inline(value)


def _item(value: object) -> str:
    """On one line, or with a line for each item of its lists if that is too long."""
    text = _inline(value)
    if not isinstance(value, Mapping) or len(text) <= _LONG:
        return text
    pairs = [
        f"{_key(name)} = [\n" + "".join(f"        {_inline(it)},\n" for it in each) + "    ]"
        if isinstance(each, list | tuple)
        else f"{_key(name)} = {_inline(each)}"
        for name, each in value.items()
    ]
    return f"{{ {', '.join(pairs)} }}"


def _inline(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case float():
            return "nan" if isnan(value) else repr(value)
        case str():
            return _string(value)
        case list() | tuple():
            return f"[{', '.join(map(_inline, value))}]"
        case Mapping():
            pairs = ", ".join(f"{_key(name)} = {_inline(each)}" for name, each in value.items())
            return f"{{ {pairs} }}" if pairs else "{}"
    raise TypeError(f"TOML has no {type(value).__name__}")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _string(name)


def _string(text: str) -> str:
    if "'" in text or _CONTROL.search(text):
        # A basic string has the escapes of JSON, and no DEL.
        return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"'{text}'"
