"""Samples of tensors: some numbers of each, at the same places in tensors of one shape.

Two samples say whether one tensor was trained or cast from the other; one says whether equal bytes
prove anything, which zeros do not. A tensor that is contiguous in its file costs a few short reads.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log2
from typing import TYPE_CHECKING

from ckpt.compare.numbers import has_numbers, numbers, parts_of
from ckpt.dtypes import itemsize
from ckpt.formats.stream import tensor_bytes
from ckpt.opened.states import OpenedFile, OpenedState
from ckpt.tensors import TensorEntry

if TYPE_CHECKING:
    from ckpt.compare.numbers import Numbers

_BLOCKS, _BLOCK = 16, 64  # of elements; a smaller tensor is read whole
_COUNTED = 256  # elements at most of which the information is measured
# Of information in a tensor whose equal bytes are no accident: nine different numbers have 28.
_TELLING_BITS = 24.0


@dataclass(frozen=True, slots=True)
class Sample:
    """Some elements of one tensor, in order.

    Attributes:
        dtype: Of the tensor.
        data: Their bytes, little-endian.
    """

    dtype: str
    data: bytes

    @property
    def count(self) -> int:
        """How many numbers; two in a complex element."""
        return len(self.data) // itemsize(self.dtype) * parts_of(self.dtype)

    @property
    def numbers(self) -> "Numbers":
        """Their numbers; imports numpy."""
        return numbers(self.dtype, self.data)

    @property
    def tells(self) -> bool:
        """Whether equal bytes of such a tensor prove that it is the same; imports no numpy.

        Constant tensors, counters and rows of equal steps, such as positions, hold little
        information.
        """
        width = itemsize(self.dtype)
        elements = len(self.data) // width
        every = range(0, elements, max(1, elements // _COUNTED))
        values = [
            int.from_bytes(self.data[at * width : (at + 1) * width], "little") for at in every
        ]
        steps = [b - a for a, b in pairwise(values)]
        return min(_entropy(values), _entropy(steps)) * len(values) >= _TELLING_BITS


Samples = Mapping[str, Sample]


def samples_of(side: OpenedState, entries: Iterable[TensorEntry]) -> Samples:
    """The samples of some tensors, by key; none of those that are empty or hold no numbers.

    Raises:
        FormatError: A view would grow out of proportion.
        IntegrityError: An object of a version is missing or damaged.
    """
    return {
        entry.key: Sample(entry.dtype, b"".join(_read(side, entry)))
        for entry in entries
        if entry.numel and has_numbers(entry.dtype)
    }


def _entropy(values: Sequence[int]) -> float:
    """Bits a value, by how often each occurs."""
    shares = [count / len(values) for count in Counter(values).values()]
    return -sum(share * log2(share) for share in shares)


def _read(side: OpenedState, entry: TensorEntry) -> Iterator[bytes]:
    """The bytes of the sampled elements."""
    width, blocks = itemsize(entry.dtype), list(_blocks(entry.numel))
    if (
        isinstance(side, OpenedFile)
        and entry.span is not None
        and entry.span.end <= side.checkpoint.source.size  # bytes behind the end are computed
    ):
        for first, count in blocks:
            yield side.checkpoint.source.read(entry.position + first * width, count * width)
        return
    whole = (
        tensor_bytes(side.checkpoint.source, entry)
        if isinstance(side, OpenedFile)
        else side.source.stream_object(str(entry.digest), entry.nbytes)
    )
    ranges = iter([(first * width, (first + count) * width) for first, count in blocks])
    begin, end = next(ranges)
    at = 0
    for chunk in whole:  # to its end: the store has verified an object only then
        while begin < at + len(chunk):
            yield chunk[max(begin - at, 0) : end - at]
            if end > at + len(chunk):
                break
            begin, end = next(ranges, (entry.nbytes, entry.nbytes))
        at += len(chunk)


def _blocks(numel: int) -> Iterator[tuple[int, int]]:
    """(First element, count) of what is read of a tensor."""
    if numel <= _BLOCKS * _BLOCK:
        yield 0, numel
        return
    for number in range(_BLOCKS):
        yield (numel - _BLOCK) * number // (_BLOCKS - 1), _BLOCK
