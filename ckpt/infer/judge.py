"""How sure each pair is, and what an alignment leaves to be said about the rest.

Certain are the same bytes without a rival, and a shape that each side has once. Then the tensors
that one source gives twice, and the square matrices that are transposed with their siblings.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from math import prod

from ckpt.infer.align import Alignment, Found
from ckpt.infer.fused import Fused
from ckpt.infer.kinds import Kinds
from ckpt.infer.result import Confidence, Inference, InferredOperation, Match
from ckpt.infer.tree import Tree
from ckpt.infer.words import template_of

_MOST_CANDIDATES = 20  # that are listed of one key
_COPY = 0.3  # margin of a second copy of a tensor
_ANALOGY = 0.5  # margin of a square matrix that is transposed as its siblings are


def judged(
    alignment: Alignment,
    trees: tuple[Tree, Tree],
    kinds: Kinds,
    keys: Sequence[Sequence[str]],
) -> Inference:
    """Make the result of an alignment."""
    counts = tuple(Counter(of) for of in kinds.of)
    lone = {kind for kind in counts[0] if counts[0][kind] == counts[1][kind] == 1}
    found, fused = _with_squares(alignment, trees, kinds)
    matches = [_match(each, trees, kinds, lone) for each in found]
    operations = [_operation(each, trees) for each in fused]
    matches += _copies(matches, operations, trees, kinds, counts)
    order = {key: place for place, key in enumerate(keys[0])}
    matches.sort(key=lambda match: order[match.source])
    operations.sort(key=lambda operation: order[operation.sources[0]])
    used = {match.source for match in matches} | {k for each in operations for k in each.sources}
    made = {match.target for match in matches} | {k for each in operations for k in each.targets}
    return Inference(
        tuple(matches),
        tuple(operations),
        tuple(key for key in keys[0] if key not in used),
        tuple(key for key in keys[1] if key not in made),
    )


def _match(found: Found, trees: tuple[Tree, Tree], kinds: Kinds, lone: set[int]) -> Match:
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
    """Whether a shape says what it is: not a scalar, and no square that may be transposed."""
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
    """Targets that only a tensor that has another target already can give: a tied one."""
    made = {match.target for match in matches} | {k for each in operations for k in each.targets}
    given = {m.source for m in matches if m.confidence is not Confidence.AMBIGUOUS}
    of_kind: dict[int, list[str]] = {}
    for leaf, kind in zip(trees[0].leaves, trees[0].kinds, strict=True):
        of_kind.setdefault(kind, []).append(leaf.path)
    for leaf, kind in zip(trees[1].leaves, trees[1].kinds, strict=True):
        sources = of_kind.get(kind, [])
        if leaf.path in made or len(sources) != 1 or sources[0] not in given:
            continue
        alone = "#" not in template_of(leaf.path)  # of a repeated block there would be more
        if alone and counts[1][kind] == 2 and len(kinds.shapes[kind]) >= 2:
            evidence = "the only tensor of its shape, a second time"
            yield Match(sources[0], leaf.path, Confidence.LIKELY, _COPY, (), evidence)


def _with_squares(
    alignment: Alignment, trees: tuple[Tree, Tree], kinds: Kinds
) -> tuple[list[Found], list[Fused]]:
    """Transpose the square matrices of blocks in which every other matrix is transposed."""
    turned = Counter(_block(trees, f.lefts[0]) for f in alignment.fused if f.verb == "transpose")
    if not turned:
        return alignment.found, alignment.fused
    matrices = [f for f in alignment.found if len(kinds.shapes[trees[0].kinds[f.left]]) == 2]
    upright = {_block(trees, f.left) for f in matrices if not _square(f, trees, kinds)}
    found, fused = [], list(alignment.fused)
    for each in alignment.found:
        block = _block(trees, each.left)
        if block not in turned or not _square(each, trees, kinds):
            found.append(each)
            continue
        margin = 0.0 if block in upright else min(_ANALOGY, each.margin)
        evidence = "square, as its siblings are transposed"
        fused.append(Fused("transpose", (each.left,), (each.right,), margin, evidence=evidence))
    return found, fused


def _square(found: Found, trees: tuple[Tree, Tree], kinds: Kinds) -> bool:
    shape = kinds.shapes[trees[0].kinds[found.left]]
    return len(shape) == 2 and shape[0] == shape[1] and shape[0] > 1


def _block(trees: tuple[Tree, Tree], left: int) -> str:
    """The outermost numbered module of a key, any number: what repeats."""
    template = template_of(trees[0].leaves[left].path)
    return template.partition("#")[0] if "#" in template else template
