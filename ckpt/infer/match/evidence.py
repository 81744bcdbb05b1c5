"""Which tensors belong together by their values, whatever their names.

Equal bytes, or values so near that one tensor was trained or cast from the other. Both are marked
as equal digests, which `sides` reads. Bytes that contradict exact names are not followed unless
all that is known of both modules moved with them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING

from ckpt.infer.match.sides import NEAR, family
from ckpt.tensors import TensorEntry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ckpt.compare.samples import Sample, Samples

    Table = NDArray[np.float32]

# Correlations of samples. Matrices have 0.89 and more with what they were 1,000 steps before, 0.03
# with those of another tower of equal shapes (docs/inference.md).
_RELATED, _UNRELATED = 0.5, 0.1
_RIVAL = 0.5  # of the correlation with the partner, at most that with any other tensor
_SIGMAS = 6.0  # of the correlation of as many random numbers
_LEAST_TOLD = 64  # numbers in a sample, for it to say that two tensors have nothing in common
_MOST_CELLS = 10_000_000  # of one table

Entries = Sequence[TensorEntry]


def without_disputed(
    source: Entries, target: Entries, near: Mapping[str, str]
) -> tuple[Entries, Entries, dict[str, str]]:
    """Both sides without the digests that contradict exact names.

    Args:
        source: The entries.
        target: Likewise.
        near: Source key to target key of tensors of near values.

    Returns:
        Both sides, and the target key whose bytes a source key has although a tensor of its own
        name is there.
    """
    moved = dict(_moved(source, target))
    shapes = {entry.key: entry.shape for entry in target}
    modules = {(_module(one), _module(other)) for one, other in (*moved.items(), *near.items())}
    disputed = {
        entry.key: moved[entry.key]
        for entry in source
        if moved.get(entry.key, entry.key) != entry.key
        and shapes.get(entry.key) == entry.shape
        and not _moved_whole(entry.key, moved[entry.key], modules)
    }
    if not disputed:
        return source, target, {}
    digests = {entry.digest for entry in source if entry.key in disputed}
    ones, others = (
        [replace(e, digest=None) if e.digest in digests else e for e in side]
        for side in (source, target)
    )
    return ones, others, disputed


def _moved(source: Entries, target: Entries) -> Iterator[tuple[str, str]]:
    """The keys of the tensors of which each side has the bytes once."""
    counts = [Counter(entry.digest for entry in side) for side in (source, target)]
    there = {entry.digest: entry.key for entry in target}
    for entry in source:
        if entry.digest and counts[0][entry.digest] == counts[1][entry.digest] == 1:
            yield entry.key, there[entry.digest]


def _module(key: str) -> str:
    return key.rpartition(".")[0]


def _moved_whole(old: str, new: str, modules: Set[tuple[str, str]]) -> bool:
    """Whether a tensor moved with all of its module whose place is known, and nothing else."""
    before, after = _module(old), _module(new)
    if before == after or old.rpartition(".")[2] != new.rpartition(".")[2]:
        return False
    return all((one == before) == (other == after) for one, other in modules)


def marked_near(
    source: Entries, target: Entries, near: Mapping[str, str]
) -> tuple[Entries, Entries]:
    """Both sides, with equal digests for the tensors of near values."""
    marks = {old: f"{NEAR}{number}" for number, old in enumerate(near)}
    there = {near[old]: mark for old, mark in marks.items()}
    ones = [replace(e, digest=marks.get(e.key, e.digest)) for e in source]
    return ones, [replace(e, digest=there.get(e.key, e.digest)) for e in target]


def unrelated(pairs: Sequence[tuple[str, str]], samples: "tuple[Samples, Samples]") -> set[str]:
    """The source keys of pairs whose values have nothing in common, if those of most others do.

    Tensors that are too small to tell follow the others of their module.
    """
    apart, related = set[str](), set[str]()
    for old, new in pairs:
        one, other = samples[0].get(old), samples[1].get(new)
        if one is None or other is None or one.count != other.count or one.count < _LEAST_TOLD:
            continue
        if one == other and one.tells:
            related.add(old)
            continue
        table = _standard([one, other])
        if not table.any(axis=1).all():
            continue
        correlation = float(table[0] @ table[1])
        if correlation >= _RELATED:
            related.add(old)
        elif abs(correlation) < max(_UNRELATED, min(_RELATED, _SIGMAS / one.count**0.5) / 2):
            apart.add(old)
    if len(related) <= len(apart):
        return set()
    modules = {_module(old) for old in apart} - {_module(old) for old in related} - {""}
    return apart | {old for old, _ in pairs if _module(old) in modules}


def near_values(
    source: Entries, target: Entries, samples: "tuple[Samples, Samples]"
) -> Iterator[tuple[str, str]]:
    """The keys of tensors so near that one comes from the other, and near to no other tensor."""
    equal = {e.digest for e in source if e.digest} & {e.digest for e in target if e.digest}
    kinds: dict[object, tuple[list[str], list[str]]] = {}
    for side, entries in enumerate((source, target)):
        for entry in entries:
            sample = samples[side].get(entry.key)
            if sample is not None and entry.digest not in equal:
                kind = entry.shape, family(entry.dtype), sample.count
                kinds.setdefault(kind, ([], []))[side].append(entry.key)
    for olds, news in kinds.values():
        if not olds or not news or len(olds) * len(news) > _MOST_CELLS:
            continue
        table = (
            _standard([samples[0][k] for k in olds]) @ _standard([samples[1][k] for k in news]).T
        )
        least = max(_RELATED, _SIGMAS / samples[0][olds[0]].count ** 0.5)
        in_row, in_column = _seconds(table), _seconds(table.T)
        for row, column in enumerate(table.argmax(axis=1).tolist()):
            value = float(table[row, column])
            is_best = value == table[:, column].max()
            rival = max(in_row[row], in_column[column]) if is_best else value
            if value >= least and rival <= value * _RIVAL:
                yield olds[row], news[column]


def _seconds(table: "Table") -> "Table":
    """The second best of each row; 0 if it has one cell."""
    import numpy as np

    if table.shape[1] == 1:
        return np.zeros(len(table), np.float32)
    return np.partition(table, -2, axis=1)[:, -2]


def _standard(samples: "Sequence[Sample]") -> "Table":
    """Samples of one size as rows of mean 0 and length 1; constant ones become zeros."""
    import numpy as np

    table = np.nan_to_num(np.stack([sample.numbers for sample in samples]), posinf=0.0, neginf=0.0)
    table /= np.maximum(np.abs(table).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    table -= table.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(table, axis=1, keepdims=True)
    table /= np.where(norms > 1e-6, norms, np.inf)
    return table.astype(np.float32)
