"""Align two trees, from the largest modules of equal contents down to the tensors.

Under two modules that belong together, the largest modules of equal contents are paired first
(`group`), then the leftovers. So a module moves with all its contents, and a decision about it
holds for all of them. Blocks that repeat on both sides are aligned once.
"""

from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from functools import cache, partial
from math import prod

from ckpt.infer.match.crosswise import crosswise
from ckpt.infer.match.fused import find_fused, find_spelled
from ckpt.infer.match.group import OPEN, PLAUSIBLE, SHAPE, Paired, pair_group
from ckpt.infer.match.prior import Prior
from ckpt.infer.match.sides import Link, Sides
from ckpt.infer.match.tree import Node, Signature
from ckpt.infer.words import Likeness

_INVERTED = bytes((1, 0)) + bytes(254)
_HALF = 0.5  # the least part of the contents that two modules must share, without other evidence
_FEW = 3  # leaves; smaller modules must have equal contents
_MOST_CLASSES = 250  # of modules without a counterpart that are compared one by one
_BLOCK = 100  # leaves; larger modules have several tensors of one name
_FORM_LEAVES = 2_000  # larger modules hardly repeat

_Nodes = dict[Signature, list[Node]]
_Form = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class _Class:
    """Two signatures whose nodes may belong together, and how many leaves they share."""

    one: Signature
    other: Signature
    shared: int
    ratio: float

    @property
    def exact(self) -> bool:
        """Whether the contents are equal."""
        return self.one is self.other

    @property
    def key(self) -> tuple[float, ...]:
        """Larger modules first; exact matches before similar ones."""
        return (-self.shared, not self.exact, -self.ratio)


class Alignment:
    """One pass over both trees.

    Args:
        sides: Both trees.
        likeness: Of names.
        certain: Pairs that are certain beforehand.
        prior: What a pass before this one decided.
    """

    def __init__(
        self,
        sides: Sides,
        likeness: Likeness,
        certain: Sequence[Link],
        prior: Prior | None = None,
    ) -> None:
        self._sides = sides
        self._prior = prior
        self._likeness = likeness
        self._done, self._doubted, self._left = (
            tuple(bytearray(len(tree.leaves)) for tree in sides.trees) for _ in range(3)
        )
        self._partner: dict[int, int] = {}
        self._known: dict[tuple[_Form, _Form], list[Link]] = {}
        self._links: list[Link] = []
        for link in certain:
            self._add(link)
        self._proved = {link.lefts[0]: link for link in certain}
        self._proved_modules = {
            (_module(old), _module(new)): link
            for link in certain
            for old, new in zip(
                sides.paths(0, link.lefts), sides.paths(1, link.rights), strict=True
            )
        }

    def run(self) -> list[Link]:
        """The links of everything under the roots."""
        before, after = self._sides.trees
        self._align(before.root, after.root)
        return self._links

    def _add(self, link: Link) -> None:
        self._links.append(link)
        for done, leaves in zip(self._done, (link.lefts, link.rights), strict=True):
            for leaf in leaves:
                done[leaf] = 1
        if not link.verb:
            self._partner[link.lefts[0]] = link.rights[0]

    def _align(self, a: Node, b: Node) -> None:
        form = self._form(a, b)
        if form is not None and (known := self._known.get(form)) is not None:
            for link in known:
                self._add(link.moved(a.low, b.low))
            return
        start = len(self._links)
        if max(a.size, b.size) <= _BLOCK:
            for link in find_spelled(self._sides, self._likeness, (a, b), self._rest(a, b)):
                self._add(link)
        self._modules(a, b)
        self._leaves(a, b)
        for link in find_fused(self._sides, self._likeness, (a, b), self._rest(a, b)):
            self._add(link)
        if form is not None:
            self._known[form] = [link.moved(-a.low, -b.low) for link in self._links[start:]]

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
        tree, cut = self._sides.trees[side], len(node.path)
        leaves = tree.leaves[node.low : node.high]
        first = node.order
        return tuple(
            (leaf.path[cut:], kind, leaf.order - first)
            for leaf, kind in zip(leaves, tree.kinds[node.low : node.high], strict=True)
        )

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
            pairs = pair_group(xs, ys, (a, b), self._sides, self._likeness, self._prior)
            taken = [
                paired
                for paired in pairs
                if self._plausible(paired, group, len(xs), len(ys))
                and self._consistent(xs[paired.left], ys[paired.right])
            ]
            for paired in taken:
                x, y = xs[paired.left], ys[paired.right]
                must_meet = _must_meet(paired, a, b)
                self._descend(x, y, paired, [ys[o] for o in paired.others], must_meet=must_meet)
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

    def _is_doubted(self, x: Node, y: Node, paired: Paired, *, must_meet: bool) -> bool:
        """Whether a pair is open whatever its margin: doubted, or left over and unlike."""
        of = [self._doubted]
        if paired.likeness < PLAUSIBLE and not must_meet:
            of.append(self._left)
        return any(
            1 in flags[side][node.low : node.high]
            for flags in of
            for side, node in enumerate((x, y))
        )

    def _are_strays(self, x: Node, y: Node) -> bool:
        """Whether two vectors were left over by modules that have other partners."""
        shape = self._sides.shapes[self._sides.kind(x.low)]
        return len(shape) < 2 and bool(self._left[0][x.low] and self._left[1][y.low])

    def _members(
        self,
        group: _Class,
        sides: tuple[_Nodes, _Nodes],
        covered: tuple[bytearray, ...],
    ) -> tuple[list[Node], list[Node]]:
        """The nodes of a class; the side with fewer also gets nodes that lack a little."""
        found = tuple(
            [node for node in sides[side][signature] if _is_free(node, covered[side])]
            for side, signature in enumerate((group.one, group.other))
        )
        fewer = 0 if len(found[0]) < len(found[1]) else 1
        if group.exact and found[fewer] and len(found[0]) != len(found[1]):
            for part in _alone(sides[fewer], sides[1 - fewer]):
                if part is not group.one and _lacks_little(part, group.one):
                    nodes = sides[fewer][part]
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

    def _descend(
        self, x: Node, y: Node, paired: Paired, others: list[Node], *, must_meet: bool
    ) -> None:
        if proof := next(filter(None, map(self._proved.get, range(x.low, x.high))), None):
            paired = replace(paired, margin=proof.margin, evidence=proof.evidence)
        elif self._is_doubted(x, y, paired, must_meet=must_meet):
            paired = replace(paired, margin=OPEN)
        for side, node in enumerate((x, y)):
            self._left[side][node.low : node.high] = bytes(node.size)
        start = len(self._links)
        self._align(x, y)
        self._links[start:] = [_under(link, paired, y, others) for link in self._links[start:]]

    def _leaves(self, a: Node, b: Node) -> None:
        """Pair the tensors that no pair of modules included."""
        left, right = self._rest(a, b)
        kinds: dict[int, tuple[list[Node], list[Node]]] = {}
        for side, leaves in enumerate((left, right)):
            tree = self._sides.trees[side]
            for leaf in leaves:
                kinds.setdefault(tree.kinds[leaf], ([], []))[side].append(tree.leaves[leaf])
        open_kinds = {kind: both for kind, both in kinds.items() if not self._sides.proofs[kind]}
        crossed = crosswise(open_kinds, self._sides.shapes, partial(self._alike_in, a, b))
        for kind, (xs, ys) in kinds.items():
            if not xs or not ys or kind in crossed:
                continue
            for paired in pair_group(xs, ys, (a, b), self._sides, self._likeness, self._prior):
                if len(xs) != len(ys) and paired.likeness < PLAUSIBLE:
                    continue
                others = tuple(ys[other].low for other in paired.others)
                x, y = xs[paired.left], ys[paired.right]
                must_meet = _must_meet(paired, a, b)
                doubted = self._is_doubted(x, y, paired, must_meet=must_meet)
                open_ = doubted or (self._are_strays(x, y) and not must_meet)
                margin, evidence = OPEN if open_ else paired.margin, paired.evidence
                proof = self._proved_modules.get((_module(x.path), _module(y.path)))
                if proof is not None and len(xs) == len(ys) == 1:
                    margin, evidence = proof.margin, proof.evidence
                self._add(Link((x.low,), (y.low,), margin, evidence, others))

    def _alike_in(self, a: Node, b: Node, x: Node, y: Node) -> float:
        """The likeness of the names of two tensors below two modules."""
        one, other = (
            self._likeness.name(node.relative(above), leaf=True) for node, above in ((x, a), (y, b))
        )
        return self._likeness.of_names(one, other)

    def _classes(self, lefts: _Nodes, rights: _Nodes) -> list[_Class]:
        """Signatures whose nodes may belong together, in the order in which to try them."""
        classes = [_Class(one, one, one.size, 1.0) for one in lefts if one in rights]
        others = _alone(rights, lefts)
        even = {s for s in lefts if s.size >= _FEW and len(lefts[s]) == len(rights.get(s, ()))}
        inner = _parts_among(lefts, even), _parts_among(rights, even)
        alike = (
            self._alike(one, other)
            for one in _alone(lefts, rights)
            for other in others
            if inner[0](one) == inner[1](other)
        )
        classes += (group for group in alike if group is not None)
        return sorted(classes, key=lambda group: group.key)

    def _alike(self, one: Signature, other: Signature) -> _Class | None:
        """A class of two signatures that share all elements, or half of the leaves; else None."""
        size, least = max(one.size, other.size), min(one.size, other.size)
        if one is other:
            return None
        if (
            one.numel == other.numel
            and self._matrices(one, other) == self._matrices(other, one) > 0
        ):
            return _Class(one, other, size, 1.0)
        if least < _FEW or least < size * _HALF:
            return None
        shared = sum((one.kinds & other.kinds).values())
        return None if shared < size * _HALF else _Class(one, other, shared, shared / size)

    def _matrices(self, mine: Signature, other: Signature) -> int:
        """The elements of the matrices that one has and the other lacks.

        Sizes of all tensors together may agree by chance: 24 columns and four vectors are as many
        as 25 and three.
        """
        shapes = (
            (self._sides.shapes[kind], count) for kind, count in (mine.kinds - other.kinds).items()
        )
        return sum(prod(s) * n for s, n in shapes if sum(size > 1 for size in s) > 1)


def _must_meet(paired: Paired, a: Node, b: Node) -> bool:
    """Whether two nodes are the only ones of their shapes, in modules of equal contents."""
    return paired.evidence == SHAPE and a.signature is b.signature


def _alone(nodes: _Nodes, others: _Nodes) -> list[Signature]:
    """The signatures of which the sides have different numbers, the largest first."""
    found = [one for one in nodes if len(others.get(one, ())) != len(nodes[one])]
    return sorted(found, key=lambda one: -one.size)[:_MOST_CLASSES]


def _module(path: str) -> str:
    """The module of a key; a key without one stands alone."""
    return path.rpartition(".")[0] or path


def _is_free(node: Node, covered: bytearray) -> bool:
    """Whether a leaf of the node is free, and no module above the node has a partner."""
    return 0 in covered[node.low : node.high]


def _by_signature(node: Node) -> _Nodes:
    found: _Nodes = {}
    for inner in node.below():
        if not inner.leaf:
            found.setdefault(inner.signature, []).append(inner)
    return found


def _parts_among(nodes: _Nodes, even: Set[Signature]) -> Callable[[Signature], Counter[Signature]]:
    """Counts the modules of some contents in a module of other contents.

    A module of which both sides have as many is not torn from the module around it.
    """

    def parts(signature: Signature) -> Counter[Signature]:
        below = nodes[signature][0].below() if even else ()
        return Counter(node.signature for node in below if node.signature in even)

    return cache(parts)


def _lacks_little(part: Signature, whole: Signature) -> bool:
    """Whether two signatures share more than half of their leaves."""
    shared = sum((part.kinds & whole.kinds).values())
    return shared > max(part.size, whole.size) * _HALF


def _under(link: Link, paired: Paired, y: Node, others: list[Node]) -> Link:
    """The link, no surer than the pair of nodes above it."""
    if paired.margin >= link.margin:
        return link
    if paired.margin == OPEN:  # the leaves at the same place under the other nodes are as good
        place = link.rights[0] - y.low
        elsewhere = [other.low + place for other in others if place < other.size]
        both = dict.fromkeys((*link.others, *elsewhere))
        link = replace(link, others=tuple(leaf for leaf in both if leaf != link.rights[0]))
    return replace(link, margin=paired.margin, evidence=paired.evidence)
