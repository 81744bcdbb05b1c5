r"""A replacement as rules that match where it is wanted and nowhere else among some keys.

The shortest that does: ``attn``, ``\battn\b``, ``^norm``, or with what stands before or behind it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ckpt.errors import RuleError
from ckpt.infer.rules.rewrites import Rewrite, escaped
from ckpt.rules.substitution import RenameRule, parse_rule

_MOST_CONTEXTS = 4  # that one rule lists
_DEEPEST = 3  # dotted parts on one side of a match that are looked at


@dataclass(frozen=True, slots=True)
class Span:
    """Where a replacement is wanted: in which key, from where to where, and what it makes."""

    key: int
    start: int
    end: int
    made: str


@dataclass(frozen=True, slots=True)
class Keys:
    """Old keys, and which rewrite takes which part of them.

    Attributes:
        keys: Before the rules.
        taken: Of each key: (start, end, rank of the rewrite), whose rules are listed by rank.
    """

    keys: Sequence[str]
    taken: Sequence[Sequence[tuple[int, int, int]]]

    def is_shadowed(self, span: Span, rank: int) -> bool:
        """Whether a rule of that rank never comes to match there, since another is first."""
        return any(
            (start < span.start < end) or (start == span.start and other < rank)
            for start, end, other in self.taken[span.key]
        )


def rules_for(
    rewrite: Rewrite, rank: int, spans: Sequence[Span], keys: Keys
) -> list[RenameRule] | None:
    """Rules that, listed at `rank`, match exactly `spans`; None where none are found."""
    search = _Search(rewrite, rank, keys)
    for left, right in _edges(spans, keys.keys):
        rule = search.rule(left, right, {*spans})
        if rule is not None:
            return [rule]
    for depth in range(1, _DEEPEST + 1):
        for before in (False, True):
            found = search.by_context(spans, depth, before=before)
            if found is not None:
                return found
    return None


class _Search:
    def __init__(self, rewrite: Rewrite, rank: int, keys: Keys) -> None:
        self._rewrite, self._rank, self._keys = rewrite, rank, keys
        bare = re.compile(rewrite.old)
        self._near = [place for place, key in enumerate(keys.keys) if bare.search(key)]

    def rule(self, left: str, right: str, wanted: set[Span]) -> RenameRule | None:
        """The rewrite with something around it, if that matches what is wanted."""
        try:
            rule = parse_rule(f"{left}{self._rewrite.old}{right}->{self._rewrite.new}")
        except RuleError:  # a key holds an arrow or a brace: other means are found
            return None
        for span in _matches(rule, self._near, self._keys.keys):
            if span not in wanted and not self._keys.is_shadowed(span, self._rank):
                return None
        return rule if wanted <= {*_matches(rule, self._near, self._keys.keys)} else None

    def by_context(
        self, spans: Sequence[Span], depth: int, *, before: bool
    ) -> list[RenameRule] | None:
        """One rule for all contexts of this depth, or one for each."""
        groups: dict[str, set[Span]] = {}
        for span in spans:
            key = self._keys.keys[span.key]
            context = _before(key, span, depth) if before else _behind(key, span, depth)
            groups.setdefault(context, set()).add(span)
        if len(groups) <= _MOST_CONTEXTS:
            rule = self._around("|".join(groups), {*spans}, before=before)
            if rule is not None:
                return [rule]
        found = [self._around(context, group, before=before) for context, group in groups.items()]
        return None if None in found else [rule for rule in found if rule is not None]

    def _around(self, context: str, wanted: set[Span], *, before: bool) -> RenameRule | None:
        for plain in ("", r"\b", "(?<![^.])"):
            sides = (f"(?<={context})", plain) if before else (plain, f"(?={context})")
            rule = self.rule(*sides, wanted)
            if rule is not None:
                return rule
        return None


def _edges(spans: Sequence[Span], keys: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What may stand around a replacement, the plainest first."""
    first = all(span.start == 0 for span in spans)
    last = all(span.end == len(keys[span.key]) for span in spans)
    lefts = ["", *(["^"] if first else []), r"\b", "(?<![^.])"]
    rights = ["", *(["$"] if last else []), r"\b", r"(?![^.])"]
    yield from sorted(
        ((left, right) for left in lefts for right in rights), key=lambda each: sum(map(len, each))
    )
    for depth in range(1, _DEEPEST + 1):
        before = {_before(keys[span.key], span, depth) for span in spans}
        behind = {_behind(keys[span.key], span, depth) for span in spans}
        if len(before) == 1:
            plain = min(before).removeprefix(r"\b")
            yield from ((f"(?<={text})", right) for right in rights for text in (plain, *before))
        if len(behind) == 1:
            plain = min(behind).removesuffix(r"\b")
            yield from ((left, f"(?={text})") for left in lefts for text in (plain, *behind))
        if len(before) == len(behind) == 1:
            yield f"(?<={min(before)})", f"(?={min(behind)})"


def _before(key: str, span: Span, depth: int) -> str:
    parts = key[: span.start].split(".")[:-1]
    return ("^" if len(parts) < depth else r"\b") + _context(parts[-depth:])


def _behind(key: str, span: Span, depth: int) -> str:
    parts = key[span.end :].split(".")[1:]
    text = r"\." + _context(parts[:depth]).removesuffix(r"\.") if parts else ""
    return text + ("$" if len(parts) < depth else r"\b")


def _context(parts: Sequence[str]) -> str:
    return "".join(re.sub(r"\d+", r"\\d+", escaped(part)) + r"\." for part in parts)


def _matches(rule: RenameRule, near: Sequence[int], keys: Sequence[str]) -> Iterator[Span]:
    for place in near:
        key, position = keys[place], 0
        while (match := rule.search(key, position)) is not None and match[0]:
            try:
                made = rule.expand(match)
            except RuleError:  # an index would be negative
                made = "\x00"
            yield Span(place, match.start(), match.end(), made)
            position = match.end()
