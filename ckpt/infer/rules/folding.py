"""Pairs of an old and a new key, folded over their numbers.

All pairs such as ``layers.3.q.weight`` and ``blocks.2.q.weight`` are one: its texts, a `MARK` for
every number, and how the new numbers follow from the old ones. A last word that stays, such as
``weight``, belongs to no text. Law: a folded pair makes every new key of its old one.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, permutations

from ckpt.infer.rules.relations import COPY, Relation, relation_of_two, relations

MARK = "\0"  # in place of a number
Pair = tuple[str, str]
Pairs = Sequence[Pair]
Columns = list[tuple[str, ...]]  # by place in the key, the numbers of all keys
Made = tuple[Relation, tuple[int, ...]]  # and the places of the old numbers that it takes

_NUMBER = re.compile(r"\d+")
_MOST_MADE = 2  # relations tried for a number that does not vary


@dataclass(slots=True)
class Folded:
    """Pairs that differ in numbers only.

    Attributes:
        old: The old key with marks, up to a last word that stays.
        new: The new key likewise.
        pairs: The pairs themselves.
        olds: The old numbers, by place.
        news: The new numbers, by place.
        makers: By place of a new number, what makes it; a number that does not vary may have
            none.
        varying: Whether the old numbers differ, by place.
    """

    old: str
    new: str
    pairs: Pairs
    olds: Columns
    news: Columns
    makers: list[list[Made]] = field(default_factory=list)
    varying: list[bool] = field(init=False)

    def __post_init__(self) -> None:
        self.varying = [varies(numbers) for numbers in self.olds]


def marked(key: str) -> str:
    """The key with a mark for every number."""
    return _NUMBER.sub(MARK, key)


def varies(numbers: Sequence[str]) -> bool:
    """Whether the numbers differ."""
    return numbers.count(numbers[0]) < len(numbers)


def folded(pairs: Pairs, *, whole: bool = False) -> list[Folded]:
    """The pairs, folded as far as relations hold.

    Args:
        pairs: Old and new key.
        whole: Whether the last word belongs to the texts, too.
    """
    groups: dict[Pair, list[Pair]] = {}
    for pair in pairs:
        old, new = map(marked, pair if whole else _stems(pair))
        groups.setdefault((old, new), []).append(pair)
    found = [
        part
        for (old, new), group in groups.items()
        for part in _solved(Folded(old, new, group, *_columns(group)))
    ]
    _borrow(found)
    return found


def _stems(pair: Pair) -> Pair:
    """Both keys without their last word, if it is the same and not a number."""
    (old, dot, leaf), (new, other, same) = (key.rpartition(".") for key in pair)
    return (old, new) if dot and other and leaf == same and MARK not in marked(leaf) else pair


def _columns(pairs: Pairs) -> tuple[Columns, Columns]:
    rows = [(_NUMBER.findall(old), _NUMBER.findall(new)) for old, new in pairs]
    olds, news = (
        [tuple(numbers) for numbers in zip(*side, strict=True)] for side in zip(*rows, strict=True)
    )
    return olds, news


def _solved(group: Folded) -> list[Folded]:
    """The group, or parts of it in each of which relations make all numbers that vary."""
    group.makers = [_makers(numbers, group.olds) for numbers in group.news]
    unsolved = [
        numbers
        for numbers, makers in zip(group.news, group.makers, strict=True)
        if varies(numbers) and not makers
    ]
    if not unsolved:
        return [group]
    deciding = [
        numbers
        for numbers in group.olds
        if varies(numbers) and len({*zip(numbers, unsolved[0], strict=True)}) == len({*numbers})
    ]
    by = min(deciding, key=lambda numbers: len({*numbers})) if deciding else range(len(group.pairs))
    parts: dict[object, list[tuple[str, str]]] = {}
    for value, pair in zip(by, group.pairs, strict=True):
        parts.setdefault(value, []).append(pair)
    return [
        solved
        for part in parts.values()
        for solved in _solved(Folded(group.old, group.new, part, *_columns(part)))
    ]


def _makers(news: Sequence[str], olds: Columns) -> list[Made]:
    if not varies(news):
        return []
    varying = [place for place, numbers in enumerate(olds) if varies(numbers)]
    made: list[Made] = [
        (relation, (place,)) for place in varying for relation in relations(news, olds[place])
    ]
    if not made:
        for x, y in permutations(varying, 2):
            relation = relation_of_two(news, olds[x], olds[y])
            if relation is not None:
                made.append((relation, (x, y)))
    return made


def _borrow(found: Sequence[Folded]) -> None:
    """Order the relations by use, and try on numbers that do not vary those found after like texts.

    So ``layers.7.x`` alone is folded as ``layers.3.y`` and ``layers.4.y`` are.
    """
    used: dict[tuple[str, str], Counter[Relation]] = {}
    for group in found:
        for gaps, (relation, _) in _with_gaps(group):
            used.setdefault(gaps, Counter())[relation] += 1
    for group in found:
        olds, news = (_gaps(side) for side in (group.old, group.new))
        for numbers, new, makers in zip(group.news, news, group.makers, strict=True):
            ranks = [used.get((old, new), Counter()) for old in olds]
            if varies(numbers):
                makers.sort(key=lambda made: -ranks[made[1][0]][made[0]])
                continue
            common = [[it for it, _ in rank.most_common() if not it.two] for rank in ranks]
            for place, values in enumerate(group.olds):
                if not varies(values):
                    known = common[place] if any(common) else [COPY]
                    fit = (it for it in known if it.of(values[0]) == numbers[0])
                    makers += [(relation, (place,)) for relation in islice(fit, _MOST_MADE)]


def _with_gaps(group: Folded) -> Iterator[tuple[tuple[str, str], Made]]:
    """All that makes a number, with the texts before both numbers."""
    olds = _gaps(group.old)
    for new, makers in zip(_gaps(group.new), group.makers, strict=True):
        for made in makers:
            yield (olds[made[1][0]], new), made


def _gaps(text: str) -> list[str]:
    """By number, the text between it and the one before."""
    return text.split(MARK)[:-1]
