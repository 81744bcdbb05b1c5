"""Conditions on versions: ``accuracy >= prod.accuracy and (keys < 1M or tag = small)``.

    condition  = all ("or" all)*            all    = one ("and" one)*
    one        = "not" one | "(" condition ")" | operand operator operand
    operator   = > >= < <= = != ~           operand = words, or text in quotes

An operand is a field of the version, a metric, a field or metric of another version of the same
model (``prod.accuracy``, ``v3.size``), a number, or text. Nothing is evaluated but this language.
Law: a comparison with a missing value is neither true nor false, whatever is around it, so no
condition holds for want of a value.
"""

import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

from ckpt.errors import NoAliasError, UsageError
from ckpt.refs import is_version
from ckpt.registry.history.newest import newest
from ckpt.registry.index import Index
from ckpt.registry.version import Version, number_of

Value = float | str | list[str]
TEXTS = ("model", "made_by", "message", "created")
NUMBERS = ("version", "keys", "size", "new_bytes")
LABELS = ("tag", "alias")
FIELDS = (*TEXTS, *NUMBERS)
_MOST_NESTED = 50
_MATCH_SECONDS = 0.5
_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>'[^']*'|"[^"]*")|(?P<operator>>=|<=|!=|==|[><=~])|(?P<paren>[()])"""
    r"""|(?P<word>(?:(?!!=)[^\s()<>=~'"])+))"""
)
_NUMBER = re.compile(
    r"([+-]?(?:[0-9][0-9,]*\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?) ?([A-Za-z]*|%)"
)
_UNITS = {"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_BYTES = {"kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "!=": operator.ne,
}
_FLIPPED = {">": "<", ">=": "<=", "<": ">", "<=": ">=", "=": "=", "!=": "!="}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field compared with a number, a text or another field."""

    field: str
    operator: str
    operand: float | str
    is_field: bool  # whether the operand is one

    def comparisons(self) -> Iterator["Comparison"]:
        """Itself."""
        yield self

    def fields(self) -> tuple[str, ...]:
        """The fields that it reads."""
        return (self.field, str(self.operand)) if self.is_field else (self.field,)

    def holds(self, version: Version, index: Index) -> bool | None:
        """Whether it holds; None if a value is missing."""
        found = value(version, self.field, index)
        operand: object = self.operand
        if self.is_field:
            operand = value(version, str(operand), index)
        if found is None or operand is None:
            return None
        if self.operator == "~":
            texts = found if isinstance(found, list) else [str(found)]
            return any(_matches(str(operand), text) for text in texts)
        if isinstance(found, list):
            return (operand in found) == (self.operator == "=")
        if isinstance(found, float) and isinstance(operand, str) and not self.is_field:
            operand = _number(operand, "")  # of a metric whose name ends like a text field
        if type(found) is not type(operand):
            raise UsageError(f"{self.field!r} and {self.operand!r} cannot be compared")
        return _COMPARED[self.operator](found, operand)


@dataclass(frozen=True, slots=True)
class Combined:
    """Conditions joined by ``and`` or ``or``, or the one after ``not``."""

    word: str
    parts: tuple["Condition", ...]

    def comparisons(self) -> Iterator[Comparison]:
        """The comparisons in it."""
        for part in self.parts:
            yield from part.comparisons()

    def holds(self, version: Version, index: Index) -> bool | None:
        """Whether it holds; None if that depends on a missing value."""
        found = [part.holds(version, index) for part in self.parts]
        if self.word == "not":
            return None if found[0] is None else not found[0]
        decisive = self.word == "or"
        if decisive in found:
            return decisive
        return None if None in found else not decisive


Condition = Comparison | Combined


def parse_condition(text: str, *, option: str = "--where") -> Condition:
    """Read a condition.

    Args:
        text: The condition.
        option: Its name in messages.

    Raises:
        UsageError: It is malformed.
    """
    return _Parser(text, option).parsed()


def value(version: Version, field: str, index: Index) -> Value | None:
    """A field of a version, a metric, or one of another version; None if there is no such value.

    Raises:
        UsageError: The name means a metric of this version and a field of another one.
    """
    own, other = _own(version, field, index), _of_another(version, field, index)
    if other is None:
        return own
    if own is not None:
        hint = f"metric.{field}  is the metric"
        raise UsageError(
            f"{field!r} is a metric of {version.ref} and a field of another", hint=hint
        )
    return _own(*other, index)


def _own(version: Version, field: str, index: Index) -> Value | None:
    if field in LABELS:
        model = index.models[version.model]
        return model.tags_of(version) if field == "tag" else model.aliases_of(version)
    if field in FIELDS:
        found = getattr(version, "number" if field == "version" else field)
        return found if isinstance(found, str) else float(found)
    metric = version.metrics.get(field.removeprefix("metric."))
    return None if metric is None or isnan(metric) else float(metric)


def expect_fields(
    condition: Condition, versions: Sequence[Version], index: Index, *, option: str = "--where"
) -> None:
    """Refuse a condition with a field that none of the versions has, and none ever will.

    Raises:
        UsageError: It names the field.
    """
    for comparison in condition.comparisons():
        for side, field in enumerate(comparison.fields()):
            expect_field(field, versions, index, option=option, may_be_number=side == 1)


def expect_field(
    field: str,
    versions: Sequence[Version],
    index: Index,
    *,
    option: str = "--where",
    may_be_number: bool = False,
) -> None:
    """Refuse a field that none of the versions has; see `expect_fields`."""
    metrics = sorted({metric for version in versions for metric in version.metrics})
    known = [*FIELDS, *LABELS, *metrics]
    if not versions or field.removeprefix("metric.") in known:
        return
    models = {version.model: version for version in versions}
    others = (_of_another(version, field, index) for version in models.values())
    if other := next(filter(None, others), None):
        field = other[1]
        if field.removeprefix("metric.") in known:
            return
    elif "." in field:
        aliases = [alias for name in models for alias in index.models[name].aliases]
        hint = f"aliases are {', '.join(aliases)}" if aliases else "there are no aliases yet"
        head = field.partition(".")[0]
        text = f"{option}: {field!r} is not a metric, nor {head!r} an alias"
        raise NoAliasError(text, hint=hint, alias=head)
    from difflib import get_close_matches

    near = get_close_matches(field, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    if may_be_number and not other:
        raise UsageError(f"{option}: {field!r} is not a number, nor a field", hint=hint)
    raise UsageError(f"no version has a field {field!r}", hint=hint)


def values_text(condition: Condition, version: Version, index: Index) -> str:
    """The values that a condition reads: ``accuracy is 0.93, prod.accuracy is missing``."""
    parts = []
    fields = (field for each in condition.comparisons() for field in each.fields())
    for field in dict.fromkeys(fields):
        found = value(version, field, index)
        text = f"{found:.10g}" if isinstance(found, float) else found
        if isinstance(text, list):
            text = ", ".join(text) or "none"
        parts.append(f"{field} is {'missing' if text is None else text}")
    return ", ".join(parts)


def _of_another(version: Version, field: str, index: Index) -> tuple[Version, str] | None:
    """The version and field that ``prod.accuracy`` names: an alias or number, and what follows."""
    model = index.models[version.model]
    for at in (place for place, char in enumerate(field) if char == "."):
        head, rest = field[:at], field[at + 1 :]
        number = number_of(head) if is_version(head) else model.aliases.get(head, 0)
        if number in model.versions and rest:
            return newest(index, model.versions[number]), rest
    return None


def _matches(pattern: str, text: str) -> bool:
    import regex

    try:
        return regex.search(pattern, text, timeout=_MATCH_SECONDS) is not None
    except TimeoutError:
        raise UsageError(f"~ {pattern!r}: takes too long for a text") from None


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int


class _Parser:
    """A parser by recursive descent over the tokens of one condition."""

    def __init__(self, text: str, option: str) -> None:
        self.text, self.option = text, option
        self.tokens, self.at, self.depth = list(self._tokens()), 0, 0

    def parsed(self) -> Condition:
        condition = self._any()
        if self.at < len(self.tokens):
            raise self._wrong(f"unexpected {self.tokens[self.at].text!r}")
        return condition

    def _tokens(self) -> Iterator[_Token]:
        at, text = 0, self.text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise self._wrong(f"a quote is not closed: {text[at:].strip()[:20]!r}")
            kind = str(match.lastgroup)
            yield _Token(kind, match[kind], match.start(kind), match.end())
            at = match.end()

    def _wrong(self, why: str) -> UsageError:
        return UsageError(
            f"{self.option} {self.text!r} is not a condition: {why}",
            hint="e.g. 'accuracy > 0.99 and tag = golden'; in quotes, or the shell reads > itself",
        )

    def _next(self, *texts: str) -> bool:
        """Whether the next token is one of these words or signs; takes it then."""
        token = self.tokens[self.at] if self.at < len(self.tokens) else None
        found = token is not None and token.kind in ("word", "paren") and token.text in texts
        self.at += found
        return found

    def _any(self) -> Condition:
        return self._joined("or", lambda: self._joined("and", self._one))

    def _joined(self, word: str, part: Callable[[], Condition]) -> Condition:
        parts = [part()]
        while self._next(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else Combined(word, tuple(parts))

    def _one(self) -> Condition:
        self.depth += 1
        if self.depth > _MOST_NESTED:
            raise self._wrong(f"nested deeper than {_MOST_NESTED}")
        if self._next("not"):
            condition: Condition = Combined("not", (self._one(),))
        elif self._next("("):
            condition = self._any()
            if not self._next(")"):
                raise self._wrong("a ) is missing")
        else:
            condition = self._comparison()
        self.depth -= 1
        return condition

    def _comparison(self) -> Comparison:
        left, left_quoted = self._operand()
        token = self.tokens[self.at] if self.at < len(self.tokens) else None
        if token is None or token.kind != "operator":
            raise self._wrong(f"no comparison after {left!r}")
        self.at += 1
        sign = "=" if token.text == "==" else token.text
        right, right_quoted = self._operand()
        if left_quoted or _number(left, "") is not None:
            if right_quoted or _number(right, "") is not None or sign == "~":
                raise self._wrong(f"{left!r} is not a field")
            left, right, sign, right_quoted = right, left, _FLIPPED[sign], left_quoted
        return self._typed(left, sign, right, is_quoted=right_quoted)

    def _operand(self) -> tuple[str, bool]:
        """The next operand, and whether it was in quotes."""
        first = self.tokens[self.at] if self.at < len(self.tokens) else None
        if first is not None and first.kind == "quoted":
            self.at += 1
            return first.text[1:-1], True
        begin = self.at
        while self.at < len(self.tokens) and self._is_plain(self.tokens[self.at]):
            self.at += 1
        if begin == self.at:
            where = f"before {self.tokens[begin].text!r}" if first else "at the end"
            raise self._wrong(f"a field or value is missing {where}")
        return self.text[self.tokens[begin].start : self.tokens[self.at - 1].end], False

    @staticmethod
    def _is_plain(token: _Token) -> bool:
        return token.kind == "word" and token.text not in ("and", "or", "not")

    def _typed(self, field: str, sign: str, operand: str, *, is_quoted: bool) -> Comparison:
        """A comparison whose operand has the type of its field."""
        last = field.rpartition(".")[2]
        if field.startswith("metric."):
            last = ""
        if last in LABELS and sign not in ("=", "!=", "~"):
            raise UsageError(f"{self.option} {self.text!r}: use = or != for a {last}, or ~")
        if last in (*TEXTS, *LABELS):
            if sign == "~":
                self._expect_pattern(operand)
            return Comparison(field, sign, operand, is_field=False)
        if sign == "~":
            raise UsageError(f"{self.option} {self.text!r}: ~ is for text, {field} is a number")
        number = _number(operand, last)
        if number is not None:
            return Comparison(field, sign, number, is_field=False)
        if is_quoted:
            raise UsageError(f"{self.option} {self.text!r}: {operand!r} is not a number")
        return Comparison(field, sign, operand, is_field=True)

    def _expect_pattern(self, pattern: str) -> None:
        import regex

        try:
            regex.compile(pattern)
        except (regex.error, RecursionError, MemoryError, OverflowError, ValueError) as error:
            raise UsageError(
                f"{self.option}: {pattern[:80]!r} is not a valid regular expression: {error!s:.80}"
            ) from error


def _number(text: str, field: str) -> float | None:
    """``0.99``, ``99%``, ``1.5M``, ``2.4 MB``, or ``v3`` of the field ``version``; else None."""
    if field == "version":
        text = text.removeprefix("v")
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    number, unit = float(match[1].replace(",", "")), match[2]
    if unit == "%":
        return number / 100
    units = {**_UNITS, **_BYTES, **({"B": 1} if field in ("size", "new_bytes") else {})}
    return number * units[unit] if unit in units else None
