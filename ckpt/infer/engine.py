"""The inference: evidence gathered, both trees aligned twice, and what comes out judged.

The second pass knows the words that the first one learned. Law: see `result`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import prod

from ckpt.infer.align import Alignment
from ckpt.infer.judge import judged
from ckpt.infer.kinds import Kinds, kinds_of
from ckpt.infer.learning import learn
from ckpt.infer.result import Inference
from ckpt.infer.tree import Signatures, Tree, build_tree
from ckpt.infer.vocabulary import BUFFERS
from ckpt.infer.words import Likeness
from ckpt.tensors import TensorEntry

PASSES = 2
_SURE = 0.3  # margin from which a pair teaches words


def infer(source: Sequence[TensorEntry], target: Sequence[TensorEntry]) -> Inference:
    """Work out which tensor of `source` becomes which of `target`.

    Args:
        source: Keys unique; digests help where both sides have them.
        target: Keys unique.
    """
    kinds = kinds_of(source, target)
    sides = (source, target)
    kept = tuple(_kept(side, sides, kinds) for side in (0, 1))
    signatures = Signatures([prod(shape) for shape in kinds.shapes])
    trees = tuple(
        build_tree(
            [sides[side][index].key for index in kept[side]],
            [kinds.of[side][index] for index in kept[side]],
            signatures,
        )
        for side in (0, 1)
    )
    both = (trees[0], trees[1])
    learned: dict[tuple[str, str], float] = {}
    for _ in range(PASSES):
        alignment = Alignment(both, signatures.all, kinds.shapes, Likeness(learned))
        _settle(alignment, both, kinds)
        alignment.run()
        learned = learn(_teaching(alignment, both))
    keys = tuple([entry.key for entry in side] for side in sides)
    return judged(alignment, both, kinds, keys)


def _kept(side: int, sides: Sequence[Sequence[TensorEntry]], kinds: Kinds) -> list[int]:
    """The entries of a side without the buffers that the other side lacks."""
    here, there = Counter(kinds.of[side]), Counter(kinds.of[1 - side])
    names = {_last(entry.key) for entry in sides[1 - side]}
    return [
        index
        for index, entry in enumerate(sides[side])
        if not (
            _last(entry.key) in BUFFERS
            and _last(entry.key) not in names
            and there[kinds.of[side][index]] * 2 < here[kinds.of[side][index]]
        )
    ]


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _settle(alignment: Alignment, trees: tuple[Tree, Tree], kinds: Kinds) -> None:
    """Pair what holds the same bytes, if nothing else does."""
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
