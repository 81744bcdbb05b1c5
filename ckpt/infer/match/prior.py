"""What a first pass decided, as evidence for the second one.

A norm belongs to the convolution beside it, a bias to its weight. Numbers of two lists run in
the same direction, or in opposite ones, as those of a decoder's stages may.
"""

import re
from collections.abc import Iterable
from functools import cached_property
from itertools import pairwise, takewhile

from ckpt.infer.match.sides import Link, Shape, Sides
from ckpt.infer.match.tree import Node, Tree
from ckpt.infer.words import template_of

_NUMBER = re.compile(r"\d+")
_DIGITS = 18
_MOST_NUMBERS = 4  # of one key
_CONVOLUTION = 3  # dimensions of its weight, at least

Ends = tuple[str, str]


class Prior:
    """Pairs of leaves that are decided by more than their order.

    Args:
        sides: Both trees.
        links: Of a pass over them.
    """

    def __init__(self, sides: Sides, links: Iterable[Link]) -> None:
        self._sides = sides
        self._links = [link for link in links if link.margin > 0 and not link.verb]
        self._partners = {link.lefts[0]: link.rights[0] for link in self._links}
        self._in_order = [_by_order(tree) for tree in sides.trees]

    def expected(self, x: Node) -> int:
        """The leaf of the target that belongs to the leaf beside `x`; -1 for none."""
        mate = self.mate(0, x)
        return self._partners.get(mate, -1) if mate >= 0 else -1

    def mate(self, side: int, node: Node) -> int:
        """The convolution right before or right after a norm; -1 for none.

        If both are there, it is the one whose name has more in common with the norm's. Without
        anything in common, that one stands beside the other may be chance.
        """
        in_order, leaves = self._in_order[side], self._sides.trees[side].leaves
        if any(len(self._shape(side, leaf)) > 1 for leaf in range(node.low, node.high)):
            return -1
        places = (node.order - 1, node.order + node.size)
        found = [in_order[place] for place in places if 0 <= place < len(in_order)]
        convolutions = [
            leaf
            for leaf in found
            if len(self._shape(side, leaf)) >= _CONVOLUTION
            and _shared(node.path, leaves[leaf].path) > (0, False)
        ]
        return max(convolutions, key=lambda leaf: _shared(node.path, leaves[leaf].path), default=-1)

    def lengths(self, side: int, node: Node, places: Iterable[int]) -> list[int]:
        """How many numbers follow the texts before some numbers of a node's path."""
        found = [*_NUMBER.finditer(node.path)]
        rows = self._sides.trees[side].rows
        return [len(rows[node.path[: found[place].start()]]) for place in places]

    def _shape(self, side: int, leaf: int) -> Shape:
        return self._sides.shapes[self._sides.trees[side].kinds[leaf]]

    def direction(self, one: str, other: str) -> int:
        """1 if the numbers after two texts rise together, -1 if one falls, 0 if nothing tells.

        Args:
            one: Text before a number in the source, with ``#`` for all numbers.
            other: Likewise in the target.
        """
        pairs = sorted(self._numbers.get((one, other), ()))
        if len({a for a, _ in pairs}) < 2 or len({b for _, b in pairs}) < 2:
            return 0
        steps = [(b[0] > a[0]) * (b[1] - a[1]) for a, b in pairwise(pairs)]
        if min(steps) < 0 < max(steps):
            return 0
        return 1 if max(steps) > 0 else -1

    @cached_property
    def _numbers(self) -> dict[Ends, set[tuple[int, int]]]:
        """The numbers in the keys of all pairs, by the texts before them."""
        found: dict[Ends, set[tuple[int, int]]] = {}
        for link in self._links:
            (old,), (new,) = self._sides.paths(0, link.lefts), self._sides.paths(1, link.rights)
            news = numbers_of(new)
            for before, value in numbers_of(old):
                for before_new, other in news:
                    found.setdefault((before, before_new), set()).add((value, other))
        return found


def numbers_of(path: str) -> list[tuple[str, int]]:
    """The first numbers of a path, each with the template of the text before it."""
    found = [*_NUMBER.finditer(path)][:_MOST_NUMBERS]
    return [(template_of(path[: one.start()]), int(one[0][:_DIGITS])) for one in found]


def _by_order(tree: Tree) -> list[int]:
    """The leaves in the order of registration."""
    return sorted(range(len(tree.leaves)), key=lambda leaf: tree.leaves[leaf].order)


def _shared(one: str, other: str) -> tuple[int, bool]:
    """How much a module and a tensor have in common: the modules around them, their numbers."""
    module = other.rpartition(".")[0]
    same_numbers = _NUMBER.findall(one) == _NUMBER.findall(module)
    alike = (a == b for a, b in zip(one.split("."), other.split("."), strict=False))
    return sum(1 for _ in takewhile(bool, alike)), same_numbers
