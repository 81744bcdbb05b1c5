r"""A replacement as rules that match at the wanted places and nowhere else among some keys.

The shortest rules that do: ``attn``, ``\battn\b``, ``^norm``, or with the text before or behind.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ckpt.errors import RuleError
from ckpt.infer.rules.rewrites import Rewrite, with_any_numbers
from ckpt.rules.substitution import RenameRule, parse_rule

_MOST_CONTEXTS = 4  # that one rule lists
_DEEPEST = 3  # dotted parts on one side of a match that a rule may contain


@dataclass(frozen=True, slots=True)
class Place:
    """A place for a replacement: the key, from where to where, and the result."""

    key: int
    start: int
    end: int
    made: str


@dataclass(frozen=True, slots=True)
class Keys:
    """Old keys, and the parts of them that the rewrites replace.

    Attributes:
        keys: Before the rules.
        taken: By key: (start, end, rank of the rewrite); rules are listed by rank.
    """

    keys: Sequence[str]
    taken: Sequence[Sequence[tuple[int, int, int]]]

    def is_shadowed(self, place: Place, rank: int) -> bool:
        """Whether a rule of that rank never matches there, since another comes first."""
        return any(
            (start < place.start < end) or (start == place.start and other < rank)
            for start, end, other in self.taken[place.key]
        )


def rules_for(
    rewrite: Rewrite, rank: int, places: Sequence[Place], keys: Keys
) -> list[RenameRule] | None:
    """Rules that match exactly `places` if listed at `rank`; None if none are found."""
    search = _Search(rewrite, rank, keys)
    for left, right in _edges(places, keys.keys):
        rule = search.rule(left, right, {*places})
        if rule is not None:
            return [rule]
    for depth in range(1, _DEEPEST + 1):
        for before in (False, True):
            found = search.by_context(places, depth, before=before)
            if found is not None:
                return found
    return None


class _Search:
    def __init__(self, rewrite: Rewrite, rank: int, keys: Keys) -> None:
        self._rewrite, self._rank, self._keys = rewrite, rank, keys
        bare = re.compile(rewrite.old)
        self._near = [number for number, key in enumerate(keys.keys) if bare.search(key)]

    def rule(self, left: str, right: str, wanted: set[Place]) -> RenameRule | None:
        """The rewrite with this context, if it matches exactly the wanted places."""
        try:
            rule = parse_rule(f"{left}{self._rewrite.old}{right}->{self._rewrite.new}")
        except RuleError:  # a key has an arrow or a brace
            return None
        for place in _matches(rule, self._near, self._keys.keys):
            if place not in wanted and not self._keys.is_shadowed(place, self._rank):
                return None
        return rule if wanted <= {*_matches(rule, self._near, self._keys.keys)} else None

    def by_context(
        self, places: Sequence[Place], depth: int, *, before: bool
    ) -> list[RenameRule] | None:
        """One rule for all contexts of this depth, or one per context."""
        groups: dict[str, set[Place]] = {}
        for place in places:
            key = self._keys.keys[place.key]
            context = _before(key, place, depth) if before else _behind(key, place, depth)
            groups.setdefault(context, set()).add(place)
        if len(groups) <= _MOST_CONTEXTS:
            rule = self._around("|".join(groups), {*places}, before=before)
            if rule is not None:
                return [rule]
        found = [self._around(context, group, before=before) for context, group in groups.items()]
        return None if None in found else [rule for rule in found if rule is not None]

    def _around(self, context: str, wanted: set[Place], *, before: bool) -> RenameRule | None:
        for plain in ("", r"\b", "(?<![^.])"):
            sides = (f"(?<={context})", plain) if before else (plain, f"(?={context})")
            rule = self.rule(*sides, wanted)
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


def _matches(rule: RenameRule, near: Sequence[int], keys: Sequence[str]) -> Iterator[Place]:
    for number in near:
        key, position = keys[number], 0
        while (match := rule.search(key, position)) is not None and match[0]:
            try:
                made = rule.expand(match)
            except RuleError:  # an index would be negative
                made = "\x00"
            yield Place(number, match.start(), match.end(), made)
            position = match.end()
