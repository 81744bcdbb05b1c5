r"""A replacement as rules that match at the wanted places and nowhere else among some keys.

The shortest rules that do: ``attn``, ``\battn\b``, ``^norm``, or with the text before or behind.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ckpt.errors import RuleError
from ckpt.infer.rules.rewrites import Rewrite, with_any_numbers
from ckpt.rules.substitution import RenameRule, parse_rule

_MOST_CONTEXTS = 4  # that one rule lists
_DEEPEST = 3  # dotted parts on one side of a match that a rule may contain


class Place(NamedTuple):
    """A place for a replacement: the number of the key, from where to where."""

    key: int
    start: int
    end: int


class Search:
    """The search for rules that do one rewrite at some places.

    Args:
        rewrite: The replacement.
        places: Where it belongs.
        keys: All old keys.
        taken: By key: (start, end, rank of the rewrite) of all replacements; rules are listed
            by rank.
        rank: Of this rewrite.
    """

    def __init__(
        self,
        rewrite: Rewrite,
        places: Sequence[Place],
        keys: Sequence[str],
        taken: Sequence[Sequence[tuple[int, int, int]]],
        rank: int,
    ) -> None:
        self._rewrite, self._places, self._keys = rewrite, places, keys
        self._taken, self._rank = taken, rank
        bare = re.compile(rewrite.old)
        self._near = [number for number, key in enumerate(keys) if bare.search(key)]

    def rules(self) -> list[RenameRule] | None:
        """Rules that match exactly at the places; None if none are found."""
        for left, right in _edges(self._places, self._keys):
            rule = self._rule(left, right, {*self._places})
            if rule is not None:
                return [rule]
        for depth in range(1, _DEEPEST + 1):
            for before in (False, True):
                found = self._by_context(depth, before=before)
                if found is not None:
                    return found
        return None

    def _rule(self, left: str, right: str, wanted: set[Place]) -> RenameRule | None:
        """The rewrite with this context, if it matches exactly at the wanted places."""
        try:
            rule = parse_rule(f"{left}{self._rewrite.old}{right}->{self._rewrite.new}")
        except RuleError:  # a key has an arrow or a brace
            return None
        missing = {*wanted}
        for place in self._matches(rule):
            missing.discard(place)
            if place not in wanted and not self._is_shadowed(place):
                return None
        return None if missing else rule

    def _matches(self, rule: RenameRule) -> Iterator[Place]:
        for number in self._near:
            position = 0
            while (match := rule.search(self._keys[number], position)) and match[0]:
                yield Place(number, match.start(), match.end())
                position = match.end()

    def _is_shadowed(self, place: Place) -> bool:
        """Whether the rule never matches there, since another comes first."""
        return any(
            (start < place.start < end) or (start == place.start and rank < self._rank)
            for start, end, rank in self._taken[place.key]
        )

    def _by_context(self, depth: int, *, before: bool) -> list[RenameRule] | None:
        """One rule for all contexts of this depth, or one per context."""
        groups: dict[str, set[Place]] = {}
        for place in self._places:
            key = self._keys[place.key]
            context = _before(key, place, depth) if before else _behind(key, place, depth)
            groups.setdefault(context, set()).add(place)
        if len(groups) <= _MOST_CONTEXTS:
            rule = self._around("|".join(groups), {*self._places}, before=before)
            if rule is not None:
                return [rule]
        found = [self._around(context, group, before=before) for context, group in groups.items()]
        return None if None in found else [rule for rule in found if rule is not None]

    def _around(self, context: str, wanted: set[Place], *, before: bool) -> RenameRule | None:
        for plain in ("", r"\b", "(?<![^.])"):
            sides = (f"(?<={context})", plain) if before else (plain, f"(?={context})")
            rule = self._rule(*sides, wanted)
            if rule is not None:
                return rule
        return None


def _edges(places: Sequence[Place], keys: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Contexts for a replacement, the plainest first."""
    first = all(place.start == 0 for place in places)
    last = all(place.end == len(keys[place.key]) for place in places)
    lefts = ["", *(["^"] if first else []), r"\b", "(?<![^.])"]
    rights = ["", *(["$"] if last else []), r"\b", r"(?![^.])"]
    yield from sorted(
        ((left, right) for left in lefts for right in rights),
        key=lambda edges: sum(map(len, edges)),
    )
    for depth in range(1, _DEEPEST + 1):
        before = {_before(keys[place.key], place, depth) for place in places}
        behind = {_behind(keys[place.key], place, depth) for place in places}
        if len(before) == 1:
            plain = min(before).removeprefix(r"\b")
            yield from ((f"(?<={text})", right) for right in rights for text in (plain, *before))
        if len(behind) == 1:
            plain = min(behind).removesuffix(r"\b")
            yield from ((left, f"(?={text})") for left in lefts for text in (plain, *behind))
        if len(before) == len(behind) == 1:
            yield f"(?<={min(before)})", f"(?={min(behind)})"


def _before(key: str, place: Place, depth: int) -> str:
    parts = key[: place.start].split(".")[:-1]
    start = "^" if len(parts) < depth else r"\b"
    return start + "".join(with_any_numbers([part]) + r"\." for part in parts[-depth:])


def _behind(key: str, place: Place, depth: int) -> str:
    parts = key[place.end :].split(".")[1:]
    text = r"\." + with_any_numbers(parts[:depth]) if parts else ""
    return text + ("$" if len(parts) < depth else r"\b")
