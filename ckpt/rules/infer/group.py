"""Which of several alike nodes belongs to which: names, numbers and order, weighed together.

Nodes of one group hold the same, so that nothing but their names and their order tells them
apart. Names decide; order confirms. A pair is open where names decide little and order says
otherwise, or where they decide nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ckpt.rules.infer.assignment import assign, rivals
from ckpt.rules.infer.tree import Node
from ckpt.rules.infer.words import Likeness, Name

STRONG = 0.3  # a margin of names that needs no order to agree
WEAK = 0.04  # a smaller one is none
OPEN = 0.0  # the margin of what nothing decides
PLAUSIBLE = 0.25  # likeness of names below which two nodes are left alone if others are free

_NUMBER, _ORDINAL, _CONTENT, _SAME, _ORDER = 0.6, 0.3, 0.3, 0.15, 0.02
_NO_NUMBER = 0.5
_ROWS_IN = 5  # a row of fewer numbers may be a part of a longer one
_MOST_EXACT = 120  # rows of a table that is solved exactly
_MOST_PAIRS = 160_000


@dataclass(frozen=True, slots=True)
class Paired:
    """Two nodes of a group.

    Attributes:
        left: Its place in the group of the source.
        right: Its place in that of the target.
        margin: `OPEN` where nothing decides.
        likeness: Of the names, from 0 to 1.
        others: Places in the target's group that are as good.
        evidence: What decided.
    """

    left: int
    right: int
    margin: float
    likeness: float
    others: tuple[int, ...]
    evidence: str


@dataclass(frozen=True, slots=True)
class _Side:
    """The nodes of one side, with what is compared of them."""

    names: list[Name]
    contents: list[Name]
    ranks: list[int]
    ordinals: list[int] | None
    rows: dict[tuple[str, int], list[int]]

    def number(self, name: Name, back: int) -> tuple[int, int, int]:
        """Its number `back` places from the end: itself, its rank, and of how many."""
        values = self.rows[name.template, back]
        value = name.numbers[-back]
        return value, values.index(value), len(values)


def pair_group(
    lefts: Sequence[Node], rights: Sequence[Node], above: tuple[Node, Node], likeness: Likeness
) -> list[Paired]:
    """Pair the nodes of the source with those of the target, under two that belong together."""
    one = _side(lefts, above[0], likeness)
    other = _side(rights, above[1], likeness)
    if len(lefts) == len(rights) == 1:
        like = likeness.of_names(one.names[0], other.names[0])
        return [Paired(0, 0, 0.5 + like / 2, like, (), "shape")]
    if _is_row(one) and _is_row(other) and len(lefts) == len(rights):
        return _by_number(one, other)
    if len(lefts) * len(rights) > _MOST_PAIRS:
        return []
    likes = [[likeness.of_names(a, b) for b in other.names] for a in one.names]
    names = _scores(one, other, likes, likeness)
    found = _assigned(names, one, other)
    return [
        _judged(row, column, names, found, likes, one, other)
        for row, column in enumerate(found)
        if column >= 0
    ]


def _side(nodes: Sequence[Node], above: Node, likeness: Likeness) -> _Side:
    leaf = nodes[0].leaf
    names = [likeness.name(node.relative(above), leaf=leaf) for node in nodes]
    contents = [likeness.name(_content(node), leaf=False) for node in nodes]
    by_order = sorted(range(len(nodes)), key=lambda place: nodes[place].order)
    ranks = [0] * len(nodes)
    for rank, place in enumerate(by_order):
        ranks[place] = rank
    values: dict[tuple[str, int], set[int]] = {}
    for name in names:
        for back, value in enumerate(reversed(name.numbers), start=1):
            values.setdefault((name.template, back), set()).add(value)
    rows = {key: sorted(found) for key, found in values.items()}
    return _Side(names, contents, ranks, _ordinal_ranks(names), rows)


def _content(node: Node) -> str:
    """The names under a node, each once."""
    if node.leaf:
        return ""
    inner = (child.relative(node) for child in node.below() if child.leaf)
    return ".".join(dict.fromkeys(part for path in inner for part in path.split(".")))[:200]


def _ordinal_ranks(names: Sequence[Name]) -> list[int] | None:
    """The place of each in the row that their names make; None where they make none."""
    ordinals = [name.ordinal[-1:] for name in names]
    if () in ordinals or len(set(ordinals)) < len(ordinals):
        return None
    in_order = sorted(ordinals)
    return [in_order.index(ordinal) for ordinal in ordinals]


def _is_row(side: _Side) -> bool:
    """Whether the names differ in one number alone."""
    name = side.names[0]
    if any(each.template != name.template for each in side.names):
        return False
    lengths = [len(side.rows[name.template, back]) for back in range(1, len(name.numbers) + 1)]
    return sorted(lengths)[-1:] == [len(side.names)] and sum(n > 1 for n in lengths) == 1


def _by_number(one: _Side, other: _Side) -> list[Paired]:
    rights = sorted(range(len(other.names)), key=lambda place: other.names[place].numbers)
    lefts = sorted(range(len(one.names)), key=lambda place: one.names[place].numbers)
    pairs = []
    for left, right in zip(lefts, rights, strict=True):
        agree = one.ranks[left] == other.ranks[right]
        pairs.append(Paired(left, right, 0.8 if agree else 0.6, 1.0, (), "numbers"))
    return pairs


def _scores(
    one: _Side, other: _Side, likes: list[list[float]], likeness: Likeness
) -> list[list[float]]:
    """How well the names of each two go together."""
    contents = len({*one.contents}) > 1 or len({*other.contents}) > 1
    placed = (
        one.ordinals is not None
        and other.ordinals is not None
        and len(one.names) == len(other.names)
    )
    table: list[list[float]] = []
    for i, a in enumerate(one.names):
        line: list[float] = []
        for j, b in enumerate(other.names):
            score = likes[i][j] + _NUMBER * _numbers(one, other, a, b)
            if placed and one.ordinals and other.ordinals:
                score += _ORDINAL * (one.ordinals[i] == other.ordinals[j])
            if contents:
                score += _CONTENT * likeness.of_names(one.contents[i], other.contents[j])
            line.append(score + _SAME * (likes[i][j] >= 1.0 and a.text == b.text))
        table.append(line)
    return table


def _numbers(one: _Side, other: _Side, a: Name, b: Name) -> float:
    """How well the numbers agree, from 0 to 1; a half where they say nothing."""
    count = min(len(a.numbers), len(b.numbers))
    if not count:
        return 1.0 if not a.numbers and not b.numbers else _NO_NUMBER
    total = 0.0
    for back in range(1, count + 1):
        value, rank, length = one.number(a, back)
        value_b, rank_b, length_b = other.number(b, back)
        if length == length_b > 1:
            total += rank == rank_b
        elif length == length_b:
            total += 1.0 if value == value_b else 0.6
        elif min(length, length_b) >= _ROWS_IN:
            total += value == value_b
        else:  # rows of other lengths: an index may have moved
            total += _NO_NUMBER
    return total / count


def _assigned(names: list[list[float]], one: _Side, other: _Side) -> list[int]:
    """The best pairing; of equal ones that which keeps the order."""
    rows, columns = len(names), len(names[0])
    scores = [
        [
            score + _ORDER * (1 - abs(one.ranks[i] / rows - other.ranks[j] / columns))
            for j, score in enumerate(line)
        ]
        for i, line in enumerate(names)
    ]
    best = [max(range(columns), key=line.__getitem__) for line in scores]
    if len(set(best)) == rows:
        return best
    if max(rows, columns) <= _MOST_EXACT:
        return assign(scores)
    return _greedy(scores)


def _greedy(scores: list[list[float]]) -> list[int]:
    found, taken = [-1] * len(scores), set[int]()
    cells = ((score, i, j) for i, line in enumerate(scores) for j, score in enumerate(line))
    for _, i, j in sorted(cells, reverse=True):
        if found[i] < 0 and j not in taken:
            found[i] = j
            taken.add(j)
    return found


def _judged(
    row: int,
    column: int,
    names: list[list[float]],
    found: list[int],
    likes: list[list[float]],
    one: _Side,
    other: _Side,
) -> Paired:
    losses = rivals(names, found, row)
    margin = max(0.0, min(1.0, losses[0][0])) if losses else 1.0
    even = len(found) == len(names[0])
    in_order = even and one.ranks[row] == other.ranks[column]
    if margin >= STRONG:
        evidence, sure = "names and order" if in_order else "names", margin
        sure *= 1.0 if in_order or not even else 0.8
    elif margin >= WEAK and in_order:
        evidence, sure = "order, and names a little", margin
    else:
        evidence, sure = "order alone" if in_order else "nothing", OPEN
    others = [right for loss, right in losses if loss < WEAK or (sure == OPEN and loss < STRONG)]
    others = list(dict.fromkeys(right for right in others if right != column))
    return Paired(
        row, column, sure, likes[row][column], tuple(others) if sure == OPEN else (), evidence
    )
