"""The words of a dotted name, and how alike two names are.

Names split at dots, underscores, digits and changes of case. Words are alike if they are equal,
mean the same (`vocabulary`), abbreviate each other, or were learned to mean the same.
Law: a likeness is from 0 to 1, is 1 for a name and itself, and is the same both ways.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache, lru_cache

from ckpt.infer.vocabulary import (
    ALONE,
    COMPOUNDS,
    FAINT,
    GROUPS,
    OPPOSITES,
    ORDINALS,
    PHRASES,
)

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+|[^\W\d_]+")
_GROUPS_OF: dict[str, frozenset[int]] = {
    word: frozenset(number for number, group in enumerate(GROUPS) if word in group)
    for group in GROUPS
    for word in group
}
_LONGEST = max(map(len, PHRASES))
_FAINT_WEIGHT = 0.3
_LEAF_WEIGHT = 1.5
_LEAST_TIMES, _LEAST_SURE = 2, 0.5  # for a word to be learned
_MOST_WORDS = 24  # of one name; deeper ones decide nothing


Words = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Name:
    """A dotted name, read.

    Attributes:
        text: Unchanged.
        words: In lower case, common phrases joined, with their weights.
        numbers: All numbers, in order.
        ordinal: Its place in a sequence: its last number that is not part of a phrase, or the
            places that its words name; empty for none.
        template: The text with ``#`` for every number.
    """

    text: str
    words: Words
    numbers: tuple[int, ...]
    ordinal: tuple[int, ...]
    template: str


def read_name(text: str, *, leaf: bool) -> Name:
    """Read a name; the last part of a `leaf` weighs more, since it names the kind of tensor."""
    parts = text.split(".")
    words: list[tuple[str, float]] = []
    places: list[int] = []
    for place, part in enumerate(parts):
        weight = _LEAF_WEIGHT if leaf and place == len(parts) - 1 else 1.0
        for word in words_of(part):
            if word.isdecimal():
                places.append(int(word[:18]))
            else:
                words.append((word, weight * (_FAINT_WEIGHT if word in FAINT else 1.0)))
    named = [ORDINALS[word] for word, _ in words if word in ORDINALS]
    ordinal = (places[-1],) if places else tuple(named)
    numbers = tuple(int(found[:18]) for found in re.findall(r"\d+", text))
    return Name(text, tuple(words[-_MOST_WORDS:]), numbers, ordinal, template_of(text))


def template_of(text: str) -> str:
    """The text with ``#`` for every number."""
    return re.sub(r"\d+", "#", text)


@lru_cache(maxsize=10_000)  # dotted parts repeat in every block
def words_of(part: str) -> tuple[str, ...]:
    """Words and numbers of one dotted part, with common phrases joined.

    E.g. ``self_attn_layer_norm`` gives ``self attention norm``.
    """
    plain: list[str] = []
    for found in _WORD.findall(part):
        word = found.lower()
        plain += COMPOUNDS.get(word, (word,))
    joined: list[str] = []
    at = 0
    while at < len(plain):
        for length in range(min(_LONGEST, len(plain) - at), 0, -1):
            phrase = tuple(plain[at : at + length])
            if phrase in PHRASES or length == 1:
                joined += PHRASES.get(phrase, phrase)
                at += length
                break
    return ALONE.get(joined[0], (*joined,)) if len(joined) == 1 else (*joined,)


class Likeness:
    """How alike names are, with the words learned so far.

    Args:
        learned: How surely a word of the source means a word of the target, from 0 to 1.
    """

    def __init__(self, learned: Mapping[tuple[str, str], float]) -> None:
        self._learned = learned
        self.name = cache(read_name)
        self._cached_of_words = cache(self._of_words)
        self._cached_shared = cache(self._shared)

    def of_names(self, one: Name, other: Name) -> float:
        """The likeness of a name of the source and one of the target, without their numbers."""
        return self._cached_shared(one.words, other.words)

    def agree(self, one: str, other: str) -> float:
        """The likeness of the modules of two keys, or of the keys if one has no module.

        The last part, such as ``weight``, is common to tensors that have nothing else in common.
        """
        a, b = self.name(one, leaf=True), self.name(other, leaf=True)
        ones, others = _of_module(a), _of_module(b)
        if not ones or not others:
            ones, others = a.words, b.words
        return self._cached_shared(ones, others)

    def _shared(self, one: Words, other: Words) -> float:
        """The weight of the words that have a partner, out of all."""
        total = sum(w for _, w in one) + sum(w for _, w in other)
        if not total:
            return 0.0
        found = sorted(
            (
                (likeness, -abs(i - j), i, j)
                for i, (a, _) in enumerate(one)
                for j, (b, _) in enumerate(other)
                if (likeness := self._cached_of_words(a, b))
            ),
            reverse=True,
        )
        left, right, shared = set[int](), set[int](), 0.0
        for likeness, _, i, j in found:
            if i not in left and j not in right:
                left.add(i)
                right.add(j)
                shared += likeness * (one[i][1] + other[j][1])
        return shared / total

    def are_opposed(self, one: Name, other: Name) -> bool:
        """Whether the names have opposite words, such as `encoder` and `decoder`."""
        for opposites in OPPOSITES:
            mine, theirs = (
                {first for first in opposites for word, _ in name.words if _is_word(word, first)}
                for name in (one, other)
            )
            if mine and theirs and not mine & theirs:
                return True
        return False

    def _of_words(self, one: str, other: str) -> float:
        return max(word_likeness(one, other), self._learned.get((one, other), 0.0))


def _of_module(name: Name) -> Words:
    """The words of a key without its last part."""
    module, _, _ = name.text.rpartition(".")
    return read_name(module, leaf=False).words if module else ()


def _is_word(word: str, first: str) -> bool:
    """Whether a word is in the group that begins with `first`."""
    return any(group[0] == first and word in group for group in GROUPS)


def word_likeness(one: str, other: str) -> float:
    """The likeness of two words, without learned ones."""
    if one == other:
        return 1.0
    groups, others = _GROUPS_OF.get(one), _GROUPS_OF.get(other)
    if groups and others:
        return 0.9 if groups & others else 0.0
    short, long = sorted((one, other), key=lambda word: (len(word), word))
    if len(short) >= 3 and long.startswith(short):
        return 0.7
    if len(short) >= 2 and short[0] == long[0] and _shortens(short, long):
        return 0.5
    if len(short) >= 4 and (ratio := SequenceMatcher(None, short, long).ratio()) > 0.75:
        return ratio * 0.7
    return 0.0


def _shortens(short: str, long: str) -> bool:
    """Whether `long` has the letters of `short` in this order."""
    letters = iter(long)
    return all(letter in letters for letter in short)


def learn(pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """How surely a word of the source means a word of the target, from 0 to 1.

    If shapes or known words decide a pair, the other words of both names mean the same: `zorp` is
    `conv`, if they occur together often and apart seldom.

    Args:
        pairs: Keys that belong together. Pairs that differ only in numbers count once.
    """
    together, ones, others = Counter[tuple[str, str]](), Counter[str](), Counter[str]()
    for one, other in {(template_of(one), template_of(other)) for one, other in pairs}:
        for part in (slice(-1, None), slice(None, -1)):  # the last part, and the rest
            lefts, rights = (
                {word for text in key.split(".")[part] for word in words_of(text)}
                for key in (one, other)
            )
            same = lefts & rights
            ones.update(lefts)
            others.update(rights)
            together.update((a, b) for a in lefts - same for b in rights - same)
            together.update((word, word) for word in same)
    return {
        (a, b): sure
        for (a, b), times in together.items()
        if a != b
        and times >= _LEAST_TIMES
        and (sure := times * times / (ones[a] * others[b])) >= _LEAST_SURE
    }
