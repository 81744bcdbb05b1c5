"""Find tensors made of others: split, joined, transposed or reshaped, where shapes allow it.

Only among the leftovers of two modules that belong together, so that the parts of a tensor come
from one place.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from operator import itemgetter

from ckpt.infer.match.assignment import assign, rivals
from ckpt.infer.match.group import OPEN, STRONG
from ckpt.infer.match.sides import Link, Shape, Sides
from ckpt.infer.match.tree import Node
from ckpt.infer.vocabulary import GATED
from ckpt.infer.words import Likeness, Name, words_of

_MOST_PARTS = 8
_LIKELY, _GUESS = 0.6, 0.3

_Above = tuple[Node, Node]
_Rest = tuple[list[int], list[int]]
_Stream = tuple[list["_Leaf"], bool]  # parts, and whether names are clear


def find_fused(sides: Sides, likeness: Likeness, above: _Above, rest: _Rest) -> Iterator[Link]:
    """The operations that the leftovers of two modules allow."""
    if not rest[0] or not rest[1]:
        return
    lefts, rights = _leaves(sides, likeness, above, rest)
    for verb, same in (("transpose", _is_transposed), ("reshape", _is_reshaped)):
        for fused in _one_to_one(verb, same, lefts, rights, likeness):
            yield fused
            lefts = [leaf for leaf in lefts if leaf.place not in fused.lefts]
            rights = [leaf for leaf in rights if leaf.place not in fused.rights]
    yield from _splits_and_concats(lefts, rights, spelled=False)


def find_spelled(sides: Sides, likeness: Likeness, above: _Above, rest: _Rest) -> list[Link]:
    """Those splits and concats whose names say what the parts are, as `qkv` does."""
    for tree, leaves, surplus in zip(sides.trees, rest, sides.surplus, strict=True):
        if not any(tree.kinds[leaf] in surplus for leaf in leaves):
            return []
    lefts, rights = _leaves(sides, likeness, above, rest)
    named: dict[tuple[str, int], list[_Leaf]] = {}
    for leaf in (*lefts, *rights):
        if _spelled(leaf):
            named.setdefault((leaf.last, len(leaf.shape)), []).append(leaf)
    streams = dict[_Leaf, _Stream]()
    for wholes in named.values():
        if len(wholes) == 1:
            continue
        parts = rights if wholes[0] in lefts else lefts
        found = _streams(wholes, parts, likeness)
        if not found:  # several blocks, perhaps: whose parts they are is unclear
            return []
        streams |= found
    return [*_splits_and_concats(lefts, rights, spelled=True, streams=streams)] if named else []


def _streams(
    wholes: Sequence["_Leaf"], parts: Sequence["_Leaf"], likeness: Likeness
) -> dict["_Leaf", "_Stream"]:
    """The parts of each whole of one block, such as those of the two streams of SD3, by names."""
    if len({whole.shape for whole in wholes}) > 1 or len({w.name.numbers for w in wholes}) > 1:
        return {}
    groups = _spelled_groups(wholes[0], 0, parts)
    if len(groups) != len(wholes):
        return {}
    names = [
        [likeness.name(".".join(words), leaf=False) for words in _telling(leaves)]
        for leaves in (wholes, [group[0] for group in groups])
    ]
    scores = [[likeness.of_names(one, other) for other in names[1]] for one in names[0]]
    found = assign(scores)
    margins = [rivals(scores, found, row)[0][0] for row in range(len(wholes))]
    sure = min(margins) >= STRONG
    return {whole: (groups[column], sure) for whole, column in zip(wholes, found, strict=True)}


def _telling(leaves: Sequence["_Leaf"]) -> list[list[str]]:
    """The words of each of some leaves that not all of them have."""
    common = set.intersection(*({*leaf.siblings} for leaf in leaves))
    return [[word for word in leaf.siblings if word not in common] for leaf in leaves]


def _splits_and_concats(
    befores: list["_Leaf"],
    afters: list["_Leaf"],
    *,
    spelled: bool,
    streams: "Mapping[_Leaf, _Stream] | None" = None,
) -> Iterator[Link]:
    streams = streams or {}
    ones, others = ([leaf for leaf in side if leaf.surplus] for side in (befores, afters))
    for verb, wholes, parts in (("split", ones, others), ("concat", others, ones)):
        whence: dict[str, set[str]] = {}  # module of a whole: those of its parts
        for whole in sorted(wholes, key=lambda leaf: -len(leaf.shape)):
            if whole.module in whence and not whence[whole.module]:
                continue  # a bias goes where the weight goes
            whence.setdefault(whole.module, set())
            dims = range(len(whole.shape))
            joint, sure = streams.get(whole, ([], True))
            dim = 0
            if not joint:
                found = ((dim, _parts_of(whole, dim, parts, spelled=spelled)) for dim in dims)
                dim, joint = next((each for each in found if each[1]), (0, []))
            if not joint:
                continue
            modules = {part.module for part in joint}
            if whence[whole.module] and whence[whole.module] != modules:
                continue
            whence[whole.module] = modules
            in_order, named = _in_order(whole, joint)
            places = tuple(part.place for part in in_order)
            sizes = tuple(part.shape[dim] for part in in_order)
            margin = _LIKELY if sure and named else OPEN
            link = Link((whole.place,), places, margin, "shapes and names", (), verb, dim, sizes)
            if verb == "concat":
                link = replace(link, lefts=link.rights, rights=link.lefts)
            yield link
            wholes.remove(whole)
            parts[:] = [part for part in parts if part not in joint]


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
    sides: Sides, likeness: Likeness, above: _Above, rest: _Rest
) -> tuple[list[_Leaf], list[_Leaf]]:
    """The leaves of both sides; if one leaf of a module is in surplus, all of its leaves are."""
    found: list[list[_Leaf]] = []
    for side in (0, 1):
        leaves = [_leaf(sides, likeness, side, place, above[side]) for place in rest[side]]
        over = {leaf.module for leaf in leaves if leaf.surplus}
        found.append([replace(leaf, surplus=leaf.module in over) for leaf in leaves])
    return found[0], found[1]


def _leaf(sides: Sides, likeness: Likeness, side: int, place: int, above: Node) -> _Leaf:
    tree = sides.trees[side]
    node, kind = tree.leaves[place], tree.kinds[place]
    text = node.relative(above)
    module, _, last = text.rpartition(".")
    words = [word for part in text.split(".") for word in words_of(part)]
    letters = [word for word in words if word in _LETTERS]
    # All parts of one tensor share the words around the letter.
    siblings = tuple(word for word in words if not letters or word != letters[-1])
    return _Leaf(
        place=place,
        name=likeness.name(text, leaf=True),
        shape=sides.shapes[kind],
        order=node.order,
        module=module,
        last=last,
        surplus=kind in sides.surplus[side],
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
) -> Iterator[Link]:
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
            yield Link((ones[row].place,), (others[column].place,), margin, verb=verb)


def _fitting(whole: _Leaf, dim: int, parts: Sequence[_Leaf]) -> list[_Leaf]:
    """The leaves that may be parts of a whole along a dimension."""
    return [
        part
        for part in parts
        if len(part.shape) == len(whole.shape)
        and part.shape[dim] < whole.shape[dim]
        and part.shape[:dim] + part.shape[dim + 1 :] == whole.shape[:dim] + whole.shape[dim + 1 :]
    ]


def _by_letter(whole: _Leaf, fits: Sequence[_Leaf]) -> dict[object, list[_Leaf]]:
    """The parts that the name of the whole lists, by the words and numbers around their letters."""
    letters = _spelled(whole)
    return _by_siblings(part for part in fits if letters and part.letter in letters)


def _by_siblings(parts: Iterable[_Leaf]) -> dict[object, list[_Leaf]]:
    """The parts by the words and numbers around their letters."""
    groups: dict[object, list[_Leaf]] = {}
    for part in parts:
        groups.setdefault((part.siblings, part.name.numbers), []).append(part)
    return groups


def _admitted(groups: Iterable[list[_Leaf]], whole: _Leaf, dim: int) -> list[list[_Leaf]]:
    """The groups that make up a whole."""
    return [
        group
        for group in groups
        if 2 <= len(group) <= _MOST_PARTS
        and sum(part.shape[dim] for part in group) == whole.shape[dim]
    ]


def _spelled_groups(whole: _Leaf, dim: int, parts: Sequence[_Leaf]) -> list[list[_Leaf]]:
    return _admitted(_by_letter(whole, _fitting(whole, dim, parts)).values(), whole, dim)


def _parts_of(whole: _Leaf, dim: int, parts: Sequence[_Leaf], *, spelled: bool) -> list[_Leaf]:
    """The parts that make up a whole along a dimension: those that its name lists, or siblings."""
    fits = _fitting(whole, dim, parts)
    groups = _by_letter(whole, fits)
    if not spelled:
        for part in fits:
            names = part.name.text.split(".")
            for place in range(len(names)):  # siblings differ in one part of their names
                others = (place, *names[:place], "", *names[place + 1 :])
                groups.setdefault(others, []).append(part)
        for group in _by_siblings(part for part in fits if part.letter in "qkv").values():
            rest = whole.shape[dim] - sum(part.shape[dim] for part in group)
            more = [part for part in fits if part.letter == "?" and part.shape[dim] == rest]
            letters = sorted(part.letter for part in group)
            if letters == [*"kqv"] and len(more) == 1:  # attention and MLP side by side
                groups["qkv", group[0].place] = [*group, *more]
    admitted = _admitted(groups.values(), whole, dim)
    return max(admitted, key=lambda group: group[0].name.numbers == whole.name.numbers, default=[])


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
    """The parts in their order in the whole, and whether names say so."""
    spelled = _spelled(whole) or "qkv"
    if sorted(part.letter for part in parts) == ["?", *"kqv"]:
        return sorted(parts, key=lambda part: spelled.find(part.letter) % len(parts)), False
    gates = [GATED.get(_gate(part), -1) for part in parts]
    for places in (
        [spelled.find(part.letter) for part in parts],
        gates,
        [part.name.ordinal for part in parts if part.name.ordinal],
    ):
        if -1 not in places and len(set(places)) == len(parts):
            in_order = sorted(zip(places, parts, strict=True), key=itemgetter(0))
            named = places is not gates or [*filter(GATED.__contains__, whole.siblings)] == [*GATED]
            return [part for _, part in in_order], named
    return sorted(parts, key=lambda part: part.order), False


def _gate(part: _Leaf) -> str:
    """The word of a leaf that is `gate` or `up`; empty for none."""
    return next((word for word in part.siblings if word in GATED), "")
