"""The two trees laid over each other, from the largest modules that hold the same to the tensors.

Two modules that belong together are looked at by themselves: the largest modules under them
that hold the same are paired first (`group`), then what those left over. So that what hangs
under one node moves together, and a decision about a module holds for all that is in it.
Blocks that are alike on both sides are worked out once.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ckpt.infer.fused import Fused, Known, find_fused, find_spelled
from ckpt.infer.group import OPEN, PLAUSIBLE, Paired, pair_group
from ckpt.infer.tree import Node, Signature, Tree
from ckpt.infer.words import Likeness

_INVERTED = bytes((1, 0)) + bytes(254)
_HALF = 0.5  # of what two modules hold must be the same, where nothing else says so
_FEW = 3  # leaves; smaller modules must hold the same
_MOST_CLASSES = 250  # of modules without a counterpart that are compared one by one
_BLOCK = 100  # leaves; a larger module holds several tensors of one name
_FORM_LEAVES = 2_000  # a module of more is hardly repeated


@dataclass(frozen=True, slots=True)
class Found:
    """Two leaves that belong together, by their places in the trees.

    Attributes:
        left: Of the source.
        right: Of the target.
        margin: The least of all decisions on the way to it.
        others: Leaves of the target that are as good.
        evidence: Of the weakest decision.
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
        """The largest first, of these the same before the alike."""
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
        self._known: dict[tuple[_Form, _Form], tuple[list[Found], list[Fused]]] = {}
        self.found: list[Found] = []
        self.fused: list[Fused] = []

    def settle(self, left: int, right: int, evidence: str) -> None:
        """Take a pair for granted."""
        self._add(Found(left, right, 1.0, (), evidence))

    def run(self) -> None:
        """Lay the roots over each other."""
        self._align(self._trees[0].root, self._trees[1].root)

    def free(self, side: int, node: Node) -> list[int]:
        """The leaves under a node that have no partner yet."""
        done = self._done[side]
        return [leaf for leaf in range(node.low, node.high) if not done[leaf]]

    def _add(self, found: Found) -> None:
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
                self._add(Found(a.low, b.low, 1.0, (), "shape"))
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
            found = [_moved(each, -a.low, -b.low) for each in self.found[start:]]
            ops = [each.moved(-a.low, -b.low) for each in self.fused[start_fused:]]
            self._known[form] = found, ops

    def _rest(self, a: Node, b: Node) -> tuple[list[int], list[int]]:
        return self.free(0, a), self.free(1, b)

    def _form(self, a: Node, b: Node) -> tuple[_Form, _Form] | None:
        """What two modules look like from within; None where part of them is decided."""
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

    def _repeat(self, known: tuple[list[Found], list[Fused]], a: Node, b: Node) -> None:
        for found in known[0]:
            self._add(_moved(found, a.low, b.low))
        for fused in known[1]:
            self._take(fused.moved(a.low, b.low))

    def _modules(self, a: Node, b: Node) -> None:
        """Pair the modules under two, the largest first."""
        sides = _by_signature(a), _by_signature(b)
        covered = tuple(bytearray(self._done[side]) for side in (0, 1))
        paired_already: tuple[set[str], set[str]] = (set(), set())
        for each in self._classes(*sides):
            xs, ys = (
                [node for node in nodes if node.path not in paired_already[side]]
                for side, nodes in enumerate(self._members(each, sides, covered))
            )
            if not xs or not ys:
                continue
            pairs = pair_group(xs, ys, (a, b), self._trees, self._likeness)
            taken = [
                paired
                for paired in pairs
                if self._plausible(paired, each, len(xs), len(ys))
                and self._consistent(xs[paired.left], ys[paired.right])
            ]
            for paired in taken:
                x, y = xs[paired.left], ys[paired.right]
                self._descend(x, y, paired, [ys[other] for other in paired.others])
                for side, node in enumerate((x, y)):
                    paired_already[side].add(node.path)
                    # What is left over may go elsewhere.
                    done = self._done[side][node.low : node.high]
                    covered[side][node.low : node.high] = done
                    self._left[side][node.low : node.high] = done.translate(_INVERTED)
            if any(paired.margin <= OPEN for paired in taken):
                self._doubt(0, xs, {paired.left for paired in taken})
                self._doubt(1, ys, {paired.right for paired in taken})

    def _doubt(self, side: int, nodes: list[Node], taken: set[int]) -> None:
        """What an open decision left over is as open as what it took."""
        for place, node in enumerate(nodes):
            if place not in taken:
                self._doubted[side][node.low : node.high] = b"\x01" * node.size

    def _is_doubted(self, x: Node, y: Node, paired: Paired) -> bool:
        """Whether a pair is open whatever the group says: doubted, or left over and unlike."""
        of = self._doubted if paired.likeness >= PLAUSIBLE else self._left
        return any(
            1 in flags[side][node.low : node.high]
            for flags in (self._doubted, of)
            for side, node in enumerate((x, y))
        )

    def _are_strays(self, x: Node, y: Node) -> bool:
        """Whether two tensors of a usual shape were left over by modules with other partners."""
        shape = self._known_of.shapes[self._trees[0].kinds[x.low]]
        return len(shape) < 2 and bool(self._left[0][x.low] and self._left[1][y.low])

    def _members(
        self,
        each: _Class,
        sides: tuple[dict[int, list[Node]], dict[int, list[Node]]],
        covered: tuple[bytearray, ...],
    ) -> tuple[list[Node], list[Node]]:
        """The nodes of a class; where one side has fewer, with those that lack a little."""
        found = tuple(
            [node for node in sides[side][number] if self._open(node, covered[side])]
            for side, number in enumerate((each.one, each.other))
        )
        fewer = 0 if len(found[0]) < len(found[1]) else 1
        if each.exact and found[fewer] and len(found[0]) != len(found[1]):
            whole = self._signatures[each.one]
            for number in self._alone(sides[fewer], sides[1 - fewer]):
                if number != each.one and _lacks_little(self._signatures[number], whole):
                    nodes = sides[fewer][number]
                    found[fewer].extend(n for n in nodes if self._open(n, covered[fewer]))
        return found[0], found[1]

    def _open(self, node: Node, covered: bytearray) -> bool:
        """Whether something under a node is free, and the node in none that has a partner."""
        return 0 in covered[node.low : node.high]

    def _plausible(self, paired: Paired, each: _Class, lefts: int, rights: int) -> bool:
        if each.exact and lefts == rights:
            return True
        return paired.likeness >= PLAUSIBLE or (lefts == rights == 1 and each.ratio >= _HALF)

    def _consistent(self, x: Node, y: Node) -> bool:
        """Whether what is decided under one lies under the other."""
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
        for side, node in enumerate((x, y)):  # found its place
            self._left[side][node.low : node.high] = bytes(node.size)
        start, start_fused = len(self.found), len(self.fused)
        self._align(x, y)
        for place in range(start, len(self.found)):
            self.found[place] = _under(self.found[place], paired, y, others)
        for place in range(start_fused, len(self.fused)):
            self.fused[place] = self.fused[place].capped(paired.margin)

    def _leaves(self, a: Node, b: Node) -> None:
        """Pair the tensors that no module took along."""
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
                self._add(Found(x.low, y.low, margin, others, paired.evidence))

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
            each
            for one in ones
            for other in others
            if (each := self._alike(one, other)) is not None
        )
        return sorted(classes, key=lambda each: each.key)

    def _alike(self, one: int, other: int) -> _Class | None:
        """Whether two signatures are near enough: the same elements, or half of the leaves."""
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
        """Whether what only one has is more than vectors, whose numbers may agree by chance."""
        return any(len(self._known_of.shapes[kind]) > 1 for kind in mine.kinds - other.kinds)

    def _alone(self, nodes: dict[int, list[Node]], others: dict[int, list[Node]]) -> list[int]:
        found = [number for number in nodes if len(others.get(number, ())) != len(nodes[number])]
        found.sort(key=lambda number: -self._signatures[number].size)
        return found[:_MOST_CLASSES]


def _surplus(trees: tuple[Tree, Tree]) -> tuple[frozenset[int], frozenset[int]]:
    counts = Counter(trees[0].kinds), Counter(trees[1].kinds)
    return frozenset(counts[0] - counts[1]), frozenset(counts[1] - counts[0])


def _by_signature(node: Node) -> dict[int, list[Node]]:
    found: dict[int, list[Node]] = {}
    for each in node.below():
        if not each.leaf:
            found.setdefault(each.signature, []).append(each)
    return found


def _lacks_little(part: Signature, whole: Signature) -> bool:
    """Whether two signatures share more than half of their leaves."""
    shared = sum((part.kinds & whole.kinds).values())
    return shared > max(part.size, whole.size) * _HALF


def _moved(found: Found, left: int, right: int) -> Found:
    others = tuple(other + right for other in found.others)
    return Found(found.left + left, found.right + right, found.margin, others, found.evidence)


def _under(found: Found, paired: Paired, y: Node, others: list[Node]) -> Found:
    """A pair under two nodes is no surer than these are."""
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
