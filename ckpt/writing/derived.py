"""From the expression of a planned tensor to an entry: where its bytes are, or how to make them.

Slices, transposes and reshapes are strided views of the source: entries with an offset and
strides. Joined, copied, cast and filled tensors are regions that are computed in chunks while they
are read. A mean, and a resized table, need one whole tensor in memory.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import replace
from math import copysign
from typing import TYPE_CHECKING

from ckpt.dtypes import itemsize
from ckpt.errors import PlanError
from ckpt.formats.distributed.chunks import Chunk, ChunkedTensor
from ckpt.formats.stream import tensor_bytes
from ckpt.io.composed import ExtendedSource
from ckpt.io.sources import CHUNK, ByteSource
from ckpt.rules.expressions import (
    Averaged,
    Cast,
    Copied,
    Expression,
    Filled,
    Joined,
    Merged,
    Narrowed,
    Permuted,
    Reshaped,
    Resized,
    Source,
    sources_of,
)
from ckpt.tensors import TensorEntry
from ckpt.writing.whole import averaged, resized, tensor_of

if TYPE_CHECKING:
    from torch import Tensor


class Derived:
    """A source, and the tensors that are made from it.

    Attributes:
        source: The bytes of the entries.
    """

    def __init__(self, source: ByteSource, entries: Mapping[str, TensorEntry]) -> None:
        self.source = ExtendedSource(source)
        self._entries = entries
        self._regions: dict[Hashable, TensorEntry] = {}  # tied tensors stay tied

    def entry(self, key: str, made_of: Expression) -> TensorEntry:
        """The entry of a tensor, under `key`."""
        return replace(self._entry(made_of), key=key)

    def _entry(self, made: Expression) -> TensorEntry:
        match made:
            case Source(key=key):
                return self._entries[key]
            case Permuted(of=inner, dims=dims):
                entry = self._entry(inner)
                steps = _steps(entry)
                return _view(entry, made.shape, [steps[dim] for dim in dims])
            case Narrowed(of=inner, dim=dim, start=start):
                entry = self._entry(inner)
                steps = _steps(entry)
                first = start * steps[dim] * itemsize(entry.dtype)
                moved = replace(entry, offset=(entry.offset or 0) + first)
                return _view(moved, made.shape, steps)
            case Reshaped(of=inner, shape=shape):
                return replace(self._contiguous(inner), shape=shape)
            case Joined(parts=parts, dim=dim):
                return self._joined(parts, dim, made)
            case Copied(of=inner):
                entry = self._entry(inner)
                return self._region(made, lambda: tensor_bytes(self.source, entry))
            case Merged(of=inner, other=other):
                entry = self._entry(inner)
                _expect_equal(self.source, entry, self._entry(other), made)
                return entry
            case Cast(of=inner):
                entry = self._entry(inner)
                return self._shared(made, entry, lambda: _cast(self.source, entry, made.dtype))
            case Averaged(of=inner, dim=dim):
                entry = self._entry(inner)
                return self._shared(made, entry, lambda: _average(self.source, entry, made), dim)
            case Resized(of=inner):
                entry = self._entry(inner)
                how = (made.old, made.new, made.mode, made.prefix, made.antialias)
                return self._shared(made, entry, lambda: _resize(self.source, entry, made), how)
        return self._region(made, lambda: _filled(made))

    def _contiguous(self, made: Expression) -> TensorEntry:
        """The entry, as a contiguous copy if it is strided."""
        entry = self._entry(made)
        if entry.stride is None:
            return entry
        return self._shared(made, entry, lambda: tensor_bytes(self.source, entry))

    def _joined(self, parts: tuple[Expression, ...], dim: int, whole: Joined) -> TensorEntry:
        chunks, position = [], 0
        entries = [self._contiguous(part) for part in parts]
        for part, entry in zip(parts, entries, strict=True):
            begin = (
                *(0 for _ in whole.shape[:dim]),
                position,
                *(0 for _ in whole.shape[dim + 1 :]),
            )
            chunks.append(Chunk(begin, part.shape, entry.offset or 0))
            position += part.shape[dim]
        made = TensorEntry("", whole.dtype, whole.shape, 0)
        if not made.nbytes:
            return made
        of = (
            *("joined", dim),
            *(
                # Tied tensors stay tied if all of them are padded with one value.
                part if isinstance(part, Filled) else (entry.offset, entry.shape)
                for part, entry in zip(parts, entries, strict=True)
            ),
        )
        if of not in self._regions:
            region = ChunkedTensor(self.source, whole.shape, itemsize(whole.dtype), chunks)
            self._regions[of] = replace(made, offset=self.source.add(region))
        return self._regions[of]

    def _shared(
        self,
        made: Expression,
        entry: TensorEntry,
        chunks: Callable[[], Iterator[bytes]],
        how: Hashable = None,
    ) -> TensorEntry:
        """A region that tensors made of the same elements, in the same way, share."""
        of = (made.dtype, made.shape, entry.dtype, entry.offset, entry.stride, how)
        if of not in self._regions:
            self._regions[of] = self._region(made, chunks)
        return self._regions[of]

    def _region(self, made: Expression, chunks: Callable[[], Iterator[bytes]]) -> TensorEntry:
        entry = TensorEntry("", made.dtype, made.shape, 0)
        return replace(entry, offset=self.source.add(_Made(entry.nbytes, chunks)))


class _Made:
    """Bytes that a function makes; a `ckpt.io.sources.Region`."""

    def __init__(self, nbytes: int, chunks: Callable[[], Iterator[bytes]]) -> None:
        self.nbytes = nbytes
        self._chunks = chunks

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        """See `Region.stream`; the bytes before the range are computed as well."""
        end, position = offset + nbytes, 0
        for chunk in self._chunks():
            first, position = position, position + len(chunk)
            if position > offset:
                yield chunk[max(offset - first, 0) : end - first]
            if position >= end:
                return


def _steps(entry: TensorEntry) -> list[int]:
    """The strides in elements, for a contiguous tensor too."""
    if entry.stride is not None:
        return list(entry.stride)
    steps, step = [], 1
    for count in reversed(entry.shape):
        steps.append(step)
        step *= max(count, 1)
    return steps[::-1]


def _view(entry: TensorEntry, shape: tuple[int, ...], steps: list[int]) -> TensorEntry:
    """The entry with another shape and other strides."""
    plain = replace(entry, shape=shape, stride=None)
    differ = any(
        count != 1 and step != usual
        for count, step, usual in zip(shape, steps, _steps(plain), strict=True)
    )
    return replace(plain, stride=tuple(steps)) if differ and plain.nbytes else plain


def _cast(source: ByteSource, entry: TensorEntry, dtype: str) -> Iterator[bytes]:
    """The elements in another dtype, rounded as torch does."""
    import torch

    old, new = getattr(torch, entry.dtype), getattr(torch, dtype)
    left = b""
    for chunk in tensor_bytes(source, entry):
        data = bytearray(left + chunk)
        whole = len(data) - len(data) % itemsize(entry.dtype)
        left = bytes(data[whole:])
        if whole:
            tensor = torch.frombuffer(data[:whole], dtype=old).to(new)
            yield tensor.view(torch.uint8).numpy().tobytes()


def _average(source: ByteSource, entry: TensorEntry, made: Averaged) -> Iterator[bytes]:
    if TensorEntry("", made.dtype, made.shape).nbytes:
        yield _bytes_of(averaged(tensor_of(source, entry), made))


def _resize(source: ByteSource, entry: TensorEntry, made: Resized) -> Iterator[bytes]:
    yield _bytes_of(resized(tensor_of(source, entry), made))


def _bytes_of(tensor: "Tensor") -> bytes:
    import torch

    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def _expect_equal(source: ByteSource, entry: TensorEntry, other: TensorEntry, made: Merged) -> None:
    size, differ = itemsize(entry.dtype), 0
    left, right, chunks = b"", b"", tensor_bytes(source, other)
    for chunk in tensor_bytes(source, entry):
        left += chunk
        whole = len(left) - len(left) % size
        while len(right) < whole:
            right += next(chunks)
        if left[:whole] != right[:whole]:
            import numpy as np

            one, two = (np.frombuffer(side[:whole], f"V{size}") for side in (left, right))
            differ += int((one != two).sum())
        left, right = left[whole:], right[whole:]
    if differ:
        names = [" and ".join(sources_of(each)) for each in (made.other, made.of)]
        raise PlanError(
            f"{names[0]} is not equal to {names[1]}: {differ:,} of {entry.numel:,} elements differ",
            hint=f"a rule that drops {names[0]} before the tie gives its values up",
        )


def _filled(made: Filled) -> Iterator[bytes]:
    element = bytes(itemsize(made.dtype))
    if made.value or copysign(1, made.value) < 0:
        import torch

        one = torch.full((1,), made.value, dtype=getattr(torch, made.dtype))
        element = one.view(torch.uint8).numpy().tobytes()
    left = TensorEntry("", made.dtype, made.shape).numel
    some = max(1, CHUNK // len(element))
    while left:
        count = min(left, some)
        yield element * count
        left -= count
