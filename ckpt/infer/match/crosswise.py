"""Matrices that are transposed although the other side has matrices of their own shape as well.

An MLP of two matrices, (h, w) and (w, h), has the same shapes when both are transposed: names tell.
One of three has not, and counts tell.
"""

from collections.abc import Callable, Mapping, Sequence

from ckpt.infer.match.assignment import assign
from ckpt.infer.match.group import STRONG
from ckpt.infer.match.sides import Shape
from ckpt.infer.match.tree import Node

Nodes = Sequence[Node]
Kinds = Mapping[int, tuple[Nodes, Nodes]]  # the tensors of both sides, by kind
Alike = Callable[[Node, Node], float]


def crosswise(kinds: Kinds, shapes: Sequence[Shape], alike: Alike) -> set[int]:
    """The kinds of matrices that belong to those of the transposed shape, not to their own.

    Args:
        kinds: The tensors of two modules that belong together.
        shapes: By kind.
        alike: The likeness of two names, from 0 to 1.
    """
    found = set[int]()
    by_shape = {shapes[kind]: kind for kind in kinds if len(shapes[kind]) == 2}
    for (rows, columns), kind in by_shape.items():
        other = by_shape.get((columns, rows))
        if rows > columns and other is not None and _is_crossed(kinds[kind], kinds[other], alike):
            found |= {kind, other}
    return found


def _is_crossed(tall: tuple[Nodes, Nodes], wide: tuple[Nodes, Nodes], alike: Alike) -> bool:
    straight, crossed = (tall, wide), ((tall[0], wide[1]), (wide[0], tall[1]))
    if not _are_even(crossed) or not _are_even(straight):
        return _are_even(crossed)
    return _likeness(crossed, alike) - _likeness(straight, alike) >= STRONG


def _are_even(pairs: Sequence[tuple[Nodes, Nodes]]) -> bool:
    return all(len(olds) == len(news) for olds, news in pairs)


def _likeness(pairs: Sequence[tuple[Nodes, Nodes]], alike: Alike) -> float:
    """That of all names, on average, if they are paired as well as they can be."""
    scores: list[float] = []
    for olds, news in pairs:
        table = [[alike(old, new) for new in news] for old in olds]
        scores += (table[row][column] for row, column in enumerate(assign(table)))
    return sum(scores) / len(scores)
