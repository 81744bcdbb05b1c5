"""The plan: what a list of rules does to one list of keys, before anything is written.

Rules apply in the order given, each to the result of the one before.
Laws: no two keys end up with one name; every rule changed some key; the order is kept.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

from ckpt.errors import KeyCollisionError, PlanError, RuleError, UnmatchedRuleError
from ckpt.rules.mapping import KeyMap
from ckpt.rules.rule import RenameRule, parse_rule

Rule = RenameRule | KeyMap


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What becomes of one key. `rules` are the numbers, from 1, of the rules that changed it."""

    old: str
    new: str
    rules: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Every key with its new name, in the order of the state_dict."""

    rules: tuple[str, ...]
    changes: tuple[KeyChange, ...]

    @property
    def renamed(self) -> tuple[KeyChange, ...]:
        """The keys that get another name."""
        return tuple(change for change in self.changes if change.old != change.new)

    @property
    def new_keys(self) -> dict[str, str]:
        """Old key to new key, for all keys."""
        return {change.old: change.new for change in self.changes}


def plan_renames(keys: Iterable[str], rules: Sequence[Rule]) -> Plan:
    """Work out the new name of every key, in the order of `keys`.

    Args:
        keys: Keys of the state_dict, unique, e.g. ``_orig_mod.fc1.weight``.
        rules: Applied first to last.

    Raises:
        KeyCollisionError: Two keys end up with one name; the message shows both.
        UnmatchedRuleError: A rule, or a line of a map, changed no key.
        PlanError: A key would become empty or get an empty part.
        RuleError: A rule could not be run on a key.
    """
    changes = [KeyChange(key, key) for key in keys]
    for number, rule in enumerate(rules, start=1):
        after = [_changed(change, number, rule) for change in changes]
        _expect_match(number, rule, changes, after)
        changes = after
    for change in changes:
        _expect_key(change, rules)
    _expect_distinct(changes, rules)
    return Plan(tuple(rule.text for rule in rules), tuple(changes))


def _changed(change: KeyChange, number: int, rule: Rule) -> KeyChange:
    new = rule.apply(change.new)
    return change if new == change.new else KeyChange(change.old, new, (*change.rules, number))


def _expect_match(
    number: int, rule: Rule, before: Sequence[KeyChange], after: Sequence[KeyChange]
) -> None:
    keys = [change.new for change in before]
    if isinstance(rule, KeyMap):
        used = {rule.listed(key) for key in keys}
        unused = [old for old in rule.pairs if old not in used]
        if unused:
            raise UnmatchedRuleError(
                f"{rule.text}: {unused[0]!r} is none of the {len(keys):,} keys, and no module",
                hint=_nearest(unused[0], keys),
            )
    elif all(old is new for old, new in zip(before, after, strict=True)):
        raise UnmatchedRuleError(
            f"rule {number} '{rule.text}' changes none of the {len(keys):,} keys",
            hint=_nearest(rule.old, keys),
        )


def _nearest(wanted: str, keys: Sequence[str]) -> str | None:
    from difflib import get_close_matches

    depth = wanted.count(".") + 1
    found: dict[str, None] = {}
    # Compare with as many leading parts of each key as were asked for, too.
    heads = {".".join(key.split(".")[:depth]): key for key in reversed(keys)}
    for match in get_close_matches(wanted, [*heads, *keys], n=3, cutoff=0.5):
        found[heads.get(match, match)] = None
    return f"nearest keys: {', '.join(found)}" if found else None


def _expect_key(change: KeyChange, rules: Sequence[Rule]) -> None:
    parts = change.new.split(".")
    if change.rules and "" in parts and "" not in change.old.split("."):
        raise PlanError(
            f"{change.old!r} would become {change.new!r} "
            f"({_blame(change, rules)}), which has an empty part",
            hint="match the dot as well, or name what stays",
        )


def _expect_distinct(changes: Sequence[KeyChange], rules: Sequence[Rule]) -> None:
    owner: dict[str, KeyChange] = {}
    for change in changes:
        other = owner.setdefault(change.new, change)
        if other is not change:
            raise KeyCollisionError(
                f"two keys would become {change.new!r}: "
                f"{other.old} ({_blame(other, rules)}) and {change.old} ({_blame(change, rules)})",
                hint=_way_out(changes, rules),
            )


def _blame(change: KeyChange, rules: Sequence[Rule]) -> str:
    if not change.rules:
        return "unchanged"
    if len(change.rules) == 1 and isinstance(rules[change.rules[0] - 1], KeyMap):
        return rules[change.rules[0] - 1].text
    return ("rule " if len(change.rules) == 1 else "rules ") + ", ".join(map(str, change.rules))


def _way_out(changes: Sequence[KeyChange], rules: Sequence[Rule]) -> str:
    """A rule that keeps the number, where that is what was lost and it can be shown to help."""
    keys = [change.old for change in changes]
    for number, rule in enumerate(rules):
        if not isinstance(rule, RenameRule) or r"\d" not in rule.old or "(" in rule.old:
            continue
        digits = r"\d+" if r"\d+" in rule.old else r"\d"
        text = f"{rule.old.replace(digits, f'({digits})', 1)}->{rule.new}{{1}}"
        try:
            better = [*rules[:number], parse_rule(text), *rules[number + 1 :]]
            landed = {reduce(lambda name, each: each.apply(name), better, key) for key in keys}
        except RuleError:
            continue
        if len(landed) == len(keys):
            return f"keep the number:  --rule '{text}'"
    return "rules apply one after the other; --map FILE applies all at once, so that swaps work"
