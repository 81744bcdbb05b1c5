"""The two sides of an inference, as trees of tensors of numbered kinds; and links between them.

Tensors of one kind are interchangeable: of one shape, one family of dtypes, and the same bytes,
or near values.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from ckpt.infer.match.tree import Signature, Tree, build_tree
from ckpt.infer.vocabulary import BUFFERS
from ckpt.tensors import TensorEntry

Shape = tuple[int, ...]
_WRAPPERS = 2  # parts of a key, such as ``model.module``
_MOST = 0.5  # of the keys
NEAR = "near:"  # begins the digest that tensors of near values share


@dataclass(frozen=True, slots=True)
class Sides:
    """Source and target.

    Attributes:
        keys: Of all entries.
        counts: The number of entries by kind.
        single: The kinds of which each side has one tensor and, but for tensors of equal bytes,
            no other of that shape.
        trees: Of the entries without the buffers that the other side lacks.
        shapes: By kind.
        proofs: By kind: ``bytes`` if its tensors are known to have the same bytes, ``values`` if
            these are near; else empty.
        names_kept: Whether most keys of the smaller side are also keys of the other, but for
            wrappers such as ``module``.
        surplus: The kinds of which a tree has more than the other, which operations may use up.
    """

    keys: tuple[list[str], list[str]]
    counts: tuple[Counter[int], Counter[int]]
    single: frozenset[int]
    trees: tuple[Tree, Tree]
    shapes: list[Shape]
    proofs: list[str]
    surplus: tuple[Counter[int], Counter[int]]
    names_kept: bool

    def kind(self, left: int) -> int:
        """The kind of a leaf of the source."""
        return self.trees[0].kinds[left]

    def paths(self, side: int, leaves: Sequence[int]) -> tuple[str, ...]:
        """The keys of some leaves."""
        return tuple(self.trees[side].leaves[leaf].path for leaf in leaves)


@dataclass(frozen=True, slots=True)
class Link:
    """Leaves that belong together, by their places in the trees: a pair, or an operation.

    Attributes:
        lefts: In the source.
        rights: In the target.
        margin: The least margin of all decisions that led to it.
        evidence: For the weakest decision.
        others: Leaves of the target that are as good.
        verb: As in `InferredOperation`; empty for a pair.
        dim: Likewise.
        sizes: Likewise.
    """

    lefts: tuple[int, ...]
    rights: tuple[int, ...]
    margin: float
    evidence: str = ""
    others: tuple[int, ...] = ()
    verb: str = ""
    dim: int = 0
    sizes: tuple[int, ...] = ()

    def moved(self, left: int, right: int) -> "Link":
        """The same elsewhere in the trees."""
        return Link(  # `replace` is slower, and this runs for every tensor of repeated blocks
            tuple([leaf + left for leaf in self.lefts]),
            tuple([leaf + right for leaf in self.rights]),
            self.margin,
            self.evidence,
            tuple([leaf + right for leaf in self.others]),
            self.verb,
            self.dim,
            self.sizes,
        )


def sides_of(
    source: Sequence[TensorEntry], target: Sequence[TensorEntry], *, names_kept: bool = False
) -> Sides:
    """Number the kinds of all entries and make the trees; bytes count if both sides have them."""
    common = {entry.digest for entry in source if entry.digest}
    common &= {entry.digest for entry in target if entry.digest}
    numbers: dict[tuple[Shape, str, str | None], int] = {}
    kinds = [[_kind(entry, common, numbers) for entry in side] for side in (source, target)]
    shapes = [shape for shape, _, _ in numbers]
    keys = [entry.key for entry in source], [entry.key for entry in target]
    counts = Counter(kinds[0]), Counter(kinds[1])
    names = [{_last(key) for key in side} for side in keys]
    signatures: dict[frozenset[tuple[int, int]], Signature] = {}
    numels = [prod(shape) for shape in shapes]
    trees = []
    for side in (0, 1):
        here, there = counts[side], counts[1 - side]
        kept = [
            (key, kind)
            for key, kind in zip(keys[side], kinds[side], strict=True)
            if _last(key) not in BUFFERS
            or _last(key) in names[1 - side]
            or there[kind] * 2 >= here[kind]
        ]
        trees.append(build_tree(kept, numels, signatures))
    before, after = trees
    ones, others = Counter(before.kinds), Counter(after.kinds)
    proofs = [_proof(digest) for _, _, digest in numbers]
    surplus = ones - others, others - ones
    names_kept = names_kept or _names_kept(*sorted(keys, key=len))
    single = _single([(shape, dtype) for shape, dtype, _ in numbers], counts, proofs)
    return Sides(keys, counts, single, (before, after), shapes, proofs, surplus, names_kept)


def _single(
    alike: Sequence[tuple[Shape, str]],
    counts: tuple[Counter[int], Counter[int]],
    proofs: Sequence[str],
) -> frozenset[int]:
    """The kinds that no other tensor can be mistaken for; `alike` are their shapes and dtypes."""
    totals: tuple[Counter[object], Counter[object]] = (Counter(), Counter())
    for kind, described in enumerate(alike):
        if proofs[kind] != "bytes":
            for total, count in zip(totals, counts, strict=True):
                total[described] += count[kind]
    return frozenset(
        kind
        for kind, described in enumerate(alike)
        if counts[0][kind] == counts[1][kind] == 1
        and (proofs[kind] == "bytes" or totals[0][described] == totals[1][described] == 1)
    )


def _names_kept(fewer: Sequence[str], more: Sequence[str]) -> bool:
    """Whether most keys are on both sides, with up to `_WRAPPERS` parts before them."""
    bare = {end for key in more for end in _ends(key)}
    names = {*more}
    kept = sum(key in bare or not names.isdisjoint(_ends(key)) for key in fewer)
    return kept > len(fewer) * _MOST


def _ends(key: str) -> list[str]:
    """The key, and what remains of it without its first parts; at least two parts."""
    parts = key.split(".", _WRAPPERS)
    return [
        ".".join(parts[first:]) for first in range(len(parts)) if first == 0 or "." in parts[-1]
    ]


def _kind(
    entry: TensorEntry, common: set[str], numbers: dict[tuple[Shape, str, str | None], int]
) -> int:
    digest = entry.digest if entry.digest in common else None
    exact = digest is not None and not digest.startswith(NEAR)
    dtype = entry.dtype if exact else family(entry.dtype)
    return numbers.setdefault((entry.shape, dtype, digest), len(numbers))


def _proof(digest: str | None) -> str:
    if digest is None:
        return ""
    return "values" if digest.startswith(NEAR) else "bytes"


def family(dtype: str) -> str:
    """The family of dtypes within which a conversion may cast."""
    if dtype == "bool":
        return dtype
    return "complex" if dtype.startswith("complex") else "int" if "int" in dtype else "float"


def _last(key: str) -> str:
    return key.rpartition(".")[2]
