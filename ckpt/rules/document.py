"""Rules as a document: a list of tables, each with one verb, in the order in which they apply.

Rule files and the records of versions have this form. Law: `read_rules(rules_document(r))` gives
the rules `r`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from shlex import quote
from typing import Any

from ckpt.dtypes import DTYPES
from ckpt.errors import RuleError
from ckpt.rules import expressions as ex
from ckpt.rules.at_once import AtOnce, parse_typed
from ckpt.rules.choice import Choice, drop, keep
from ckpt.rules.key_map import KeyMap, key_map
from ckpt.rules.operations import (
    INDEX,
    Operation,
    Tie,
    change_each,
    concat,
    copies,
    fill_beside,
    split_each,
    stack,
    unstack_each,
)
from ckpt.rules.planned import Rule
from ckpt.rules.prefixes import Add, Strip, Unwrap
from ckpt.rules.sizes import MEAN, MODES, padded, resized, sliced
from ckpt.rules.substitution import RenameRule, parse_rule

MOST_RULES = 10_000


def read_rules(document: object, *, name: str) -> list[Rule]:
    """Make the rules from a parsed document.

    Args:
        document: A list of tables.
        name: Its name in messages, e.g. that of its file.

    Raises:
        RuleError: A table has no verb or several, or an unknown or invalid field.
    """
    if not isinstance(document, list) or not document:
        raise RuleError(f"{name}: not a list of rules", hint="[[rules]]  begins every rule")
    if len(document) > MOST_RULES:
        raise RuleError(f"{name}: {len(document):,} rules, the limit is {MOST_RULES:,}")
    return [read_rule(table, name=f"{name}: rule {n}") for n, table in enumerate(document, start=1)]


def read_rule(table: object, *, name: str) -> Rule:
    """Make a rule from its table; `name` is that in messages."""
    return _Table(table, name).rule()


def rules_document(rules: Sequence[Rule]) -> list[dict[str, Any]]:
    """The rules as a document."""
    return [_document(rule) for rule in rules]


def _document(rule: Rule) -> dict[str, Any]:
    match rule:
        case RenameRule():
            return {"rename": rule.text, **_flags(rule)}
        case AtOnce():
            if rule.swap is not None:
                return {"rename": rule.swap, **({"word": True} if rule.rules[0].word else {})}
            return {"at_once": [part.text for part in rule.rules], **_flags(rule.rules[0])}
        case KeyMap():
            return {"map": dict(rule.pairs)}
        case Choice():
            return {"keep" if rule.keeps else "drop": rule.pattern}
        case Strip() | Add():
            return {type(rule).__name__.lower(): rule.prefix}
        case Unwrap():
            return {"unwrap": True}
        case Operation():
            return dict(rule.spec)
    raise TypeError(f"unknown kind of rule: {rule!r}")


def _flags(rule: RenameRule) -> dict[str, bool]:
    return {name: True for name in ("literal", "word") if getattr(rule, name)}


class _Table:
    """One table of the document, and which of its fields were not read yet."""

    def __init__(self, fields: object, where: str) -> None:
        if not isinstance(fields, dict):
            raise RuleError(f"{where}: not a table")
        self._fields: dict[str, Any] = fields
        self._where = where
        self._left = set(fields)

    def rule(self) -> Rule:
        """The rule that it describes.

        Raises:
            RuleError: It has no verb or several, or an unknown or invalid field.
        """
        verbs = [field for field in self._fields if field in _VERBS]
        if len(verbs) != 1:
            found = " and ".join(map(repr, verbs)) or f"only {', '.join(self._fields) or 'nothing'}"
            raise RuleError(
                f"{self._where}: has {found}, expected one verb",
                hint=f"verbs are {', '.join(_VERBS)}",
            )
        try:
            made = _VERBS[verbs[0]](self)
        except RuleError as error:
            raise RuleError(f"{self._where}: {error}", hint=error.hint) from error
        if self._left:
            raise RuleError(f"{self._where}: {verbs[0]} has no {sorted(self._left)[0]!r}")
        return made

    @property
    def spec(self) -> dict[str, Any]:
        """The whole table, the verb first."""
        return dict(sorted(self._fields.items(), key=lambda item: item[0] not in _VERBS))

    def wrong(self, field: str, expected: str) -> RuleError:
        """An error about a field; `rule` puts the name of the table before it."""
        return RuleError(f"{field} is {self._fields.get(field)!r:.80}, expected {expected}")

    def take(self, field: str) -> Any:
        """A field; None if the table lacks it."""
        self._left.discard(field)
        return self._fields.get(field)

    def text(self, field: str) -> str:
        """A string that is not empty."""
        value = self.take(field)
        if not isinstance(value, str) or not value:
            raise self.wrong(field, "a non-empty string")
        return value

    def texts(self, field: str, least: int = 1) -> list[str]:
        """A list of strings that are not empty."""
        value = self.take(field)
        if not isinstance(value, list) or len(value) < least:
            raise self.wrong(field, f"a list of {least} or more strings")
        if not all(isinstance(text, str) and text for text in value):
            raise self.wrong(field, "a list of non-empty strings")
        return value

    def number(self, field: str, default: int) -> int:
        """A whole number."""
        value = self.numeral(field)
        return default if value is None else value

    def numeral(self, field: str) -> int | None:
        """A whole number; None if the table lacks it."""
        value = self.take(field)
        if value is not None and type(value) is not int:
            raise self.wrong(field, "a whole number")
        return value

    def grid(self, field: str) -> list[int]:
        """Height and width."""
        sizes = self.numbers(field)
        if sizes is None or len(sizes) != 2 or min(sizes) < 1:
            raise self.wrong(field, "a height and a width")
        return sizes

    def numbers(self, field: str) -> list[int] | None:
        """A list of whole numbers; None if the table lacks it."""
        value = self.take(field)
        if value is None:
            return None
        if not isinstance(value, list) or not all(type(number) is int for number in value):
            raise self.wrong(field, "a list of whole numbers")
        return value

    def flag(self, field: str) -> bool:
        """True or false."""
        value = self.take(field)
        if value is not None and type(value) is not bool:
            raise self.wrong(field, "true or false")
        return bool(value)

    def finder(self, field: str) -> RenameRule:
        """A rule of which only OLD, the pattern, is used."""
        return _pair(self.text(field), "x")

    def into(self, old: str) -> tuple[RenameRule, ...]:
        """One rule from `old` to every name of `into`."""
        return tuple(_pair(old, new) for new in self.texts("into", 1))


def _pair(old: str, new: str) -> RenameRule:
    return parse_rule(f"{old}->{new}")


def _rename(table: _Table) -> Rule:
    text, literal, word = table.text("rename"), table.flag("literal"), table.flag("word")
    return parse_typed(text, literal=literal, word=word)


def _at_once(table: _Table) -> Rule:
    literal, word = table.flag("literal"), table.flag("word")
    texts = table.texts("at_once")
    return AtOnce(tuple(parse_rule(text, literal=literal, word=word) for text in texts))


def _map(table: _Table) -> Rule:
    return key_map(table.take("map"), name="the map")


def _unwrap(table: _Table) -> Rule:
    if not table.flag("unwrap"):
        raise table.wrong("unwrap", "true")
    return Unwrap()


def _split(table: _Table) -> Rule:
    into = table.into(table.text("split"))
    dim, sizes = table.number("dim", 0), table.numbers("sizes")

    def parts(of: ex.Expression) -> Sequence[ex.Expression]:
        return ex.split(of, dim, len(into), sizes)

    return split_each(table.spec, into, parts)


def _copied(verb: str, table: _Table) -> Rule:
    into = table.into(table.text(verb))
    made = split_each(table.spec, into, copies(len(into), tied=verb == "tie"))
    return Tie(made.spec, made.finds, made.make) if verb == "tie" else made


def _concat(table: _Table) -> Rule:
    new = table.text("into")
    parts = tuple(_pair(old, new) for old in table.texts("concat", 2))
    return concat(table.spec, parts, table.number("dim", 0))


def _stack(table: _Table) -> Rule:
    rule = _pair(table.text("stack"), table.text("into"))
    return stack(table.spec, rule, table.number("dim", 0))


def _unstack(table: _Table) -> Rule:
    old, new = table.text("unstack"), table.text("into")
    if "{i}" not in new:
        raise table.wrong("into", "a name with {i} for the index")
    rule = _pair(old, new.replace("{i}", INDEX))
    return unstack_each(table.spec, rule, table.number("dim", 0))


def _transpose(table: _Table) -> Rule:
    finds, dims = table.finder("transpose"), table.numbers("dims")
    dims = [0, 1] if dims is None else dims
    if len(dims) != 2:
        raise table.wrong("dims", "a list of two numbers")
    one, other = dims
    return change_each(table.spec, finds, lambda of: ex.transposed(of, one, other))


def _numbered(
    verb: str, field: str, change: Callable[[ex.Expression, Sequence[int]], ex.Expression]
) -> Callable[[_Table], Rule]:
    def make(table: _Table) -> Rule:
        finds, numbers = table.finder(verb), table.numbers(field)
        if numbers is None:
            raise table.wrong(field, "a list of whole numbers")
        return change_each(table.spec, finds, lambda of: change(of, numbers))

    return make


def _dimension(
    verb: str, change: Callable[[ex.Expression, int], ex.Expression]
) -> Callable[[_Table], Rule]:
    def make(table: _Table) -> Rule:
        finds, dim = table.finder(verb), table.number("dim", 0)
        return change_each(table.spec, finds, lambda of: change(of, dim))

    return make


def _cast(table: _Table) -> Rule:
    finds, dtype = table.finder("cast"), table.text("dtype")
    return change_each(table.spec, finds, lambda of: ex.cast(of, dtype))


def _fill(table: _Table) -> Rule:
    rule = _pair(table.text("beside"), table.text("fill"))
    value, shape, dtype = table.take("value"), table.numbers("shape"), table.take("dtype")
    if type(value) not in (int, float):
        raise table.wrong("value", "a number")
    if dtype is not None and dtype not in DTYPES:
        raise table.wrong("dtype", "a dtype like float32 or int64")
    return fill_beside(table.spec, rule, value, shape, dtype)


def _slice(table: _Table) -> Rule:
    finds, dim, start = table.finder("slice"), table.number("dim", 0), table.number("start", 0)
    stop = table.numeral("stop")
    return change_each(table.spec, finds, lambda of: sliced(of, dim, start, stop))


def _pad(table: _Table) -> Rule:
    finds, dim, size = table.finder("pad"), table.number("dim", 0), table.numeral("size")
    value = table.take("value")
    if size is None:
        raise table.wrong("size", "a whole number")
    if type(value) not in (int, float) and value != MEAN:
        raise table.wrong("value", f"a number or '{MEAN}'")
    return change_each(table.spec, finds, lambda of: padded(of, dim, size, value))


def _resize(table: _Table) -> Rule:
    finds, old, new = table.finder("resize"), table.grid("from"), table.grid("to")
    mode, prefix, antialias = table.text("mode"), table.number("prefix", 0), table.flag("antialias")
    if mode not in MODES:
        raise table.wrong("mode", " or ".join(MODES))
    if prefix < 0:
        raise table.wrong("prefix", "a number of rows")
    change = partial(resized, old=old, new=new, mode=mode, prefix=prefix, antialias=antialias)
    return change_each(table.spec, finds, change)


_VERBS: Mapping[str, Callable[[_Table], Rule]] = {
    "rename": _rename,
    "at_once": _at_once,
    "map": _map,
    "strip": lambda table: Strip(table.text("strip")),
    "add": lambda table: Add(table.text("add")),
    "unwrap": _unwrap,
    "drop": lambda table: drop(table.text("drop")),
    "keep": lambda table: keep(table.text("keep")),
    "split": _split,
    "concat": _concat,
    "stack": _stack,
    "unstack": _unstack,
    "duplicate": partial(_copied, "duplicate"),
    "tie": partial(_copied, "tie"),
    "transpose": _transpose,
    "permute": _numbered("permute", "dims", ex.permuted),
    "reshape": _numbered("reshape", "shape", ex.reshaped),
    "squeeze": _dimension("squeeze", ex.squeezed),
    "unsqueeze": _dimension("unsqueeze", ex.unsqueezed),
    "cast": _cast,
    "slice": _slice,
    "pad": _pad,
    "resize": _resize,
    "fill": _fill,
}


def typed(rule: Rule) -> str | None:
    """The option of `ckpt rename` for a rule; None if only a rule file can hold it."""
    match rule:
        case RenameRule():
            return f"--rule {quote(rule.text)}"
        case Unwrap() | Strip() | Add() | Choice():
            return f"--{rule.text}"
    return None
