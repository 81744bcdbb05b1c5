"""Learn the meaning of unknown words from sure pairs.

If shapes or known words decide a pair, the other words of both names mean the same: `zorp` is
`conv`, if they occur together often and apart seldom.
"""

from collections import Counter
from collections.abc import Iterable

from ckpt.infer.words import template_of, words_of

_LEAST_TIMES = 2
_LEAST_SURE = 0.5


def learn(pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """How surely a word of the source means a word of the target, from 0 to 1.

    Args:
        pairs: Keys that belong together. Pairs that differ only in numbers count once.
    """
    together, ones, others = Counter[tuple[str, str]](), Counter[str](), Counter[str]()
    for one, other in {(template_of(one), template_of(other)) for one, other in pairs}:
        for lefts, rights in _places(one.split("."), other.split(".")):
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


def _places(one: list[str], other: list[str]) -> Iterable[tuple[set[str], set[str]]]:
    """The words of both last parts, and those of the rest."""
    yield _words(one[-1:]), _words(other[-1:])
    yield _words(one[:-1]), _words(other[:-1])


def _words(parts: Iterable[str]) -> set[str]:
    return {word for part in parts for word in words_of(part)}
