"""A tensor that was saved in chunks, put together while it is read.

Each chunk is a box of the tensor, contiguous somewhere in the files. Law: the stream of all
bytes is the row-major tensor. Memory is bounded by a few rows, whatever the tensor's size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from ckpt.errors import FormatError
from ckpt.io.sources import CHUNK, ByteSource

_ROWS_BYTES = 16 * CHUNK  # put together at a time


@dataclass(frozen=True, slots=True)
class Chunk:
    """A box of a tensor: its start in each dimension, its shape, and the offset of its bytes."""

    begin: tuple[int, ...]
    shape: tuple[int, ...]
    offset: int


class ChunkedTensor:
    """A `ckpt.io.sources.Region`.

    Args:
        source: Holds the chunks.
        shape: Of the whole tensor.
        width: Bytes of an element.
        chunks: Boxes that fill it without overlap (`expect_filled`).
    """

    def __init__(
        self, source: ByteSource, shape: tuple[int, ...], width: int, chunks: Sequence[Chunk]
    ) -> None:
        self.nbytes = prod(shape) * width
        self._source, self._width, self._chunks = source, width, chunks
        # A scalar is one row.
        self._rows, self._row = (shape[0], shape[1:]) if shape else (1, ())
        self._row_nbytes = prod(self._row) * width

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        end = offset + nbytes
        count = max(1, _ROWS_BYTES // self._row_nbytes)
        first = offset // self._row_nbytes
        while first * self._row_nbytes < end:
            last = min(first + count, self._rows)
            rows = memoryview(self._together(first, last))
            begin = first * self._row_nbytes
            yield bytes(rows[max(offset - begin, 0) : end - begin])
            first = last

    def _together(self, first: int, last: int) -> bytearray:
        """The rows from `first` to `last`, exclusive."""
        import numpy as np

        together = bytearray((last - first) * self._row_nbytes)
        rows = np.frombuffer(together, np.uint8).reshape(last - first, *self._row, self._width)
        for chunk in self._chunks:
            begin, shape = chunk.begin or (0,), chunk.shape or (1,)
            top, bottom = max(first, begin[0]), min(last, begin[0] + shape[0])
            if top < bottom:
                row = prod(shape[1:]) * self._width
                data = self._source.read(
                    chunk.offset + (top - begin[0]) * row, (bottom - top) * row
                )
                box = tuple(
                    slice(at, at + count) for at, count in zip(begin[1:], shape[1:], strict=True)
                )
                part = np.frombuffer(data, np.uint8).reshape(bottom - top, *shape[1:], self._width)
                rows[(slice(top - first, bottom - first), *box)] = part
        return together


def expect_filled(where: str, shape: tuple[int, ...], chunks: Sequence[Chunk]) -> None:
    """Make sure that the chunks fill the tensor without overlap.

    Raises:
        FormatError: They do not.
    """
    for chunk in chunks:
        if len(chunk.begin) != len(shape) or len(chunk.shape) != len(shape):
            raise FormatError(f"{where}: a chunk of {len(chunk.shape)} dimensions")
        if any(
            at + count > whole
            for at, count, whole in zip(chunk.begin, chunk.shape, shape, strict=True)
        ):
            raise FormatError(f"{where}: a chunk lies outside the tensor")
    full = [chunk for chunk in chunks if prod(chunk.shape)]
    if sum(prod(chunk.shape) for chunk in full) != prod(shape):
        raise FormatError(f"{where}: the chunks do not fill it")
    # In the order of their first row, only chunks that have not ended can overlap the next one.
    open_chunks: list[Chunk] = []
    for chunk in sorted(full, key=lambda box: box.begin):
        open_chunks = [
            other for other in open_chunks if other.begin[0] + other.shape[0] > chunk.begin[0]
        ]
        if any(_overlap(other, chunk) for other in open_chunks):
            raise FormatError(f"{where}: two of its chunks overlap")
        open_chunks.append(chunk)


def _overlap(one: Chunk, other: Chunk) -> bool:
    return all(
        a < b + m and b < a + n
        for a, n, b, m in zip(one.begin, one.shape, other.begin, other.shape, strict=True)
    )
