"""Check a parsed JSON document against types written as Python annotations.

Types are ``str``, ``bool``, ``int``, ``float`` (any finite number), ``None``, ``Any``, ``list[T]``,
``dict[K, V]``, ``tuple[A, B]`` (a list of exactly these items), unions, `TypedDict` (an object that
may have further fields) and ``Annotated[T, Form(…), …]``. The document itself is not changed.
"""

import json
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, reduce
from types import NoneType, UnionType
from typing import Annotated, Any, NotRequired, Union, get_args, get_origin, get_type_hints

from ckpt.errors import excerpt
from ckpt.io.digest import is_digest

Check = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Form:
    """A condition on a value whose type is right.

    Attributes:
        expected: For messages: ``a digest``.
        accepts: Whether a value meets it.
    """

    expected: str
    accepts: Callable[[Any], bool]


_TIME = re.compile(
    r"[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})"
)


def _is_time(text: str) -> bool:
    with suppress(ValueError, OverflowError):  # none of the year 0 or 10000 in UTC
        return bool(_TIME.fullmatch(text) and datetime.fromisoformat(text).astimezone(UTC))
    return False


Count = Annotated[int, Form("an integer from 0 to 2^63 - 1", lambda value: 0 <= value < 1 << 63)]
Digest = Annotated[str, Form("a digest", is_digest)]
Time = Annotated[str, Form("a time like 2026-11-24T10:00:00+00:00", _is_time)]
TimeOrEmpty = Annotated[str, Form("a time, or nothing", lambda text: not text or _is_time(text))]


class _WrongError(Exception):
    """The message, and the steps to the field, the last one first."""

    def __init__(self, message: str, *steps: str | int) -> None:
        super().__init__(message)
        self.steps = [*steps]


def expect(document: object, kind: object, *, name: str) -> None:
    """Check a document.

    Args:
        document: As `json.loads` gives it.
        kind: Its type.
        name: Its name in messages; empty for a whole file.

    Raises:
        ValueError: A field has another type: ``versions[3].size: expected an integer, found "x"``.
    """
    try:
        _check_of(kind)(document)
    except _WrongError as wrong:
        path = name + "".join(map(_step, reversed(wrong.steps)))
        raise ValueError(f"{path.removeprefix('.') or 'it'}: {wrong}") from None


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    is_plain = step.replace("-", "_").isidentifier()
    return f".{step}" if is_plain else f"[{json.dumps(excerpt(step))}]"


def _found(expected: str, value: object) -> _WrongError:
    if isinstance(value, list | dict):
        text = "a list" if isinstance(value, list) else "an object"
    else:
        text = excerpt(json.dumps(value))
    return _WrongError(f"expected {expected}, found {text}")


@cache
def _check_of(kind: Any) -> Check:
    origin, args = get_origin(kind), get_args(kind)
    if origin is NotRequired:
        return _check_of(args[0])
    if origin is Annotated:
        return reduce(_formed, args[1:], _check_of(args[0]))
    if origin in (Union, UnionType):
        return _any_of([_check_of(arg) for arg in args])
    if origin is list:
        return _items(_check_of(args[0]))
    if origin is tuple:
        return _row([_check_of(arg) for arg in args])
    if origin is dict:
        return _mapping(_check_of(args[0]), _check_of(args[1]))
    return _SCALARS.get(kind) or _fields(kind)


def _of_type(expected: str, *types: type) -> Check:
    def check(value: object) -> None:
        if type(value) not in types:
            raise _found(expected, value)

    return check


def _number(value: object) -> None:
    match value:
        case bool():
            pass
        case int() | float() if abs(value) <= sys.float_info.max:
            return
    raise _found("a number", value)


_SCALARS: dict[object, Check] = {
    str: _of_type("a string", str),
    bool: _of_type("true or false", bool),
    int: _of_type("an integer", int),
    NoneType: _of_type("null", NoneType),
    float: _number,
    Any: lambda _value: None,
}


def _formed(inner: Check, form: Form) -> Check:
    accepts = form.accepts

    def check(value: object) -> None:
        inner(value)
        if not accepts(value):
            raise _found(form.expected, value)

    return check


def _any_of(checks: list[Check]) -> Check:
    def check(value: object) -> None:
        wrongs = []
        for inner in checks:
            try:
                return inner(value)
            except _WrongError as wrong:
                wrongs.append(wrong)
        raise wrongs[0]

    return check


def _items(inner: Check) -> Check:
    def check(value: object) -> None:
        if type(value) is not list:
            raise _found("a list", value)
        for at, item in enumerate(value):
            try:
                inner(item)
            except _WrongError as wrong:
                wrong.steps.append(at)
                raise

    return check


def _row(checks: list[Check]) -> Check:
    count = len(checks)

    def check(value: object) -> None:
        if type(value) is not list or len(value) != count:
            raise _found(f"a list of {count} items", value)
        for at, item in enumerate(value):
            try:
                checks[at](item)
            except _WrongError as wrong:
                wrong.steps.append(at)
                raise

    return check


def _mapping(key_check: Check, inner: Check) -> Check:
    def check(value: object) -> None:
        if type(value) is not dict:
            raise _found("an object", value)
        for key, item in value.items():
            try:
                key_check(key)
                inner(item)
            except _WrongError as wrong:
                wrong.steps.append(key)
                raise

    return check


def _fields(kind: Any) -> Check:
    """The check of a `TypedDict`."""
    hints = get_type_hints(kind, include_extras=True)
    checks = {name: _check_of(hint) for name, hint in hints.items()}
    required = [name for name in hints if name in kind.__required_keys__]

    def check(value: object) -> None:
        if type(value) is not dict:
            raise _found("an object", value)
        for name in required:
            if name not in value:
                raise _WrongError("missing", name)
        for name, item in value.items():
            if name in checks:
                try:
                    checks[name](item)
                except _WrongError as wrong:
                    wrong.steps.append(name)
                    raise

    return check
