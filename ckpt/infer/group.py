"""Pair the nodes of two groups of equal contents, by names, numbers and order.

Only names and order distinguish the nodes of a group. Names decide; order confirms. A pair is open
if names decide little and order contradicts them, or if they decide nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ckpt.infer.assignment import assign, rivals
from ckpt.infer.sides import Sides
from ckpt.infer.tree import Node, Tree
from ckpt.infer.vocabulary import ORDINALS
from ckpt.infer.words import Likeness, Name

STRONG = 0.2  # a margin of names that decides whatever the order
WEAK = 0.04  # a margin of names that decides if the order agrees
OPEN = 0.0  # the margin of an undecided pair
PLAUSIBLE = 0.25  # the least likeness of names of a pair, if other nodes are free

_NUMBER, _ORDINAL, _CONTENT, _SAME, _ORDER = 0.6, 0.3, 0.3, 0.15, 0.02
_NO_NUMBER = 0.5
_ROWS_IN = 5  # shorter rows of numbers may have shifted indices
_MOST_EXACT = 120  # rows of a table that is solved exactly
_MOST_PAIRS = 160_000


@dataclass(frozen=True, slots=True)
class Paired:
    """Two nodes of a group.

    Attributes:
        left: Place in the group of the source.
        right: Place in the group of the target.
        margin: `OPEN` if undecided.
        likeness: Of the names, from 0 to 1.
        others: Places in the target's group that are as good.
        evidence: What decided, in words.
    """

    left: int
    right: int
    margin: float
    likeness: float
    others: tuple[int, ...]
    evidence: str


@dataclass(frozen=True, slots=True)
class _Side:
    """The nodes of one side, with the properties that are compared.

    Attributes:
        names: Below the node above.
        contents: The names below every node.
        ranks: In the order of registration.
        ordinals: Ranks in the row that all names form; None if they form none.
        rows: Ranks in the rows of names with the same words, and the lengths of these.
        numbers: The numbers of every name, last first: number, rank in its row, the row's length.
    """

    names: list[Name]
    contents: list[Name]
    ranks: list[int]
    ordinals: list[int] | None
    rows: list[tuple[int, int]]
    numbers: list[list[tuple[int, int, int]]]

    @property
    def mixed(self) -> bool:
        """Whether some names have numbers and others do not."""
        return len({bool(name.numbers) for name in self.names}) > 1


def pair_group(
    lefts: Sequence[Node],
    rights: Sequence[Node],
    above: tuple[Node, Node],
    sides: Sides,
    likeness: Likeness,
) -> list[Paired]:
    """Pair the nodes of the source with those of the target, below two that belong together."""
    one = _side(lefts, above[0], sides.trees[0], likeness)
    other = _side(rights, above[1], sides.trees[1], likeness)
    if len(lefts) == len(rights) == 1:
        like = _likes(one, other, likeness)[0][0]
        if likeness.are_opposed(one.names[0], other.names[0]):
            return [Paired(0, 0, OPEN, like, (), "names disagree")]
        return [Paired(0, 0, 0.5 + like / 2, like, (), "shape")]
    if row := _by_number(one, other):
        return row
    if len(lefts) * len(rights) > _MOST_PAIRS:
        return []
    likes = _likes(one, other, likeness)
    plain = _scores(one, other, likes, likeness)
    names = [
        [score + _ORDINAL * _places(one, other, i, j) for j, score in enumerate(line)]
        for i, line in enumerate(plain)
    ]
    found = _assigned(names, one, other)
    return [
        _judged(row, column, (names, plain), found, likes, one, other)
        for row, column in enumerate(found)
        if column >= 0
    ]


def _likes(one: _Side, other: _Side, likeness: Likeness) -> list[list[float]]:
    """The likeness of every two names; names of numbers alone are compared by these."""
    return [
        [
            likeness.of_names(a, b) if a.words or b.words else _numbers(left, right)
            for b, right in zip(other.names, other.numbers, strict=True)
        ]
        for a, left in zip(one.names, one.numbers, strict=True)
    ]


def _side(nodes: Sequence[Node], above: Node, tree: Tree, likeness: Likeness) -> _Side:
    names = [likeness.name(node.relative(above), leaf=nodes[0].leaf) for node in nodes]
    contents = [likeness.name(_content(node), leaf=False) for node in nodes]
    by_order = sorted(range(len(nodes)), key=lambda place: nodes[place].order)
    ranks = [0] * len(nodes)
    for rank, place in enumerate(by_order):
        ranks[place] = rank
    numbers = [
        [tree.place(node.path, back) for back in range(1, len(name.numbers) + 1)]
        for node, name in zip(nodes, names, strict=True)
    ]
    return _Side(names, contents, ranks, _ordinal_ranks(names), _rows(names), numbers)


def _content(node: Node) -> str:
    """The distinct names below a node."""
    if node.leaf:
        return ""
    inner = (child.relative(node) for child in node.below() if child.leaf)
    return ".".join(dict.fromkeys(part for path in inner for part in path.split(".")))[:200]


def _ordinal_ranks(names: Sequence[Name]) -> list[int] | None:
    """The place of every name in the row that they form; None if they form none."""
    ordinals = [name.ordinal for name in names if name.ordinal]
    if len(set(ordinals)) < len(names):
        return None
    in_order = sorted(ordinals)
    return [in_order.index(ordinal) for ordinal in ordinals]


def _rows(names: Sequence[Name]) -> list[tuple[int, int]]:
    """The rank of every name among those of the same words, ordinals aside, and their number."""
    members: dict[tuple[str, ...], list[int]] = {}
    keys = []
    for place, name in enumerate(names):
        key = tuple(word for word, _ in name.words if word not in ORDINALS)
        members.setdefault(key, []).append(place)
        keys.append(key)
    ranks = [(0, 1)] * len(names)
    for row in members.values():
        found = _ordinal_ranks([names[place] for place in row])
        for place, rank in zip(row, found or (), strict=False):
            ranks[place] = rank, len(row)
    return ranks


def _by_number(one: _Side, other: _Side) -> list[Paired]:
    """The pairs of two rows whose names differ in one number only; none for other rows."""
    rows = [_ranks_in_row(side) for side in (one, other)]
    if not rows[0] or rows[0].keys() != rows[1].keys():
        return []
    pairs = []
    for rank, left in sorted(rows[0].items(), key=lambda item: item[1]):
        right = rows[1][rank]
        agree = one.ranks[left] == other.ranks[right]
        pairs.append(Paired(left, right, 0.8 if agree else 0.6, 1.0, (), "numbers"))
    return pairs


def _ranks_in_row(side: _Side) -> dict[tuple[int, int], int]:
    """(Rank in the row, its length) -> place, if the names differ in one number only."""
    if len({name.template for name in side.names}) > 1 or not side.numbers[0]:
        return {}
    columns = [*zip(*side.numbers, strict=True)]
    varying = [column for column in columns if len({value for value, _, _ in column}) > 1]
    if len(varying) != 1:
        return {}
    found = {(rank, length): place for place, (_, rank, length) in enumerate(varying[0])}
    return found if len(found) == len(side.names) else {}


def _scores(
    one: _Side, other: _Side, likes: list[list[float]], likeness: Likeness
) -> list[list[float]]:
    """How well every two names go together, apart from their places in a row."""
    contents = len({*one.contents}) > 1 or len({*other.contents}) > 1
    table: list[list[float]] = []
    for i, a in enumerate(one.names):
        line: list[float] = []
        for j, b in enumerate(other.names):
            score = likes[i][j] + _NUMBER * _numbers(one.numbers[i], other.numbers[j])
            if contents:
                score += _CONTENT * likeness.of_names(one.contents[i], other.contents[j])
            line.append(score + _SAME * (likes[i][j] >= 1.0 and a.text == b.text))
        table.append(line)
    return table


def _places(one: _Side, other: _Side, i: int, j: int) -> float:
    """Whether two names have the same place in their rows; a half if they have none."""
    if one.ordinals and other.ordinals and len(one.names) == len(other.names):
        return float(one.ordinals[i] == other.ordinals[j])
    (rank, length), (rank_b, length_b) = one.rows[i], other.rows[j]
    return float(rank == rank_b) if length == length_b > 1 else _NO_NUMBER


def _numbers(one: Sequence[tuple[int, int, int]], other: Sequence[tuple[int, int, int]]) -> float:
    """How well the numbers agree, from 0 to 1; a half if they say nothing."""
    if not one or not other:
        return _NO_NUMBER if one or other else 1.0
    total = 0.0
    for (value, rank, length), (value_b, rank_b, length_b) in zip(one, other, strict=False):
        if length == length_b > 1:
            total += rank == rank_b
        elif length == length_b:
            total += 1.0 if value == value_b else 0.6
        elif min(length, length_b) >= _ROWS_IN:
            total += value == value_b
        else:  # rows of different lengths: indices may have shifted
            total += _NO_NUMBER
    return total / min(len(one), len(other))


def _assigned(names: list[list[float]], one: _Side, other: _Side) -> list[int]:
    """The best pairing; among equal ones, that which keeps the order."""
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
    tables: tuple[list[list[float]], list[list[float]]],
    found: list[int],
    likes: list[list[float]],
    one: _Side,
    other: _Side,
) -> Paired:
    even = len(found) == len(tables[0][0])
    in_order = even and one.ranks[row] == other.ranks[column]
    # A row that mixes numbers and words does not outweigh the order of registration.
    mixed = even and not in_order and (one.mixed or other.mixed)
    losses = rivals(tables[1] if mixed else tables[0], found, row)
    margin = max(0.0, min(1.0, losses[0][0])) if losses else 1.0
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
