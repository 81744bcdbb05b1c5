"""The rules of one rename, however they were given, as a list in the order in which they apply."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from ckpt.errors import RuleError
from ckpt.ops.rename.rule_files import RuleFile, read_map, read_rule_file
from ckpt.rules.at_once import parse_typed
from ckpt.rules.choice import drop, keep
from ckpt.rules.document import read_rule
from ckpt.rules.key_map import key_map
from ckpt.rules.planned import Rule
from ckpt.rules.prefixes import Add, Strip, Unwrap


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleOptions:
    """Rules as the options of `ckpt rename`; they apply in the order of these fields.

    `literal` and `word` say how to read `rules`, the texts ``OLD->NEW``; `answers` are those
    that were given to questions; `typed` names the fields `strip`, `drop` and `keep` in another
    order.
    """

    unwrap: bool = False
    strip: Sequence[str] = ()
    drop: Sequence[str] = ()
    keep: Sequence[str] = ()
    maps: Sequence[Path] = ()
    file: Path | None = None
    rules: Sequence[str] = ()
    literal: bool = False
    word: bool = False
    answers: Sequence[Rule] = ()
    add: Sequence[str] = ()
    typed: Sequence[str] = ()


# A table is a rule as a rule file has it: ``{"split": "qkv", "into": ["q", "k", "v"]}``.
Table = Mapping[str, Any]
Rules = str | Mapping[str, str] | Sequence[str | Rule | Table] | Path | RuleFile | RuleOptions


def in_order(rules: Rules) -> RuleFile:
    """The rules as a list, applied first to last.

    A rule file that nothing is added to keeps what it records for an undo.
    """
    match rules:
        case RuleFile():
            return rules
        case RuleOptions():
            return _options_in_order(rules)
        case Path():
            return read_rule_file(rules)
        case str():
            listed: list[Rule] = [_rule(rules, 0)]
        case Mapping():
            listed = [key_map(rules, name="the map")]
        case _:
            listed = [_rule(rule, number) for number, rule in enumerate(rules)]
    return RuleFile("", listed)


def _rule(rule: str | Rule | Table, number: int) -> Rule:
    if isinstance(rule, str):
        _expect_no_file(rule, f"rules=Path({rule!r})  reads a rule file")
        return parse_typed(rule)
    if isinstance(rule, Mapping):
        return read_rule(dict(rule), name=f"rules[{number}]")
    return rule


def _expect_no_file(rule: str, hint: str) -> None:
    """Refuse the name of a rule file where a rule is expected."""
    if rule.lower().endswith((".toml", ".json")) and not re.search("->|=", rule):
        raise RuleError(f"rule '{rule}' has no arrow; it looks like a file", hint=hint)


def _options_in_order(rules: RuleOptions) -> RuleFile:
    for text in rules.rules:
        _expect_no_file(text, f"--rules {quote(text)}  reads a rule file")
    saved = RuleFile("", ()) if rules.file is None else read_rule_file(rules.file)
    chosen: dict[str, list[Rule]] = {
        "strip": list(map(Strip, rules.strip)),
        "drop": list(map(drop, rules.drop)),
        "keep": list(map(keep, rules.keep)),
    }
    before: list[Rule] = [
        *([Unwrap()] if rules.unwrap else []),
        *(rule for name in dict.fromkeys([*rules.typed, *chosen]) for rule in chosen[name]),
        *map(read_map, rules.maps),
    ]
    after: list[Rule] = [
        *(parse_typed(text, literal=rules.literal, word=rules.word) for text in rules.rules),
        *rules.answers,
        *map(Add, rules.add),
    ]
    return RuleFile("", [*before, *saved.rules, *after]) if before or after else saved


@dataclass(frozen=True, slots=True)
class Places:
    """Where in a list of rules one more would go if it were typed.

    Attributes:
        rules: The list.
        option: Of a ``--rule``; None if the options of all of them would change its meaning.
        table: Of one in a rule file.
    """

    rules: Sequence[Rule]
    option: int | None
    table: int


def places_in(rules: Rules) -> Places:
    """The places for another rule: in Python the end."""
    listed = in_order(rules).rules
    end = len(listed)
    if not isinstance(rules, RuleOptions):
        return Places(listed, end, end)
    end -= len(rules.add)
    plain = not (rules.literal or rules.word)
    return Places(listed, end if plain else None, end - len(rules.rules))
