"""Rows of numbered modules whose numbers are regrouped or reversed, such as ``12`` and ``3.2``."""

from collections.abc import Mapping, Sequence

from ckpt.infer.match.assignment import assign, rivals
from ckpt.infer.match.prior import Prior, numbers_of
from ckpt.infer.match.tree import Node
from ckpt.infer.words import Likeness, template_of

_CLEAR = 0.1  # by which one row must be more alike than the next
_OTHER_LENGTH = 10.0  # more than any likeness

_Row = list[int]  # places of nodes, in the order of their numbers


def regrouped(
    lefts: Sequence[Node], rights: Sequence[Node], prior: Prior, likeness: Likeness
) -> list[tuple[int, int]]:
    """The pairs of nodes in rows that belong together; none unless all rows do.

    Other pairs must show in which direction the numbers of two rows run.
    """
    ones, others = _rows(lefts), _rows(rights)
    named = _paired(ones, others, likeness)
    pairs, is_regrouped = list[tuple[int, int]](), False
    for template, other in named.items():
        row, new = ones[template], others[other]
        direction = 1
        if len(row) > 1:
            direction = _direction(lefts[row[0]], rights[new[0]], prior)
            lengths = [
                prior.lengths(side, nodes[places[0]], _varying([nodes[place] for place in places]))
                for side, (nodes, places) in enumerate(((lefts, row), (rights, new)))
            ]
            is_regrouped |= direction < 0 or lengths[0] != lengths[1]
        if not direction:
            return []
        pairs += zip(row, _turned(new, rights) if direction < 0 else new, strict=True)
    return pairs if is_regrouped else []


def _rows(nodes: Sequence[Node]) -> dict[str, _Row]:
    """The places of the nodes by their templates, in the order of their numbers."""
    found: dict[str, _Row] = {}
    for place, node in enumerate(nodes):
        found.setdefault(template_of(node.path), []).append(place)
    for row in found.values():
        row.sort(key=lambda place: _values(nodes[place]))
    return found


def _values(node: Node) -> list[int]:
    return [value for _, value in numbers_of(node.path)]


def _paired(
    ones: Mapping[str, _Row], others: Mapping[str, _Row], likeness: Likeness
) -> dict[str, str]:
    """The rows that belong together, of equal lengths; none unless names or lengths decide."""
    if not ones or len(ones) != len(others):
        return {}
    names = [[likeness.name(text, leaf=False) for text in side] for side in (ones, others)]
    scores = [
        [
            likeness.of_names(name, other) - _OTHER_LENGTH * (len(row) != len(new))
            for other, new in zip(names[1], others.values(), strict=True)
        ]
        for name, row in zip(names[0], ones.values(), strict=True)
    ]
    found = assign(scores)
    for row, column in enumerate(found):
        losses = rivals(scores, found, row)
        if scores[row][column] < 0 or (losses and losses[0][0] < _CLEAR):
            return {}
    return {one: [*others][column] for one, column in zip(ones, found, strict=True)}


def _varying(nodes: Sequence[Node]) -> list[int]:
    """The places of the numbers that differ."""
    columns = zip(*map(_values, nodes), strict=True)
    return [place for place, column in enumerate(columns) if len({*column}) > 1]


def _direction(left: Node, right: Node, prior: Prior) -> int:
    """In which direction the first numbers of two lists run."""
    (one, _), (other, _) = numbers_of(left.path)[0], numbers_of(right.path)[0]
    return prior.direction(one, other)


def _turned(row: _Row, nodes: Sequence[Node]) -> _Row:
    """A row by falling first numbers, and rising other ones."""
    return sorted(row, key=lambda place: [-_values(nodes[place])[0], *_values(nodes[place])[1:]])
