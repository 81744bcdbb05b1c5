"""Infer which tensor becomes which: gather evidence, align both trees twice, judge the pairs.

The second pass knows the words that the first one learned. If both sides hold values, names and
values are followed apart, and a pair about which they disagree is ambiguous. Law: see `result`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ckpt.infer.match.align import Alignment
from ckpt.infer.match.evidence import marked_near, near_values, unrelated, without_disputed
from ckpt.infer.match.group import OPEN, STRONG
from ckpt.infer.match.judge import judge
from ckpt.infer.match.prior import Prior
from ckpt.infer.match.sides import Link, Sides, sides_of
from ckpt.infer.reading.copies import copies_of, without
from ckpt.infer.reading.forms import read
from ckpt.infer.reading.view import renamed, translated
from ckpt.infer.result import COPIES, DROPPED, Confidence, Doubt, Inference
from ckpt.infer.words import Likeness, learn
from ckpt.tensors import TensorEntry

if TYPE_CHECKING:
    from ckpt.compare.samples import Samples

PASSES = 3
_SURE = 0.3  # the least margin of a pair from which words are learned


def infer(
    source: Sequence[TensorEntry],
    target: Sequence[TensorEntry],
    samples: "tuple[Samples, Samples] | None" = None,
    *,
    names_kept: bool = False,
) -> Inference:
    """Infer which tensor of `source` becomes which of `target`.

    Args:
        source: Keys unique; digests, of tensors whose equal bytes prove something, help if both
            sides have them.
        target: Likewise.
        samples: Of the tensors of each side, by key, if both hold values.
        names_kept: Whether these are what is left of two sides with mostly the same keys.
    """
    sides = read(source, target)
    if samples:
        samples = renamed(samples[0], sides[0]), renamed(samples[1], sides[1])
    mine, theirs = ([view.entry for view in side.values()] for side in sides)
    copies = copies_of(mine, theirs)
    one = without(mine, copies[1:])
    found = _inferred(one, theirs, samples, names_kept=names_kept)
    if copies:
        found = _one_of(copies, found, dropped=[*_left_out(mine, one)])
    return translated(found, sides)


def _left_out(source: Sequence[TensorEntry], used: Sequence[TensorEntry]) -> Iterator[str]:
    known = {entry.key for entry in used}
    yield from (entry.key for entry in source if entry.key not in known)


def _one_of(copies: tuple[str, ...], found: Inference, *, dropped: Sequence[str]) -> Inference:
    """The mapping of the first copy, of which all is a guess."""
    evidence = f"{COPIES}: {', '.join(copies)}"
    matches = (
        replace(match, confidence=Confidence.AMBIGUOUS, margin=0.0, evidence=evidence,
                candidates=(match.target, DROPPED))
        for match in found.matches
    )  # fmt: skip
    return replace(found, matches=(*matches,), dropped=(*found.dropped, *dropped), copies=copies)


def _inferred(
    source: Sequence[TensorEntry],
    target: Sequence[TensorEntry],
    samples: "tuple[Samples, Samples] | None",
    *,
    names_kept: bool,
) -> Inference:
    """`infer` for tensors as they are compared."""
    near = dict(near_values(source, target, samples)) if samples else {}
    source, target, disputed = without_disputed(source, target, near)
    doubts = {old: Doubt((old, new), "names and bytes disagree") for old, new in disputed.items()}
    sides = sides_of(source, target, names_kept=names_kept)
    links, likeness = _aligned(sides)
    if samples is None:
        return judge(links, sides, likeness, doubts)
    if near:
        by_name = _sure(links, sides)
        sides = sides_of(*marked_near(source, target, near), names_kept=names_kept)
        links, likeness = _aligned(sides)
        doubts = _disagreements(_pairs(links, sides), by_name) | doubts
    pairs = _pairs(links, sides)
    apart = unrelated(pairs, samples)
    unlike = {
        old: Doubt((new,), "values have nothing in common")
        for old, new in pairs
        if old in apart and old != new
    }
    return judge(links, sides, likeness, unlike | doubts)


def _disagreements(
    pairs: Sequence[tuple[str, str]], by_name: Mapping[str, str]
) -> dict[str, Doubt]:
    """The pairs that values decided against names."""
    return {
        old: Doubt((new, by_name[old]), "names and values disagree")
        for old, new in pairs
        if by_name.get(old, new) != new
    }


def _aligned(sides: Sides) -> tuple[list[Link], Likeness]:
    """The links of both trees, and the names' likeness by which they were found."""
    same_bytes = _proved(sides)
    likeness = Likeness({})
    links = Alignment(sides, likeness, same_bytes).run()
    for number in range(1, PASSES):
        if number > 1 and all(link.margin > OPEN for link in links):
            break
        prior = Prior(sides, links)
        likeness = Likeness(
            learn(
                (sides.paths(0, link.lefts)[0], sides.paths(1, link.rights)[0])
                for link in links
                if not link.verb and link.margin >= _SURE
            )
        )
        links = Alignment(sides, likeness, same_bytes, prior).run()
    return links, likeness


def _pairs(links: Sequence[Link], sides: Sides) -> list[tuple[str, str]]:
    """(Source key, target key) of the links that keep a tensor's elements."""
    return [
        (sides.paths(0, link.lefts)[0], sides.paths(1, link.rights)[0])
        for link in links
        if not link.verb
    ]


def _sure(links: Sequence[Link], sides: Sides) -> dict[str, str]:
    """The pairs that names decide by a clear margin."""
    clear = [link for link in links if link.margin >= STRONG and link.evidence != "shape"]
    return dict(_pairs(clear, sides))


def _proved(sides: Sides) -> list[Link]:
    """The pairs of tensors of the same bytes or near values, if no other tensor has them."""
    places: list[dict[int, list[int]]] = [{}, {}]
    for tree, of_kind in zip(sides.trees, places, strict=True):
        for leaf, kind in enumerate(tree.kinds):
            if sides.proofs[kind]:
                of_kind.setdefault(kind, []).append(leaf)
    return [
        Link((lefts[0],), (places[1][kind][0],), 1.0, sides.proofs[kind])
        for kind, lefts in places[0].items()
        if len(lefts) == len(places[1].get(kind, ())) == 1
    ]
