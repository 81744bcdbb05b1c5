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
