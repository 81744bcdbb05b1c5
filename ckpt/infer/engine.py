"""Infer which tensor becomes which: gather evidence, align both trees twice, judge the pairs.

The second pass knows the words that the first one learned. Law: see `result`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import prod

from ckpt.infer.align import Alignment
from ckpt.infer.judge import judge
from ckpt.infer.kinds import Kinds, kinds_of
from ckpt.infer.learning import learn
from ckpt.infer.result import Inference
from ckpt.infer.tree import Signatures, Tree, build_tree
from ckpt.infer.vocabulary import BUFFERS
from ckpt.infer.words import Likeness
from ckpt.tensors import TensorEntry

PASSES = 2
_SURE = 0.3  # the least margin of a pair from which words are learned


def infer(source: Sequence[TensorEntry], target: Sequence[TensorEntry]) -> Inference:
    """Infer which tensor of `source` becomes which of `target`.

    Args:
        source: Keys unique; digests help if both sides have them.
        target: Keys unique.
    """
    kinds = kinds_of(source, target)
    sides = (source, target)
    signatures = Signatures([prod(shape) for shape in kinds.shapes])
    before, after = (_tree(side, sides, kinds, signatures) for side in (0, 1))
    trees = (before, after)
    learned: dict[tuple[str, str], float] = {}
    for _ in range(PASSES):
        alignment = Alignment(trees, signatures.all, kinds.shapes, Likeness(learned))
        _settle(alignment, trees, kinds)
        alignment.run()
        learned = learn(_teaching(alignment, trees))
    keys = tuple([entry.key for entry in side] for side in sides)
    return judge(alignment, trees, kinds, keys)


def _tree(
    side: int,
    sides: Sequence[Sequence[TensorEntry]],
    kinds: Kinds,
    signatures: Signatures,
) -> Tree:
    """The tree of a side without the buffers that the other side lacks."""
    here, there = Counter(kinds.of[side]), Counter(kinds.of[1 - side])
    names = {_last(entry.key) for entry in sides[1 - side]}
    kept = [
        (entry.key, kind)
        for entry, kind in zip(sides[side], kinds.of[side], strict=True)
        if _last(entry.key) not in BUFFERS
        or _last(entry.key) in names
        or there[kind] * 2 >= here[kind]
    ]
    return build_tree([key for key, _ in kept], [kind for _, kind in kept], signatures)


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _settle(alignment: Alignment, trees: tuple[Tree, Tree], kinds: Kinds) -> None:
    """Pair tensors of the same bytes, if no other tensor has them."""
    places: list[dict[int, list[int]]] = []
    for tree in trees:
        of_kind: dict[int, list[int]] = {}
        for leaf, kind in enumerate(tree.kinds):
            if kinds.digests[kind]:
                of_kind.setdefault(kind, []).append(leaf)
        places.append(of_kind)
    for kind, lefts in places[0].items():
        rights = places[1].get(kind, [])
        if len(lefts) == len(rights) == 1:
            alignment.settle(lefts[0], rights[0], "bytes")


def _teaching(alignment: Alignment, trees: tuple[Tree, Tree]) -> Iterable[tuple[str, str]]:
    for found in alignment.found:
        if found.margin >= _SURE:
            yield trees[0].leaves[found.left].path, trees[1].leaves[found.right].path
