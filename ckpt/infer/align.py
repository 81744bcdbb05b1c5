"""Align two trees, from the largest modules of equal contents down to the tensors.

Under two modules that belong together, the largest modules of equal contents are paired first
(`group`), then the leftovers. So a module moves with all its contents, and a decision about it
holds for all of them. Blocks that repeat on both sides are aligned once.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ckpt.infer.fused import Fused, Known, find_fused, find_spelled
from ckpt.infer.group import OPEN, PLAUSIBLE, Paired, pair_group
from ckpt.infer.tree import Node, Signature, Tree
from ckpt.infer.words import Likeness

_INVERTED = bytes((1, 0)) + bytes(254)
_HALF = 0.5  # the least part of the contents that two modules must share, without other evidence
_FEW = 3  # leaves; smaller modules must have equal contents
_MOST_CLASSES = 250  # of modules without a counterpart that are compared one by one
_BLOCK = 100  # leaves; larger modules have several tensors of one name
_FORM_LEAVES = 2_000  # larger modules hardly repeat


@dataclass(frozen=True, slots=True)
class LeafPair:
    """Two leaves that belong together, by their places in the trees.

    Attributes:
        left: In the source.
        right: In the target.
        margin: The least margin of all decisions that led to the pair.
        others: Leaves of the target that are as good.
        evidence: For the weakest decision.
    """

    left: int
    right: int
    margin: float
    others: tuple[int, ...] = ()
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class _Class:
    """Two signatures whose nodes may belong together."""

    one: int
    other: int
    shared: int
    exact: bool
    ratio: float

    @property
    def key(self) -> tuple[float, ...]:
        """Larger modules first; exact matches before similar ones."""
        return (-self.shared, not self.exact, -self.ratio)


_Form = tuple[tuple[str, int, int], ...]


class Alignment:
    """One pass over both trees.

    Attributes:
        found: The pairs.
        fused: The operations.
    """

    def __init__(
        self,
        trees: tuple[Tree, Tree],
        signatures: list[Signature],
        shapes: list[tuple[int, ...]],
        likeness: Likeness,
    ) -> None:
        self._trees = trees
        self._signatures = signatures
        self._known_of = Known(trees, shapes, _surplus(trees), likeness)
        self._likeness = likeness
        self._done = tuple(bytearray(len(tree.leaves)) for tree in trees)
        self._doubted = tuple(bytearray(len(tree.leaves)) for tree in trees)
        self._left = tuple(bytearray(len(tree.leaves)) for tree in trees)
        self._partner: dict[int, int] = {}
        self._known: dict[tuple[_Form, _Form], tuple[list[LeafPair], list[Fused]]] = {}
        self.found: list[LeafPair] = []
        self.fused: list[Fused] = []

    def settle(self, left: int, right: int, evidence: str) -> None:
        """Add a pair that is certain beforehand."""
        self._add(LeafPair(left, right, 1.0, (), evidence))

    def run(self) -> None:
        """Align everything under the roots."""
        self._align(self._trees[0].root, self._trees[1].root)

    def _add(self, found: LeafPair) -> None:
        self.found.append(found)
        self._partner[found.left] = found.right
        self._done[0][found.left] = self._done[1][found.right] = 1

    def _take(self, fused: Fused) -> None:
        self.fused.append(fused)
        for side, leaves in enumerate((fused.lefts, fused.rights)):
            for leaf in leaves:
                self._done[side][leaf] = 1

    def _align(self, a: Node, b: Node) -> None:
        if a.leaf or b.leaf:
            if a.leaf and b.leaf:
                self._add(LeafPair(a.low, b.low, 1.0, (), "shape"))
            return
        form = self._form(a, b)
        if form is not None and (known := self._known.get(form)) is not None:
            self._repeat(known, a, b)
            return
        start, start_fused = len(self.found), len(self.fused)
        if max(a.size, b.size) <= _BLOCK:
            for fused in find_spelled(self._known_of, (a, b), self._rest(a, b)):
                self._take(fused)
        self._modules(a, b)
        self._leaves(a, b)
        for fused in find_fused(self._known_of, (a, b), self._rest(a, b)):
            self._take(fused)
        if form is not None:
            found = [_moved(pair, -a.low, -b.low) for pair in self.found[start:]]
            ops = [fused.moved(-a.low, -b.low) for fused in self.fused[start_fused:]]
            self._known[form] = found, ops

    def _rest(self, a: Node, b: Node) -> tuple[list[int], list[int]]:
        """The leaves under two nodes that have no partner yet."""
        left, right = (
            [leaf for leaf in range(node.low, node.high) if not done[leaf]]
            for node, done in zip((a, b), self._done, strict=True)
        )
        return left, right

    def _form(self, a: Node, b: Node) -> tuple[_Form, _Form] | None:
        """The contents of two modules, by name; None if a part of them is decided already."""
        if max(a.size, b.size) > _FORM_LEAVES:
            return None
        if 1 in self._done[0][a.low : a.high] or 1 in self._done[1][b.low : b.high]:
            return None
        return self._form_of(0, a), self._form_of(1, b)

    def _form_of(self, side: int, node: Node) -> _Form:
        tree, cut = self._trees[side], len(node.path)
        leaves = tree.leaves[node.low : node.high]
        first = node.order
        return tuple(
            (leaf.path[cut:], kind, leaf.order - first)
            for leaf, kind in zip(leaves, tree.kinds[node.low : node.high], strict=True)
        )

    def _repeat(self, known: tuple[list[LeafPair], list[Fused]], a: Node, b: Node) -> None:
        for found in known[0]:
            self._add(_moved(found, a.low, b.low))
        for fused in known[1]:
            self._take(fused.moved(a.low, b.low))

    def _modules(self, a: Node, b: Node) -> None:
        """Pair the modules under two others, the largest first."""
        sides = _by_signature(a), _by_signature(b)
        covered = tuple(bytearray(self._done[side]) for side in (0, 1))
        paired_already: tuple[set[str], set[str]] = (set(), set())
        for group in self._classes(*sides):
            xs, ys = (
                [node for node in nodes if node.path not in paired_already[side]]
                for side, nodes in enumerate(self._members(group, sides, covered))
            )
            if not xs or not ys:
                continue
            pairs = pair_group(xs, ys, (a, b), self._trees, self._likeness)
            taken = [
                paired
                for paired in pairs
                if self._plausible(paired, group, len(xs), len(ys))
                and self._consistent(xs[paired.left], ys[paired.right])
            ]
            for paired in taken:
                x, y = xs[paired.left], ys[paired.right]
                self._descend(x, y, paired, [ys[other] for other in paired.others])
                for side, node in enumerate((x, y)):
                    paired_already[side].add(node.path)
                    # Leftovers may go elsewhere.
                    done = self._done[side][node.low : node.high]
                    covered[side][node.low : node.high] = done
                    self._left[side][node.low : node.high] = done.translate(_INVERTED)
            if any(paired.margin <= OPEN for paired in taken):
                self._doubt(0, xs, {paired.left for paired in taken})
                self._doubt(1, ys, {paired.right for paired in taken})

    def _doubt(self, side: int, nodes: list[Node], taken: set[int]) -> None:
        """Doubt the leftovers of an open decision as much as its pairs."""
        for place, node in enumerate(nodes):
            if place not in taken:
                self._doubted[side][node.low : node.high] = b"\x01" * node.size

    def _is_doubted(self, x: Node, y: Node, paired: Paired) -> bool:
        """Whether a pair is open whatever its margin: doubted, or left over and unlike."""
        of = self._doubted if paired.likeness >= PLAUSIBLE else self._left
        return any(
            1 in flags[side][node.low : node.high]
            for flags in (self._doubted, of)
            for side, node in enumerate((x, y))
        )

    def _are_strays(self, x: Node, y: Node) -> bool:
        """Whether two vectors were left over by modules that have other partners."""
        shape = self._known_of.shapes[self._trees[0].kinds[x.low]]
        return len(shape) < 2 and bool(self._left[0][x.low] and self._left[1][y.low])

    def _members(
        self,
        group: _Class,
        sides: tuple[dict[int, list[Node]], dict[int, list[Node]]],
        covered: tuple[bytearray, ...],
    ) -> tuple[list[Node], list[Node]]:
        """The nodes of a class; the side with fewer also gets nodes that lack a little."""
        found = tuple(
            [node for node in sides[side][number] if _is_free(node, covered[side])]
            for side, number in enumerate((group.one, group.other))
        )
        fewer = 0 if len(found[0]) < len(found[1]) else 1
        if group.exact and found[fewer] and len(found[0]) != len(found[1]):
            whole = self._signatures[group.one]
            for number in self._alone(sides[fewer], sides[1 - fewer]):
                if number != group.one and _lacks_little(self._signatures[number], whole):
                    nodes = sides[fewer][number]
                    found[fewer].extend(n for n in nodes if _is_free(n, covered[fewer]))
        return found[0], found[1]

    def _plausible(self, paired: Paired, group: _Class, lefts: int, rights: int) -> bool:
        if group.exact and lefts == rights:
            return True
        return paired.likeness >= PLAUSIBLE or (lefts == rights == 1 and group.ratio >= _HALF)

    def _consistent(self, x: Node, y: Node) -> bool:
        """Whether all decided leaves of one node have their partners under the other."""
        if 1 not in self._done[0][x.low : x.high] and 1 not in self._done[1][y.low : y.high]:
            return True
        inside = 0
        for leaf in range(x.low, x.high):
            right = self._partner.get(leaf)
            if right is not None:
                if not y.low <= right < y.high:
                    return False
                inside += 1
        return inside == sum(right in range(y.low, y.high) for right in self._partner.values())

    def _descend(self, x: Node, y: Node, paired: Paired, others: list[Node]) -> None:
        if self._is_doubted(x, y, paired):
            paired = replace(paired, margin=OPEN)
        for side, node in enumerate((x, y)):
            self._left[side][node.low : node.high] = bytes(node.size)
        start, start_fused = len(self.found), len(self.fused)
        self._align(x, y)
        for place in range(start, len(self.found)):
            self.found[place] = _under(self.found[place], paired, y, others)
        for place in range(start_fused, len(self.fused)):
            self.fused[place] = self.fused[place].capped(paired.margin)

    def _leaves(self, a: Node, b: Node) -> None:
        """Pair the tensors that no pair of modules included."""
        left, right = self._rest(a, b)
        kinds: dict[int, tuple[list[Node], list[Node]]] = {}
        for side, leaves in enumerate((left, right)):
            tree = self._trees[side]
            for leaf in leaves:
                kinds.setdefault(tree.kinds[leaf], ([], []))[side].append(tree.leaves[leaf])
        for xs, ys in kinds.values():
            if not xs or not ys:
                continue
            for paired in pair_group(xs, ys, (a, b), self._trees, self._likeness):
                if len(xs) != len(ys) and paired.likeness < PLAUSIBLE:
                    continue
                others = tuple(ys[other].low for other in paired.others)
                x, y = xs[paired.left], ys[paired.right]
                open_ = self._is_doubted(x, y, paired) or self._are_strays(x, y)
                margin = OPEN if open_ else paired.margin
                self._add(LeafPair(x.low, y.low, margin, others, paired.evidence))

    def _classes(self, lefts: dict[int, list[Node]], rights: dict[int, list[Node]]) -> list[_Class]:
        """Signatures whose nodes may belong together, in the order in which to try them."""
        classes = [
            _Class(number, number, self._signatures[number].size, True, 1.0)
            for number in lefts
            if number in rights
        ]
        ones = self._alone(lefts, rights)
        others = self._alone(rights, lefts)
        classes += (
            group
            for one in ones
            for other in others
            if (group := self._alike(one, other)) is not None
        )
        return sorted(classes, key=lambda group: group.key)

    def _alike(self, one: int, other: int) -> _Class | None:
        """A class of two signatures that share all elements, or half of the leaves; else None."""
        a, b = self._signatures[one], self._signatures[other]
        size, least = max(a.size, b.size), min(a.size, b.size)
        if one == other:
            return None
        if a.numel == b.numel and self._has_matrix(a, b) and self._has_matrix(b, a):
            return _Class(one, other, size, False, 1.0)
        if least < _FEW or least < size * _HALF:
            return None
        shared = sum((a.kinds & b.kinds).values())
        return None if shared < size * _HALF else _Class(one, other, shared, False, shared / size)

    def _has_matrix(self, mine: Signature, other: Signature) -> bool:
        """Whether one has a matrix that the other lacks; sizes of vectors may agree by chance."""
        return any(len(self._known_of.shapes[kind]) > 1 for kind in mine.kinds - other.kinds)

    def _alone(self, nodes: dict[int, list[Node]], others: dict[int, list[Node]]) -> list[int]:
        found = [number for number in nodes if len(others.get(number, ())) != len(nodes[number])]
        found.sort(key=lambda number: -self._signatures[number].size)
        return found[:_MOST_CLASSES]


def _is_free(node: Node, covered: bytearray) -> bool:
    """Whether a leaf of the node is free, and no module above the node has a partner."""
    return 0 in covered[node.low : node.high]


def _surplus(trees: tuple[Tree, Tree]) -> tuple[frozenset[int], frozenset[int]]:
    counts = Counter(trees[0].kinds), Counter(trees[1].kinds)
    return frozenset(counts[0] - counts[1]), frozenset(counts[1] - counts[0])


def _by_signature(node: Node) -> dict[int, list[Node]]:
    found: dict[int, list[Node]] = {}
    for inner in node.below():
        if not inner.leaf:
            found.setdefault(inner.signature, []).append(inner)
    return found


def _lacks_little(part: Signature, whole: Signature) -> bool:
    """Whether two signatures share more than half of their leaves."""
    shared = sum((part.kinds & whole.kinds).values())
    return shared > max(part.size, whole.size) * _HALF


def _moved(found: LeafPair, left: int, right: int) -> LeafPair:
    others = tuple(other + right for other in found.others)
    return LeafPair(found.left + left, found.right + right, found.margin, others, found.evidence)


def _under(found: LeafPair, paired: Paired, y: Node, others: list[Node]) -> LeafPair:
    """The pair, no surer than the pair of nodes above it."""
    if paired.margin >= found.margin:
        return found
    if paired.margin > OPEN:
        return replace(found, margin=paired.margin, evidence=paired.evidence)
    place = found.right - y.low
    elsewhere = tuple(
        leaf for other in others for leaf in _counterpart(other, place) if leaf != found.right
    )
    return replace(
        found,
        margin=OPEN,
        others=tuple(dict.fromkeys((*found.others, *elsewhere))),
        evidence=paired.evidence,
    )


def _counterpart(node: Node, place: int) -> Iterator[int]:
    """The leaf at the same place under another node."""
    if place < node.size:
        yield node.low + place
