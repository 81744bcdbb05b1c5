"""Suggest the rules that turn some keys into others, where a plain substitution does it.

Only a first guess for people to read: who uses it applies the rules and looks whether the
result is what was wanted.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile

from ckpt.errors import CkptError
from ckpt.rules.plan import plan_renames
from ckpt.rules.substitution import RenameRule, parse_rule

MOST_RULES = 3  # more than this is no hint that anybody would type


def suggest_rules(keys: Iterable[str], pairs: Iterable[tuple[str, str]]) -> list[RenameRule]:
    """Rules that rename exactly `pairs` (old, new) among `keys`, or none.

    Law: what is returned, applied to `keys`, gives each new key of `pairs` and keeps the rest.
    """
    wanted = dict(pairs)
    if not wanted:
        return []
    keys = list(keys)
    for guess in (_prefix_cut(wanted), _prefix_added(wanted), _differences(wanted)):
        if 0 < len(guess) <= MOST_RULES and (rules := _proved(guess, keys, wanted)):
            return rules
    return []


def _proved(
    guess: Sequence[str], keys: Sequence[str], wanted: Mapping[str, str]
) -> list[RenameRule]:
    rules = [parse_rule(text) for text in guess]
    try:
        plan = plan_renames(keys, rules)
    except CkptError:  # a guess that does not work is no suggestion
        return []
    return rules if {change.old: change.new for change in plan.renamed} == wanted else []


def _differences(wanted: Mapping[str, str]) -> list[str]:
    found = dict.fromkeys(_difference(old, new) for old, new in wanted.items())
    return [] if None in found else [text for text in found if text]


def _prefix_cut(wanted: Mapping[str, str]) -> list[str]:
    """One prefix that all old keys have and no new one: `module.`, `_orig_mod.`."""
    prefixes = {old.removesuffix(new) for old, new in wanted.items() if old.endswith(new)}
    cut = len(prefixes) == 1 and all(old.endswith(new) for old, new in wanted.items())
    return [f"^{_escaped(prefixes.pop())}(.+)->{{1}}"] if cut else []


def _prefix_added(wanted: Mapping[str, str]) -> list[str]:
    prefixes = {new.removesuffix(old) for old, new in wanted.items() if new.endswith(old)}
    added = len(prefixes) == 1 and all(new.endswith(old) for old, new in wanted.items())
    return [f"^(.+)->{prefixes.pop()}{{1}}"] if added else []


def _difference(old: str, new: str) -> str | None:
    """The rule for the middle part in which two keys differ, widened to whole words."""
    start = _common(old, new)
    while start and old[start - 1].isalnum():
        start -= 1
    end = _common(old[start:][::-1], new[start:][::-1])
    while end and old[len(old) - end].isalpha():
        end -= 1
    before, after = old[start : len(old) - end], new[start : len(new) - end]
    if not before or not after:
        return None
    return f"{_escaped(before)}->{after}"


def _common(one: str, other: str) -> int:
    """How many leading characters are the same."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _escaped(literal: str) -> str:
    return literal.replace(".", "[.]")  # unlike a backslash, the same in every shell
