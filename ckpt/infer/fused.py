"""Find tensors made of others: split, joined, transposed or reshaped, where shapes allow it.

Only among the leftovers of two modules that belong together, so that the parts of a tensor come
from one place.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from operator import itemgetter

from ckpt.infer.assignment import assign
from ckpt.infer.tree import Node, Tree
from ckpt.infer.words import Likeness, Name, words_of

_MOST_PARTS = 8
_LIKELY, _GUESS = 0.6, 0.3

Shape = tuple[int, ...]
Shapes = Sequence[Shape]


@dataclass(frozen=True, slots=True)
class Fused:
    """An `InferredOperation` by the places of its leaves in the trees."""

    verb: str
    lefts: tuple[int, ...]
    rights: tuple[int, ...]
    margin: float
    dim: int = 0
    sizes: tuple[int, ...] = ()
    evidence: str = ""

    def moved(self, left: int, right: int) -> "Fused":
        """The same operation elsewhere in the trees."""
        lefts = tuple(leaf + left for leaf in self.lefts)
        return replace(self, lefts=lefts, rights=tuple(leaf + right for leaf in self.rights))

    def capped(self, margin: float) -> "Fused":
        """The same operation, no surer than `margin`."""
        return self if margin >= self.margin else replace(self, margin=margin)


@dataclass(frozen=True, slots=True)
class Known:
    """The knowledge of the search about both sides.

    Attributes:
        trees: Of the source and of the target.
        shapes: By kind of leaf.
        surplus: The kinds of which a side has more than the other, which operations may use up.
        likeness: Of names.
    """

    trees: tuple[Tree, Tree]
    shapes: Shapes
    surplus: tuple[frozenset[int], frozenset[int]]
    likeness: Likeness


def find_fused(
    known: Known, above: tuple[Node, Node], rest: tuple[list[int], list[int]]
) -> Iterator[Fused]:
    """The operations that the leftovers of two modules allow."""
    if not rest[0] or not rest[1]:
        return
    lefts, rights = _leaves(known, above, rest)
    for verb, same in (("transpose", _is_transposed), ("reshape", _is_reshaped)):
        for fused in _one_to_one(verb, same, lefts, rights, known.likeness):
            yield fused
            lefts = [leaf for leaf in lefts if leaf.place not in fused.lefts]
            rights = [leaf for leaf in rights if leaf.place not in fused.rights]
    yield from _splits_and_concats(lefts, rights, spelled=False)


def find_spelled(
    known: Known, above: tuple[Node, Node], rest: tuple[list[int], list[int]]
) -> list[Fused]:
    """Those splits and concats whose names say what the parts are, as `qkv` does."""
    kinds = (known.trees[0].kinds, known.trees[1].kinds)
    wholes = [
        any(kinds[side][leaf] in known.surplus[side] for leaf in rest[side]) for side in (0, 1)
    ]
    if not all(wholes):
        return []
    lefts, rights = _leaves(known, above, rest)
    named = Counter((leaf.last, len(leaf.shape)) for leaf in (*lefts, *rights) if _spelled(leaf))
    if (
        max(named.values(), default=2) > 1
    ):  # several blocks: it is unclear which parts belong together
        return []
    return [*_splits_and_concats(lefts, rights, spelled=True)]


def _splits_and_concats(
    lefts: list["_Leaf"], rights: list["_Leaf"], *, spelled: bool
) -> Iterator[Fused]:
    ones, others = ([leaf for leaf in side if leaf.surplus] for side in (lefts, rights))
    split, made = set[int](), set[int]()  # places in the source, and in the target
    for whole, found, dim, margin in _joints(ones, others, spelled=spelled):
        places, sizes = _parts(found, dim)
        split.add(whole.place)
        made.update(places)
        yield Fused("split", (whole.place,), places, margin, dim, sizes, "shapes and names")
    ones = [leaf for leaf in ones if leaf.place not in split]
    others = [leaf for leaf in others if leaf.place not in made]
    for whole, found, dim, margin in _joints(others, ones, spelled=spelled):
        places, sizes = _parts(found, dim)
        yield Fused("concat", places, (whole.place,), margin, dim, sizes, "shapes and names")


def _parts(found: Sequence["_Leaf"], dim: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The places of the parts, and their sizes along a dimension."""
    return tuple(part.place for part in found), tuple(part.shape[dim] for part in found)


@dataclass(frozen=True, slots=True)
class _Leaf:
    place: int
    name: Name
    shape: Shape
    order: int
    module: str
    last: str
    surplus: bool
    letter: str
    siblings: tuple[str, ...]


def _leaves(
    known: Known, above: tuple[Node, Node], rest: tuple[list[int], list[int]]
) -> tuple[list[_Leaf], list[_Leaf]]:
    """The leaves of both sides; if one leaf of a module is in surplus, all of its leaves are."""
    sides: list[list[_Leaf]] = []
    for side in (0, 1):
        leaves = [_leaf(known, side, place, above[side]) for place in rest[side]]
        over = {leaf.module for leaf in leaves if leaf.surplus}
        sides.append([replace(leaf, surplus=leaf.module in over) for leaf in leaves])
    return sides[0], sides[1]


def _leaf(known: Known, side: int, place: int, above: Node) -> _Leaf:
    tree = known.trees[side]
    node, kind = tree.leaves[place], tree.kinds[place]
    text = node.relative(above)
    module, _, last = text.rpartition(".")
    words = [word for part in text.split(".") for word in words_of(part)]
    letters = [word for word in words if word in _LETTERS]
    # All parts of one tensor share the words around the letter.
    siblings = tuple(word for word in words if not letters or word != letters[-1])
    return _Leaf(
        place=place,
        name=known.likeness.name(text, leaf=True),
        shape=known.shapes[kind],
        order=node.order,
        module=module,
        last=last,
        surplus=kind in known.surplus[side],
        letter=_LETTERS[letters[-1]] if letters else "?",
        siblings=siblings,
    )


def _is_transposed(one: Shape, other: Shape) -> bool:
    return len(one) == 2 and one != other and one == other[::-1]


def _is_reshaped(one: Shape, other: Shape) -> bool:
    """Whether the shapes are equal but for dimensions of size 1."""
    bare, bare_other = ([size for size in shape if size != 1] for shape in (one, other))
    return one != other and len(one) != len(other) and bare == bare_other and prod(one) > 1


def _one_to_one(
    verb: str,
    same: Callable[[Shape, Shape], bool],
    lefts: Sequence[_Leaf],
    rights: Sequence[_Leaf],
    likeness: Likeness,
) -> Iterator[Fused]:
    by_shape: dict[Shape, list[_Leaf]] = {}
    for left in lefts:
        by_shape.setdefault(left.shape, []).append(left)
    for shape, ones in by_shape.items():
        others = [right for right in rights if same(shape, right.shape)]
        if not others:
            continue
        scores = [[likeness.of_names(a.name, b.name) + 0.01 for b in others] for a in ones]
        for row, column in enumerate(assign(scores)):
            if column < 0:
                continue
            like = scores[row][column]
            if like < 0.25 and (len(ones) > 1 or len(others) > 1):
                continue
            margin = _LIKELY if like > 0.25 else _GUESS
            yield Fused(verb, (ones[row].place,), (others[column].place,), margin)


def _joints(
    wholes: Sequence[_Leaf], parts: Sequence[_Leaf], *, spelled: bool
) -> Iterator[tuple[_Leaf, list[_Leaf], int, float]]:
    """Every whole with its parts in order, the dimension, and the margin."""
    left = list(parts)
    for whole in wholes:
        for dim in range(len(whole.shape)):
            found = _parts_of(whole, dim, left, spelled=spelled)
            if found is None:
                continue
            in_order, named = _in_order(whole, found)
            yield whole, in_order, dim, _LIKELY if named else _GUESS
            left = [part for part in left if part not in in_order]
            break


def _parts_of(
    whole: _Leaf, dim: int, parts: Sequence[_Leaf], *, spelled: bool
) -> list[_Leaf] | None:
    """The parts that make up a whole along a dimension: those that its name lists, or siblings."""
    fits = [
        part
        for part in parts
        if len(part.shape) == len(whole.shape)
        and part.shape[dim] < whole.shape[dim]
        and part.shape[:dim] + part.shape[dim + 1 :] == whole.shape[:dim] + whole.shape[dim + 1 :]
    ]
    letters = _spelled(whole)
    groups: dict[object, list[_Leaf]] = {}
    for part in fits:
        if letters and part.letter in letters:
            groups.setdefault((part.siblings, part.name.numbers), []).append(part)
    if not spelled:
        for part in fits:
            groups.setdefault((part.last, part.name.numbers), []).append(part)
        groups[None] = fits
    admitted = [
        group
        for group in groups.values()
        if 2 <= len(group) <= _MOST_PARTS
        and sum(part.shape[dim] for part in group) == whole.shape[dim]
    ]
    return max(
        admitted, key=lambda group: group[0].name.numbers == whole.name.numbers, default=None
    )


def _spelled(whole: _Leaf) -> str:
    """The letters of the parts in the name of the whole: `qkv`, also for torch's `in_proj`."""
    words = [word for part in whole.name.text.split(".") for word in words_of(part)]
    found = next((word for word in ("qkv", "kv", "qk") if word in words), "")
    return found or ("qkv" if words[:2] == ["in", "proj"] or "in_proj" in whole.last else "")


_LETTERS = {
    "q": "q", "query": "q", "queries": "q", "wq": "q", "k": "k", "key": "k", "keys": "k",
    "wk": "k", "v": "v", "value": "v", "values": "v", "wv": "v",
}  # fmt: skip


def _in_order(whole: _Leaf, parts: list[_Leaf]) -> tuple[list[_Leaf], bool]:
    """The parts in their order in the whole, and whether their names say so."""
    spelled = _spelled(whole) or "qkv"
    places = [spelled.find(part.letter) for part in parts]
    if -1 not in places and len(set(places)) == len(places):
        return [
            part for _, part in sorted(zip(places, parts, strict=True), key=itemgetter(0))
        ], True
    ordinals = [part.name.ordinal for part in parts if part.name.ordinal]
    if len(set(ordinals)) == len(parts):
        return [
            part for _, part in sorted(zip(ordinals, parts, strict=True), key=itemgetter(0))
        ], True
    return sorted(parts, key=lambda part: part.order), False
