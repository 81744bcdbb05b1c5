"""How sure every pair of an alignment is, and what becomes of the tensors without a pair.

Certain are pairs of the same bytes without a rival, and pairs whose names agree of a shape that
both sides have once. The rest are tensors that one source gives twice.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import prod

from ckpt.infer.match.families import with_doubts
from ckpt.infer.match.group import SHAPE_ALONE, UNEVEN
from ckpt.infer.match.sides import Link, Shape, Sides
from ckpt.infer.match.squares import with_squares
from ckpt.infer.result import (
    DROPPED,
    ONLY_SHAPE,
    Confidence,
    Doubt,
    Inference,
    InferredOperation,
    Match,
)
from ckpt.infer.words import Likeness, template_of

_NAMES_DISAGREE = ("names disagree", SHAPE_ALONE, UNEVEN)
_MOST_CANDIDATES = 20  # listed for one key
_COPY = 0.3  # margin of a second copy of a tensor
_STATISTICS = (".running_mean", ".running_var")  # only a norm has them
_MOST_BLOCKS = 50  # of a target, with parts of one block; a list of layers has more
_ONLY = 0.3  # the least margin of the only two tensors of a shape
_AGREE = 0.5  # the least likeness of names that agree


def judge(
    links: Sequence[Link], sides: Sides, likeness: Likeness, doubts: Mapping[str, Doubt]
) -> Inference:
    """The result of an alignment.

    Args:
        links: Of the alignment.
        sides: Both sides.
        likeness: Of names.
        doubts: By source key, those that are ambiguous whatever their links say.
    """
    links, rows = with_doubts(with_squares(links, sides), sides)
    doubts = {old: Doubt((), why) for old, why in rows.items()} | dict(doubts)
    matches = [_match(link, sides, likeness, doubts) for link in links if not link.verb]
    matches = _with_whole_modules(matches)
    operations = [_operation(link, sides) for link in links if link.verb]
    made = {match.target for match in matches}.union(*(one.targets for one in operations))
    copies = [*_copies(matches, made, sides)]
    matches += copies
    made.update(copy.target for copy in copies)
    order = {key: place for place, key in enumerate(sides.keys[0])}
    matches.sort(key=lambda match: order[match.source])
    operations.sort(key=lambda operation: order[operation.sources[0]])
    used = {match.source for match in matches}.union(*(one.sources for one in operations))
    return Inference(
        tuple(matches),
        tuple(operations),
        tuple(key for key in sides.keys[0] if key not in used),
        tuple(key for key in sides.keys[1] if key not in made),
    )


def _match(link: Link, sides: Sides, likeness: Likeness, doubts: Mapping[str, Doubt]) -> Match:
    (left,), (right,) = sides.paths(0, link.lefts), sides.paths(1, link.rights)
    if (doubt := doubts.get(left)) is not None:
        return _ambiguous(left, right, doubt.candidates, doubt.evidence)
    kind = sides.kind(link.lefts[0])
    if kind in sides.single:
        if sides.proofs[kind] == "bytes":
            return Match(left, right, Confidence.CERTAIN, 1.0, (), "bytes")
        if _is_telling(sides.shapes[kind]) and link.evidence not in _NAMES_DISAGREE:
            agree = link.margin > 0 and likeness.agree(left, right) >= _AGREE
            confidence = Confidence.CERTAIN if agree else Confidence.LIKELY
            margin = 1.0 if agree else max(link.margin, _ONLY)
            return Match(left, right, confidence, margin, (), ONLY_SHAPE)
    if link.margin > 0:
        return Match(left, right, Confidence.LIKELY, link.margin, (), link.evidence)
    return _ambiguous(left, right, sides.paths(1, link.others), link.evidence)


def _ambiguous(left: str, right: str, others: Sequence[str], evidence: str) -> Match:
    candidates = (*dict.fromkeys((right, *others)),)[:_MOST_CANDIDATES]
    if len(candidates) == 1:
        candidates = (right, DROPPED)
    return Match(left, right, Confidence.AMBIGUOUS, 0.0, candidates, evidence)


def _with_whole_modules(matches: Sequence[Match]) -> list[Match]:
    """The matches, those ambiguous that tear modules apart, unless bytes prove them."""
    mixed, crossed = _mixed_norms(matches), _crossed(matches)
    judged = []
    for match in matches:
        why = ""
        if _module(match.target) in mixed:
            why = "one norm from several modules"
        elif (_block_of(match.source), _block_of(match.target)) in crossed:
            why = "two modules exchange parts"
        if why and match.evidence != "bytes":
            match = _ambiguous(match.source, match.target, match.candidates, why)
        judged.append(match)
    return judged


def _mixed_norms(matches: Sequence[Match]) -> set[str]:
    """The norms of the target that tensors of several modules would fill."""
    sources: dict[str, set[str]] = {}
    for match in matches:
        sources.setdefault(_module(match.target), set()).add(_module(match.source))
    norms = {_module(match.target) for match in matches if match.target.endswith(_STATISTICS)}
    return {norm for norm in norms if len(sources[norm]) > 1}


def _crossed(matches: Sequence[Match]) -> set[tuple[str, str]]:
    """Blocks (old, new) that share parts with the same two others, each of both with each."""
    news: dict[str, set[str]] = {}
    for match in matches:
        old, new = _block_of(match.source), _block_of(match.target)
        if old and new:
            news.setdefault(old, set()).add(new)
    olds: dict[tuple[str, str], list[str]] = {}
    for old, several in news.items():
        for pair in combinations(sorted(several) if len(several) <= _MOST_BLOCKS else (), 2):
            olds.setdefault(pair, []).append(old)
    return {
        (old, new) for pair, both in olds.items() if len(both) > 1 for old in both for new in pair
    }


def _block_of(key: str) -> str:
    """The module of a tensor's module, such as the one of a convolution and its norm."""
    return _module(_module(key))


def _module(key: str) -> str:
    return key.rpartition(".")[0]


def _is_telling(shape: Shape) -> bool:
    """Whether a shape is evidence: not a scalar's, nor a square's, which may be transposed."""
    return prod(shape) > 1 and not (len(shape) == 2 and shape[0] == shape[1])


def _operation(link: Link, sides: Sides) -> InferredOperation:
    return InferredOperation(
        link.verb,
        sides.paths(0, link.lefts),
        sides.paths(1, link.rights),
        Confidence.LIKELY if link.margin > 0 else Confidence.AMBIGUOUS,
        link.margin,
        link.dim,
        link.sizes,
        link.evidence,
    )


def _copies(matches: Sequence[Match], made: set[str], sides: Sides) -> Iterator[Match]:
    """Targets that can only be a second copy of a matched source: tied tensors."""
    given = {m.source for m in matches if m.confidence is not Confidence.AMBIGUOUS}
    before, after = sides.trees
    of_kind: dict[int, list[str]] = {}
    for leaf, kind in zip(before.leaves, before.kinds, strict=True):
        of_kind.setdefault(kind, []).append(leaf.path)
    for leaf, kind in zip(after.leaves, after.kinds, strict=True):
        sources = of_kind.get(kind, [])
        if leaf.path in made or len(sources) != 1 or sources[0] not in given:
            continue
        alone = "#" not in template_of(leaf.path)  # a repeated block would have more
        if alone and sides.counts[1][kind] == 2 and len(sides.shapes[kind]) >= 2:
            evidence = "the only tensor of its shape, a second time"
            yield Match(sources[0], leaf.path, Confidence.LIKELY, _COPY, (), evidence)
