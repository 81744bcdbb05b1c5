"""Infer which tensor becomes which: gather evidence, align both trees twice, judge the pairs.

The second pass knows the words that the first one learned. Law: see `result`.
"""

from collections.abc import Sequence

from ckpt.infer.align import Alignment
from ckpt.infer.judge import judge
from ckpt.infer.learning import learn
from ckpt.infer.result import Inference
from ckpt.infer.sides import Link, Sides, sides_of
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
    sides = sides_of(source, target)
    same_bytes = _same_bytes(sides)
    learned: dict[tuple[str, str], float] = {}
    for _ in range(PASSES):
        links = Alignment(sides, Likeness(learned), same_bytes).run()
        learned = learn(
            (sides.paths(0, link.lefts)[0], sides.paths(1, link.rights)[0])
            for link in links
            if not link.verb and link.margin >= _SURE
        )
    return judge(links, sides)


def _same_bytes(sides: Sides) -> list[Link]:
    """The pairs of tensors of the same bytes, if no other tensor has them."""
    places: list[dict[int, list[int]]] = [{}, {}]
    for tree, of_kind in zip(sides.trees, places, strict=True):
        for leaf, kind in enumerate(tree.kinds):
            if sides.have_bytes[kind]:
                of_kind.setdefault(kind, []).append(leaf)
    return [
        Link((lefts[0],), (places[1][kind][0],), 1.0, "bytes")
        for kind, lefts in places[0].items()
        if len(lefts) == len(places[1].get(kind, ())) == 1
    ]
