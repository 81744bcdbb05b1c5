"""Rules that apply at once: a swap or a shift does not work as one rule after the other.

A key is read once from left to right. The rule whose match begins first applies; among several the
one that is listed first. No rule sees what another has inserted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ckpt.errors import RuleError
from ckpt.rules.patterns import Match
from ckpt.rules.planned import Renaming
from ckpt.rules.substitution import RenameRule, expect_length, parse_rule

SWAP = "<->"


@dataclass(frozen=True, slots=True)
class AtOnce(Renaming):
    """A group of rules that apply at once.

    Attributes:
        rules: The rules; all of them see the key as it was before the group.
        swap: ``a<->b``, if the group was typed so.
    """

    rules: tuple[RenameRule, ...]
    swap: str | None = None

    @property
    def text(self) -> str:
        if self.swap is not None:
            return self.swap
        more = len(self.rules) - 1
        return f"{self.rules[0].text} and {more} more at once" if more else self.rules[0].text

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        unused = (rule.old for rule in self.rules if not any(map(rule.search, keys)))
        return next(unused, None)

    def apply(self, key: str) -> str:
        position, made, parts = 0, 0, list[str]()
        # A match stays the first one of its rule until it is passed.
        found = [(rule, rule.search(key)) for rule in self.rules]
        while True:
            found = [
                (rule, match if match.start() >= position else rule.search(key, position))
                for rule, match in found
                if match
            ]
            first = min(
                ((rule, match) for rule, match in found if match and match[0]),
                key=_start,
                default=None,
            )
            if first is None:
                return "".join([*parts, key[position:]])
            rule, match = first
            parts += [key[position : match.start()], rule.expand(match)]
            position = match.end()
            made += len(parts[-1])
            expect_length(made, self.text)


def _start(found: tuple[RenameRule, Match]) -> int:
    return found[1].start()


def parse_swap(text: str, *, word: bool = False) -> AtOnce:
    """Read ``a<->b``, both sides literal.

    Raises:
        RuleError: A side is empty, or there are more than two.
    """
    sides = text.split(SWAP)
    if len(sides) != 2 or not all(sides) or sides[0] == sides[1]:
        raise RuleError(f"rule '{text}' does not swap two names", hint="write A<->B in quotes")
    one, other = sides
    rules = [
        parse_rule(f"{old}->{new}", literal=True, word=word)
        for old, new in ((one, other), (other, one))
    ]
    return AtOnce(tuple(rules), swap=text)


def parse_typed(text: str, *, literal: bool = False, word: bool = False) -> RenameRule | AtOnce:
    """Read one rule as it is typed: ``OLD->NEW``, ``OLD=NEW``, or ``A<->B`` for a swap.

    Raises:
        RuleError: It cannot be read.
    """
    if SWAP in text:
        return parse_swap(text, word=word)
    return parse_rule(text, literal=literal, word=word)
