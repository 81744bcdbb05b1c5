r"""Where a replacement applies: contexts that match at the wanted places and nowhere else.

The shortest that do: ``attn``, ``\battn\b``, ``^norm``, or what is around it, near or far.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ckpt.infer.rules.cutting import Rewrite, escaped

_MOST_CONTEXTS = 4  # that one rule lists
_MOST_RULES = 8  # for one replacement
_DEEPEST = 3  # words on one side of a match that a rule may contain
_NUMBER = re.compile(r"\d+")
_LEFT_WORDS = re.compile(r"[\W_]?[^\W_]+|[\W_]")
_RIGHT_WORDS = re.compile(r"[^\W_]+[\W_]?|[\W_]")

Mask = int  # a bit for each match
Options = dict[str, Mask]  # by regular expression on one side, where it holds


class Place(NamedTuple):
    """A place for a replacement: the number of the key, from where to where."""

    key: int
    start: int
    end: int


Taken = Sequence[Sequence[tuple[int, int, int]]]  # by key: start, end and rank of replacements


def contexts_of(
    rewrite: Rewrite, places: Iterable[Place], keys: Sequence[str], taken: Taken, rank: int,
    *, fine: bool
) -> list[tuple[str, str]] | None:  # fmt: skip
    """What a rule has to match before and behind; several if it takes several rules.

    Args:
        rewrite: The replacement.
        places: Where it belongs.
        keys: All old keys.
        taken: All replacements; rules are listed by rank.
        rank: Of this one.
        fine: Whether words end at underscores, too.

    Returns:
        None if none are found.
    """
    wanted_places = {*places}
    matches = [
        place
        for place in _matches(re.compile(rewrite.old), keys)
        if place in wanted_places or not _is_shadowed(place, taken[place.key], rank)
    ]
    wanted = _mask(place in wanted_places for place in matches)
    if wanted.bit_count() < len(wanted_places):
        return None
    bad = (1 << len(matches)) - 1 - wanted
    # A match of digits must not become shorter for what has to be absent behind it.
    digit = r"\d|" if rewrite.old.endswith((r"\d+", r"\d+)")) else ""
    left, right = (
        _Side(
            [(keys[it.key], it.end if behind else it.start) for it in matches], behind, fine, avoid
        )
        for behind, avoid in ((False, ""), (True, digit))
    )
    clean: dict[Mask, tuple[str, str]] = {}
    for depth in range(_DEEPEST + 1):
        for side in (left, right):
            side.deepen(depth, wanted, bad)
        bare = 20 * rewrite.begins_with_number
        clean = _clean(left.options, right.options, bad, bare)
        if wanted in clean and depth >= rewrite.begins_with_number:
            return [clean[wanted]]
    return _cover(wanted, clean)


def _clean(lefts: Options, rights: Options, bad: Mask, bare: int) -> dict[Mask, tuple[str, str]]:
    """By places, the shortest contexts on both sides that hold there, and at no bad one.

    To match without a word before counts as long as so many letters: a number alone says little.
    """
    found: dict[Mask, tuple[str, str]] = {}
    both = ((left, right) for left in lefts for right in rights)
    for left, right in sorted(
        both, key=lambda it: len(it[0]) + len(it[1]) + bare * ("<=" not in it[0])
    ):
        where = lefts[left] & rights[right]
        if not where & bad:
            found.setdefault(where, (left, right))
    return found


def _matches(pattern: re.Pattern[str], keys: Sequence[str]) -> Iterator[Place]:
    """All matches, also those that overlap."""
    for number, key in enumerate(keys):
        match = pattern.search(key)
        while match:
            yield Place(number, match.start(), match.end())
            match = pattern.search(key, match.start() + 1)


def _is_shadowed(place: Place, taken: Sequence[tuple[int, int, int]], rank: int) -> bool:
    """Whether the rule never matches there, since another comes first."""
    return any(
        (start < place.start < end) or (start == place.start and other < rank)
        for start, end, other in taken
    )


def _cover(wanted: Mask, clean: dict[Mask, tuple[str, str]]) -> list[tuple[str, str]] | None:
    """A few contexts that hold at all wanted places together."""
    found: list[tuple[str, str]] = []
    while wanted and clean and len(found) < _MOST_RULES:
        where = max(clean, key=lambda where: (where & wanted).bit_count())
        found.append(clean.pop(where))
        wanted &= ~where
    return None if wanted else found


class _Side:
    """What is on one side of some matches.

    Args:
        at: Keys and places in them.
        behind: Whether the side is the right one.
        fine: Whether words end at underscores, too.
        avoid: Must be absent, too, where something must be.
    """

    def __init__(self, at: Sequence[tuple[str, int]], behind: bool, fine: bool, avoid: str) -> None:
        self._at, self._behind, self._fine, self._avoid = at, behind, fine, avoid
        self.options: Options = {}
        self._texts = [key[place:] if behind else key[:place] for key, place in at]

    def deepen(self, depth: int, wanted: Mask, bad: Mask) -> None:
        """Add the options that look at so many words; at none, edges."""
        if not depth:
            edges = (
                ("", "$", r"\b", r"(?![^.])") if self._behind else ("", "^", r"\b", r"(?<![^.])")
            )
            self.options = {edge: self._where(re.compile(edge)) for edge in edges}
            return
        near, far = ("(?{}{})", "(?{}.*{})") if self._behind else ("(?<{}{})", "(?<{}{}.*)")
        for any_number in (True, False):
            contexts = [self._near(text, depth, any_number=any_number) for text in self._texts]
            self._add(contexts, near, wanted, bad)
        self._add([self._far(text, depth) for text in self._texts], far, wanted, bad)

    def _where(self, pattern: re.Pattern[str]) -> Mask:
        return _mask(pattern.match(key, place) is not None for key, place in self._at)

    def _near(self, text: str, depth: int, *, any_number: bool) -> str:
        if self._fine:
            units = (_RIGHT_WORDS if self._behind else _LEFT_WORDS).findall(text)
            some = units[:depth] if self._behind else units[-depth:]
            body, whole, edge = escaped("".join(some)), len(units) <= depth, ""
        else:
            # The rest of the word that the match is in, and whole words.
            rest, *parts = (escaped(it) for it in text.split(".")[:: 1 if self._behind else -1])
            some = parts[:depth]
            if self._behind:
                body = rest + "".join(rf"\.{it}" for it in some)
            else:
                body = "".join(rf"{it}\." for it in some[::-1]) + rest
            whole, edge = len(parts) < depth + (not self._behind), r"\b"
        if any_number:
            body = _NUMBER.sub(r"\\d+", body)
        if self._behind:
            return body + ("$" if whole else edge)
        return ("^" if whole else edge) + body

    def _far(self, text: str, depth: int) -> str:
        """The words at the end of the key, if they are all on this side and something else is."""
        parts = text.split(".")
        if len(parts) < depth + 1 + (not self._behind):
            return ""
        some = parts[-depth:] if self._behind else parts[:depth]
        body = _NUMBER.sub(r"\\d+", r"\.".join(map(escaped, some)))
        return rf"\.{body}$" if self._behind else rf"^{body}\."

    def _add(self, contexts: Sequence[str], joint: str, wanted: Mask, bad: Mask) -> None:
        """Add the options that some contexts give."""
        masks: Options = {}
        for place, context in enumerate(contexts):
            masks[context] = masks.get(context, 0) | 1 << place
        good = [context for context, mask in masks.items() if context and mask & wanted]
        clean = [context for context in good if not masks[context] & bad]
        alone = [[context] for context in good]
        for some in (*alone, *(it for it in (good, clean) if 1 < len(it) <= _MOST_CONTEXTS)):
            text = joint.format("=", "|".join(some))
            self.options.setdefault(text, sum(masks[it] for it in some))
        evil = [context for context, mask in masks.items() if context and not mask & wanted]
        if 0 < len(evil) <= _MOST_CONTEXTS:
            text = joint.format("!", self._avoid * (".*" not in joint) + "|".join(evil))
            everywhere = (1 << len(contexts)) - 1
            self.options.setdefault(text, everywhere - sum(masks[it] for it in evil))
        if len(good) == 1 and ".*" not in joint:
            plain = good[0].removeprefix(r"\b").removesuffix(r"\b")
            pattern = re.compile(plain if self._behind else f"{plain}$")
            find = pattern.match if self._behind else pattern.search
            where = _mask(find(text) is not None for text in self._texts)
            self.options.setdefault(joint.format("=", plain), where)


def _mask(holds: Iterable[bool]) -> Mask:
    return sum(1 << place for place, it in enumerate(holds) if it)
