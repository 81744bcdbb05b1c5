"""How sure every pair of an alignment is, and what becomes of the tensors without a pair.

Certain are pairs of the same bytes without a rival, and of a shape that both sides have once. The
rest are tensors that one source gives twice, and square matrices transposed like their siblings.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from math import prod

from ckpt.infer.align import Alignment, LeafPair
from ckpt.infer.fused import Fused
from ckpt.infer.kinds import Kinds
from ckpt.infer.result import Confidence, Inference, InferredOperation, Match
from ckpt.infer.tree import Tree
from ckpt.infer.words import template_of

_MOST_CANDIDATES = 20  # listed for one key
_COPY = 0.3  # margin of a second copy of a tensor
_ANALOGY = 0.5  # margin of a square matrix that is transposed like its siblings


def judge(
    alignment: Alignment,
    trees: tuple[Tree, Tree],
    kinds: Kinds,
    keys: Sequence[Sequence[str]],
) -> Inference:
    """The result of an alignment."""
    counts = tuple(Counter(of) for of in kinds.of)
    lone = {kind for kind in counts[0] if counts[0][kind] == counts[1][kind] == 1}
    found, fused = _with_squares(alignment, trees, kinds)
    matches = [_match(pair, trees, kinds, lone) for pair in found]
    operations = [_operation(one, trees) for one in fused]
    matches += _copies(matches, operations, trees, kinds, counts)
    order = {key: place for place, key in enumerate(keys[0])}
    matches.sort(key=lambda match: order[match.source])
    operations.sort(key=lambda operation: order[operation.sources[0]])
    used = {match.source for match in matches}.union(*(one.sources for one in operations))
    made = _targets(matches, operations)
    return Inference(
        tuple(matches),
        tuple(operations),
        tuple(key for key in keys[0] if key not in used),
        tuple(key for key in keys[1] if key not in made),
    )


def _targets(matches: Sequence[Match], operations: Sequence[InferredOperation]) -> set[str]:
    return {match.target for match in matches}.union(*(one.targets for one in operations))


def _match(found: LeafPair, trees: tuple[Tree, Tree], kinds: Kinds, lone: set[int]) -> Match:
    left, right = trees[0].leaves[found.left].path, trees[1].leaves[found.right].path
    kind = trees[0].kinds[found.left]
    if kind in lone and (kinds.digests[kind] or _telling(kinds.shapes[kind])):
        evidence = "bytes" if kinds.digests[kind] else "the only one of its shape"
        return Match(left, right, Confidence.CERTAIN, 1.0, (), evidence)
    if found.margin > 0:
        return Match(left, right, Confidence.LIKELY, found.margin, (), found.evidence)
    others = dict.fromkeys((found.right, *found.others))
    candidates = tuple(trees[1].leaves[other].path for other in others)[:_MOST_CANDIDATES]
    return Match(left, right, Confidence.AMBIGUOUS, 0.0, candidates, found.evidence)


def _telling(shape: tuple[int, ...]) -> bool:
    """Whether a shape is evidence: not a scalar, nor a square, which may be transposed."""
    return prod(shape) > 1 and not (len(shape) == 2 and shape[0] == shape[1])


def _operation(fused: Fused, trees: tuple[Tree, Tree]) -> InferredOperation:
    return InferredOperation(
        fused.verb,
        tuple(trees[0].leaves[leaf].path for leaf in fused.lefts),
        tuple(trees[1].leaves[leaf].path for leaf in fused.rights),
        Confidence.LIKELY if fused.margin > 0 else Confidence.AMBIGUOUS,
        fused.margin,
        fused.dim,
        fused.sizes,
        fused.evidence,
    )


def _copies(
    matches: Sequence[Match],
    operations: Sequence[InferredOperation],
    trees: tuple[Tree, Tree],
    kinds: Kinds,
    counts: Sequence[Counter[int]],
) -> Iterator[Match]:
    """Targets that can only be a second copy of a matched source: tied tensors."""
    made = _targets(matches, operations)
    given = {m.source for m in matches if m.confidence is not Confidence.AMBIGUOUS}
    of_kind: dict[int, list[str]] = {}
    for leaf, kind in zip(trees[0].leaves, trees[0].kinds, strict=True):
        of_kind.setdefault(kind, []).append(leaf.path)
    for leaf, kind in zip(trees[1].leaves, trees[1].kinds, strict=True):
        sources = of_kind.get(kind, [])
        if leaf.path in made or len(sources) != 1 or sources[0] not in given:
            continue
        alone = "#" not in template_of(leaf.path)  # a repeated block would have more
        if alone and counts[1][kind] == 2 and len(kinds.shapes[kind]) >= 2:
            evidence = "the only tensor of its shape, a second time"
            yield Match(sources[0], leaf.path, Confidence.LIKELY, _COPY, (), evidence)


def _with_squares(
    alignment: Alignment, trees: tuple[Tree, Tree], kinds: Kinds
) -> tuple[list[LeafPair], list[Fused]]:
    """Transpose the square matrices of blocks whose other matrices are all transposed."""
    turned = Counter(_block(trees, f.lefts[0]) for f in alignment.fused if f.verb == "transpose")
    if not turned:
        return alignment.found, alignment.fused
    matrices = [f for f in alignment.found if len(kinds.shapes[trees[0].kinds[f.left]]) == 2]
    upright = {_block(trees, f.left) for f in matrices if not _square(f, trees, kinds)}
    found, fused = [], list(alignment.fused)
    for pair in alignment.found:
        block = _block(trees, pair.left)
        if block not in turned or not _square(pair, trees, kinds):
            found.append(pair)
            continue
        margin = 0.0 if block in upright else min(_ANALOGY, pair.margin)
        evidence = "square, and its siblings are transposed"
        fused.append(Fused("transpose", (pair.left,), (pair.right,), margin, evidence=evidence))
    return found, fused


def _square(found: LeafPair, trees: tuple[Tree, Tree], kinds: Kinds) -> bool:
    shape = kinds.shapes[trees[0].kinds[found.left]]
    return len(shape) == 2 and shape[0] == shape[1] and shape[0] > 1


def _block(trees: tuple[Tree, Tree], left: int) -> str:
    """The outermost numbered module of a key, without its number: the repeated block."""
    template = template_of(trees[0].leaves[left].path)
    return template.partition("#")[0] if "#" in template else template
