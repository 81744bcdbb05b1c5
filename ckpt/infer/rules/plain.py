"""The plainest rules that people would type themselves: one prefix, or a few words replaced.

They are guesses: the caller proves them by applying them.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile

from ckpt.rules.planned import Rule
from ckpt.rules.prefixes import Add, Strip
from ckpt.rules.substitution import parse_rule

_MOST_RULES = 3  # more are not plain


def plain_rules(pairs: Sequence[tuple[str, str]]) -> Iterator[list[Rule]]:
    """Lists of rules that may rename every old key of `pairs` to its new key."""
    changed = [(old, new) for old, new in pairs if old != new]
    if len(changed) == len(pairs):
        if prefix := _prefix(pairs):
            yield [Strip(prefix)]
        if prefix := _prefix([(new, old) for old, new in pairs]):
            yield [Add(prefix)]
    differences = dict.fromkeys(_difference(old, new) for old, new in changed)
    texts = [text for text in differences if text is not None]
    if len(texts) == len(differences) <= _MOST_RULES:
        yield [parse_rule(text) for text in texts]


def _prefix(pairs: Sequence[tuple[str, str]]) -> str | None:
    """The one prefix that every first key has before its second."""
    prefixes = {old.removesuffix(new) if old.endswith(new) else "" for old, new in pairs}
    return prefixes.pop() if len(prefixes) == 1 else None


def _difference(old: str, new: str) -> str | None:
    """The rule for the middle part in which two keys differ, widened to whole words."""
    start = common(old, new)
    while start and old[start - 1].isalnum():
        start -= 1
    end = common(old[start:][::-1], new[start:][::-1])
    while end and (old[-end].isalpha() or old[-end - 1 :][:2].isdigit()):  # or inside a number
        end -= 1
    before, after = old[start : len(old) - end], new[start : len(new) - end]
    if not before or not after:
        return None
    # No backslash where a class serves: it differs from shell to shell.
    text = re.sub(r"[\\^\[\]]", r"\\\g<0>", before)
    text = re.sub(r"[.$*+?{}|()]", r"[\g<0>]", text)
    return f"{text}->{after}"


def common(one: str, other: str) -> int:
    """How many leading characters are the same."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
