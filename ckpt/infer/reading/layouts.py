"""Tensors whose two layouts the names or the counts of shapes reveal.

Keras and Flax call the weight of a layer ``kernel`` and put its outputs last; torch puts them
first (keras.io/api/layers, "kernel"; flax.linen.Dense and Conv). A scale of C numbers may be stored
with dimensions of size 1, and a convolution of size 1 as a linear layer.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod

from ckpt.infer.reading.view import Dims, View, permuted
from ckpt.tensors import TensorEntry

_KERNEL, _DEPTHWISE = "kernel", "depthwise_kernel"
_LETTERS = frozenset("qkvo")  # matrices of an attention of Mesh TensorFlow, beside kernels
_SCALES = frozenset(("bias", "scale", "gamma"))  # of vectors, beside kernels
# Of torch's weight, in the dimensions of a kernel: (outputs, inputs, height, width).
_DIMS: Mapping[int, Dims] = {2: (1, 0), 3: (2, 1, 0), 4: (3, 2, 0, 1), 5: (4, 3, 0, 1, 2)}
_DEPTHWISE_DIMS: Dims = (2, 3, 0, 1)

Shape = tuple[int, ...]
Entries = Sequence[TensorEntry]


def kernels(mine: Entries, theirs: Entries) -> Iterator[View]:
    """The kernels of one side as torch has them, if the other side has none."""
    found = [entry for entry in mine if _last(entry.key) in (_KERNEL, _DEPTHWISE)]
    if not found or any(_last(entry.key) in (_KERNEL, _DEPTHWISE) for entry in theirs):
        return
    if any(len(entry.shape) < 2 for entry in found):  # a word for every weight, then
        return
    there = Counter(entry.shape for entry in theirs)
    views = [_turned(entry) for entry in found if len(entry.shape) in _DIMS]
    views += [
        _turned(entry) for entry in mine if _last(entry.key) in _LETTERS if len(entry.shape) == 2
    ]
    before = Counter(entry.shape for entry in found) & there
    after = Counter(view.entry.shape for view in views) & there
    if after.total() < max(before.total(), len(found) / 2):
        return
    if after == before and not _has_vectors_without(mine):
        return
    yield from views


def _turned(entry: TensorEntry) -> View:
    dims = _DIMS[len(entry.shape)]
    if _last(entry.key) == _DEPTHWISE and len(entry.shape) == len(_DEPTHWISE_DIMS):
        dims = _DEPTHWISE_DIMS
    shape = permuted(entry.shape, dims)
    key = entry.key if _last(entry.key) in _LETTERS else entry.key.rpartition(".")[0]
    seen = replace(entry, key=f"{key}.weight".lstrip("."), shape=shape, digest=None)
    return View(seen, (entry.key,), "permute", dims, evidence="a kernel has its outputs last")


def _has_vectors_without(entries: Entries) -> bool:
    """Whether vectors have names as in Keras and Flax; not all weights are called kernel then."""
    return any(len(entry.shape) == 1 and _last(entry.key) in _SCALES for entry in entries)


def flattened(source: Entries, target: Entries) -> Iterator[View]:
    """Tensors of the source without the dimensions of size 1 that the target does without.

    Only if all tensors of one shape change to one other shape, of which the source has none.
    """
    before, after = (Counter(entry.shape for entry in side) for side in (source, target))
    ones, others = before - after, after - before
    bare, bare_others = _by_bare(ones), _by_bare(others)
    shapes: dict[Shape, Shape] = {}
    for shape, found in bare.items():
        new = bare_others.get(shape, [])
        if len(found) == len(new) == 1 and ones[found[0]] == others[new[0]] == before[found[0]]:
            shapes[found[0]] = new[0]
    for entry in source:
        if entry.shape in shapes:
            seen = replace(entry, shape=shapes[entry.shape], digest=None)
            evidence = "the only tensors of their shape, but for dimensions of size 1"
            yield View(seen, (entry.key,), "reshape", evidence=evidence)


def _by_bare(shapes: Counter[Shape]) -> dict[Shape, list[Shape]]:
    found: dict[Shape, list[Shape]] = {}
    for shape in shapes:
        if prod(shape) > 1:
            found.setdefault(tuple(size for size in shape if size != 1), []).append(shape)
    return found


def _last(key: str) -> str:
    return key.rpartition(".")[2]
