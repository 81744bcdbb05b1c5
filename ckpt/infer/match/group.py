"""Pair the nodes of two groups of equal contents, by names, numbers and order.

Only names and order distinguish the nodes of a group. Names decide; order confirms. A pair is open
if names decide little and order contradicts them, or if they decide nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter

from ckpt.infer.match.assignment import assign, rivals
from ckpt.infer.match.prior import Prior
from ckpt.infer.match.rows import regrouped
from ckpt.infer.match.sides import Sides
from ckpt.infer.match.tree import Node, Tree
from ckpt.infer.vocabulary import BACKWARDS, FAINT, ORDINALS
from ckpt.infer.words import Likeness, Name

STRONG = 0.2  # a margin of names that decides whatever the order
WEAK = 0.04  # a margin of names that decides if the order agrees
OPEN = 0.0  # the margin of an undecided pair
SHAPE = "shape"  # evidence for the only two nodes of their contents
SHAPE_ALONE, UNEVEN = "shape alone", "rows of different lengths"  # evidence for open pairs
PLAUSIBLE = 0.25  # the least likeness of names of a pair, if other nodes are free

_NUMBER, _ORDINAL, _SAME, _ORDER = 0.6, 0.3, 0.6, 0.02
_NO_NUMBER = 0.5
_BESIDE = 0.3
_ROWS_IN = 5  # shorter rows of numbers may have shifted indices
_FEW = 8  # leaves; larger modules of equal contents hardly are so by accident
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
class _Item:
    """A node with the properties that are compared.

    Attributes:
        name: Below the node above.
        rank: In the order of registration.
        ordinal: Rank in the row that all names form; None if they form none.
        row: Rank in the row of names with the same words, and the length of the row.
        first: The lowest number in which the names end; None if words name their places.
        numbers: Those of the name, last first: number, rank in its row, the row's length.
    """

    name: Name
    rank: int
    ordinal: int | None
    row: tuple[int, int]
    first: int | None
    numbers: list[tuple[int, int, int]]


def pair_group(
    lefts: Sequence[Node],
    rights: Sequence[Node],
    above: tuple[Node, Node],
    sides: Sides,
    likeness: Likeness,
    prior: Prior | None = None,
) -> list[Paired]:
    """Pair the nodes of the source with those of the target, below two that belong together."""
    ones = _items(lefts, above[0], sides.trees[0], likeness)
    others = _items(rights, above[1], sides.trees[1], likeness)
    if len(ones) == len(others) == 1:
        like = _like(ones[0], others[0], likeness)
        if likeness.are_opposed(ones[0].name, others[0].name):
            return [Paired(0, 0, OPEN, like, (), "names disagree")]
        strangers = _are_strangers(lefts[0], ones[0].name, others[0].name, likeness)
        if sides.names_kept and strangers and not _lead_to_the_same(lefts[0], rights[0], sides):
            return [Paired(0, 0, OPEN, like, (), SHAPE_ALONE)]
        return [Paired(0, 0, 0.5 + like / 2, like, (), SHAPE)]
    if row := _by_number(ones, others):
        return row
    if len(ones) * len(others) > _MOST_PAIRS:
        return []
    if prior is not None and (places := regrouped(lefts, rights, prior, likeness)):
        return [Paired(left, right, 0.6, 1.0, (), "numbers") for left, right in places]
    likes = [[_like(a, b, likeness) for b in others] for a in ones]
    even = len(ones) == len(others)
    names = [
        [_score(a, b, like) + _ORDINAL * _place(a, b, even)
         for b, like in zip(others, line, strict=True)]
        for a, line in zip(ones, likes, strict=True)
    ]  # fmt: skip
    if prior is not None:
        _add_neighbours(names, lefts, rights, prior)
    found = _assigned(names, ones, others)
    fewer = _count_alike(lefts) != _count_alike(rights)
    rows = _repeats(ones), _repeats(others)
    return [
        _guessed(row, column, likes[row][column], others)
        if fewer and rows[0][row] != rows[1][column] and _are_indexed(ones[row], others[column])
        else _judged(row, column, names, found, likes[row][column], ones, others)
        for row, column in enumerate(found)
        if column >= 0
    ]


def _add_neighbours(
    names: list[list[float]], lefts: Sequence[Node], rights: Sequence[Node], prior: Prior
) -> None:
    """Favour pairs of nodes beside which there are partners, such as their convolutions."""
    columns: dict[int, list[int]] = {}
    for column, right in enumerate(rights):
        columns.setdefault(prior.mate(1, right), []).append(column)
    for line, left in zip(names, lefts, strict=True):
        if (expected := prior.expected(left)) >= 0:
            for column in columns.get(expected, ()):
                line[column] += _BESIDE


def _are_strangers(node: Node, one: Name, other: Name, likeness: Likeness) -> bool:
    """Whether names say that two nodes have nothing in common, as an old and a new head do."""
    telling = all(any(word not in FAINT for word, _ in name.words) for name in (one, other))
    if not telling or node.size > _FEW:
        return False
    like = likeness.agree(one.text, other.text) if node.leaf else likeness.of_names(one, other)
    return like == 0


def _lead_to_the_same(left: Node, right: Node, sides: Sides) -> bool:
    """Whether two modules come before one and the same, as a layer does that was renamed.

    A head is the last one, and a single tensor is no layer.
    """
    following = []
    for node, tree in zip((left, right), sides.trees, strict=True):
        after = (leaf for leaf in tree.leaves if leaf.order >= node.order + node.size)
        following.append(min(after, key=attrgetter("order"), default=None))
    one, other = following
    return not left.leaf and one is not None and other is not None and one.path == other.path


def _count_alike(nodes: Sequence[Node]) -> int:
    """The number of nodes of equal contents; those that lack a little come after them."""
    return sum(node.signature is nodes[0].signature for node in nodes)


def _repeats(items: Sequence[_Item]) -> list[int]:
    """How often each item is repeated, under names that differ in one number only."""
    rows: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        rows.setdefault(item.name.template, []).append(place)
    repeats = [1] * len(items)
    for places in rows.values():
        row = _ranks_in_row([items[place] for place in places])
        for place, (_, length) in zip(row.values(), row, strict=True):
            repeats[places[place]] = length
    return repeats


def _are_indexed(a: _Item, b: _Item) -> bool:
    """Whether both are numbered members of lists, at one depth."""
    listed = all("#" in item.name.template.split(".") for item in (a, b))
    return listed and len(a.numbers) == len(b.numbers)


def _guessed(row: int, column: int, like: float, others: Sequence[_Item]) -> Paired:
    """A pair of two rows of different lengths: no name tells which modules remain."""
    template = others[column].name.template
    as_good = [at for at, other in enumerate(others) if other.name.template == template]
    return Paired(row, column, OPEN, like, tuple(as_good), UNEVEN)


def _like(a: _Item, b: _Item, likeness: Likeness) -> float:
    """The likeness of two names; names of numbers alone are compared by these."""
    if a.name.words or b.name.words:
        return likeness.of_names(a.name, b.name)
    return _numbers(a, b)


def _items(nodes: Sequence[Node], above: Node, tree: Tree, likeness: Likeness) -> list[_Item]:
    names = [likeness.name(node.relative(above), leaf=nodes[0].leaf) for node in nodes]
    in_order = sorted(range(len(nodes)), key=lambda place: nodes[place].order)
    ranks = {place: rank for rank, place in enumerate(in_order)}
    ordinals = _ordinal_ranks(names)
    rows = _rows(names)
    ends = [n.ordinal[0] for n in names if n.numbers and n.ordinal == n.numbers[-1:]]
    first = min(ends, default=None)
    return [
        _Item(
            name,
            ranks[place],
            ordinals[place] if ordinals else None,
            rows[place],
            first,
            [tree.place(node.path, back) for back in range(1, len(name.numbers) + 1)],
        )
        for place, (node, name) in enumerate(zip(nodes, names, strict=True))
    ]


def _ordinal_ranks(names: Sequence[Name]) -> list[int] | None:
    """The place of every name in the row that they form; None if they form none."""
    ordinals = [name.ordinal for name in names if name.ordinal]
    if len(set(ordinals)) < len(names):
        return None
    ranks = {ordinal: rank for rank, ordinal in enumerate(sorted(ordinals))}
    return [ranks[ordinal] for ordinal in ordinals]


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


def _by_number(ones: Sequence[_Item], others: Sequence[_Item]) -> list[Paired]:
    """The pairs of two rows whose names differ in one number only; none for other rows."""
    before, after = _ranks_in_row(ones), _ranks_in_row(others)
    if not before or before.keys() != after.keys():
        return []
    backwards = _is_backwards(ones[0].name) != _is_backwards(others[0].name)
    pairs = []
    for (rank, length), left in sorted(before.items(), key=itemgetter(1)):
        right = after[rank, length]
        if backwards:
            other = after[length - 1 - rank, length]
            pairs.append(Paired(left, other, OPEN, 1.0, (right,), "numbers, backwards"))
            continue
        agree = ones[left].rank == others[right].rank
        pairs.append(Paired(left, right, 0.8 if agree else 0.6, 1.0, (), "numbers"))
    return pairs


def _is_backwards(name: Name) -> bool:
    """Whether a list is numbered in the order opposite to that of most libraries."""
    return any(word in BACKWARDS for word, _ in name.words)


def _ranks_in_row(items: Sequence[_Item]) -> dict[tuple[int, int], int]:
    """(Rank in the row, its length) -> place, if the names differ in one number only."""
    if len({item.name.template for item in items}) > 1 or not items[0].numbers:
        return {}
    columns = [*zip(*(item.numbers for item in items), strict=True)]
    varying = [column for column in columns if len({value for value, _, _ in column}) > 1]
    if len(varying) != 1:
        return {}
    found = {(rank, length): place for place, (_, rank, length) in enumerate(varying[0])}
    return found if len(found) == len(items) else {}


def _score(a: _Item, b: _Item, like: float) -> float:
    """How well two names go together, apart from their places in a row."""
    same = like >= 1.0 and a.name.text == b.name.text
    return like + _NUMBER * _numbers(a, b) + _SAME * same


def _place(a: _Item, b: _Item, even: bool) -> float:
    """Whether two names have the same place in their rows; a half if they have none.

    That `fc1` is the gate and `fc2` is not, order tells; of `fc11` and `fc12` it does not.
    """
    if (a.first is None) != (b.first is None) and max(a.first or 0, b.first or 0) > 1:
        return _NO_NUMBER
    if a.numbers and b.numbers and _disagree(a.numbers[0], b.numbers[0]):
        return _NO_NUMBER
    if even and a.ordinal is not None and b.ordinal is not None:
        return float(a.ordinal == b.ordinal)
    return float(a.row[0] == b.row[0]) if a.row[1] == b.row[1] > 1 else _NO_NUMBER


def _disagree(one: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    """Whether two numbers have different places in rows of equal lengths."""
    return one[2] == other[2] > 1 and one[1] != other[1]


def _numbers(a: _Item, b: _Item) -> float:
    """How well the numbers agree, from 0 to 1; a half if they say nothing."""
    if not a.numbers or not b.numbers:
        return _NO_NUMBER if a.numbers or b.numbers else 1.0
    total = 0.0
    ones, others = _telling(a.numbers, len(b.numbers)), _telling(b.numbers, len(a.numbers))
    for (value, rank, length), (value_b, rank_b, length_b) in zip(ones, others, strict=False):
        if length == length_b > 1:
            total += rank == rank_b
        elif length == length_b:
            total += 1.0 if value == value_b else 0.6
        elif min(length, length_b) >= _ROWS_IN:
            total += value == value_b
        else:  # rows of different lengths: indices may have shifted
            total += _NO_NUMBER
    return total / min(len(a.numbers), len(b.numbers))


def _telling(numbers: list[tuple[int, int, int]], count: int) -> Sequence[tuple[int, int, int]]:
    """The numbers without those that are alone in their rows, if there are more than `count`."""
    several = [number for number in numbers if number[2] > 1]
    return several if len(numbers) > count == len(several) else numbers


def _assigned(
    names: list[list[float]], ones: Sequence[_Item], others: Sequence[_Item]
) -> list[int]:
    """The best pairing; among equal ones, that which keeps the order."""
    rows, columns = len(ones), len(others)
    scores = [
        [
            score + _ORDER * (1 - abs(a.rank / rows - b.rank / columns))
            for b, score in zip(others, line, strict=True)
        ]
        for a, line in zip(ones, names, strict=True)
    ]
    best = [max(range(columns), key=line.__getitem__) for line in scores]
    if len(set(best)) == rows:
        return best
    return assign(scores) if max(rows, columns) <= _MOST_EXACT else _greedy(scores)


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
    like: float,
    ones: Sequence[_Item],
    others: Sequence[_Item],
) -> Paired:
    even = len(ones) == len(others)
    in_order = even and ones[row].rank == others[column].rank
    losses = rivals(names, found, row)
    margin = max(0.0, min(1.0, losses[0][0])) if losses else 1.0
    if margin >= STRONG:
        evidence, sure = "names and order" if in_order else "names", margin
        sure *= 1.0 if in_order or not even else 0.8
    elif margin >= WEAK and in_order:
        evidence, sure = "order, and names a little", margin
    else:
        as_good = {right: None for loss, right in losses if loss < STRONG and right != column}
        evidence = "order alone" if in_order else "nothing"
        return Paired(row, column, OPEN, like, tuple(as_good), evidence)
    return Paired(row, column, sure, like, (), evidence)
