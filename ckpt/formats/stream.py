"""Layouts become bytes here: pieces of a source, streamed in bounded memory."""

import zlib
from collections.abc import Iterator
from typing import BinaryIO

from ckpt.dtypes import itemsize
from ckpt.errors import FormatError
from ckpt.io.sources import CHUNK, ByteSource
from ckpt.tensors import FileStart, Layout, Span, Summed, TensorEntry

# A view may show more elements than there are bytes (stride 0, or strides that overlap); past
# this it is refused.
MATERIALISED_LIMIT = 1 << 30  # bytes
# Of tensors that do not lie contiguously, as much as is gathered at once where it can be parted.
GATHERED_BYTES = 1 << 26


def write_layout(layout: Layout, source: ByteSource, out: BinaryIO) -> None:
    """Write the pieces one after the other; the checksums of `Summed` pieces are noted."""
    for piece in layout:
        if isinstance(piece, bytes):
            out.write(piece)
        elif isinstance(piece, Summed):
            _write_summed(piece, source, out)
        elif isinstance(piece, Span):
            source.copy(piece.offset, piece.nbytes, out)
        elif isinstance(piece, FileStart):
            raise ValueError(f"a layout of several files, {piece.name} among them, for one")
        elif piece.span is not None:
            source.copy(piece.span.offset, piece.nbytes, out)
        else:
            for chunk in tensor_bytes(source, piece):
                out.write(chunk)


def _write_summed(summed: Summed, source: ByteSource, out: BinaryIO) -> None:
    def add(chunk: bytes) -> None:
        summed.crc32 = zlib.crc32(chunk, summed.crc32)

    piece = summed.piece
    span = piece if isinstance(piece, Span) else piece.span
    if span is not None:
        source.copy(span.offset, span.nbytes, out, add)
    else:
        assert isinstance(piece, TensorEntry)
        for chunk in tensor_bytes(source, piece):
            add(chunk)
            out.write(chunk)


def tensor_bytes(source: ByteSource, entry: TensorEntry) -> Iterator[bytes]:
    """The contiguous little-endian bytes of an entry of `source`, in chunks.

    Raises:
        FormatError: It is a view that would grow beyond all proportion.
    """
    if entry.span is not None:
        return source.stream(entry.span.offset, entry.nbytes)
    assert entry.offset is not None
    width, dimensions = itemsize(entry.dtype), _dimensions(entry)
    reach = _reach(dimensions, width)
    if entry.nbytes > max(MATERIALISED_LIMIT, reach):
        raise FormatError(
            f"{source.name}: {entry.key}: a view that would materialise "
            f"{_binary(entry.nbytes)} out of {reach:,} bytes"
        )
    return _gathered(source, entry.offset, dimensions, width)


def reach_of(entry: TensorEntry) -> int:
    """Bytes from the first of an entry's first element to the last of its last one."""
    if entry.stride is None:
        return entry.nbytes
    return _reach(_dimensions(entry), itemsize(entry.dtype))


def _dimensions(entry: TensorEntry) -> list[tuple[int, int]]:
    """Counts and byte strides of a view that is not contiguous.

    A dimension of one element may have any stride, and numpy takes no more than 64 of them.
    """
    assert entry.stride is not None
    width = itemsize(entry.dtype)
    return [
        (count, step * width)
        for count, step in zip(entry.shape, entry.stride, strict=True)
        if count != 1
    ]


def _gathered(
    source: ByteSource, offset: int, dimensions: list[tuple[int, int]], width: int
) -> Iterator[bytes]:
    """Elements of `width` bytes in row-major order; `dimensions` are counts and byte strides."""
    reach = _reach(dimensions, width)
    if dimensions and reach > GATHERED_BYTES:
        (count, step), *inner = dimensions
        if step >= _reach(inner, width):  # rows that do not interleave: some after the other
            block = max(1, GATHERED_BYTES // step)
            for first in range(0, count, block):
                rows = min(block, count - first)
                part = [(rows, step), *inner] if rows > 1 else inner
                yield from _gathered(source, offset + first * step, part, width)
            return
    import numpy as np

    view = np.lib.stride_tricks.as_strided(
        np.frombuffer(source.read(offset, reach), np.uint8),
        shape=(*(count for count, _ in dimensions), width),
        strides=(*(step for _, step in dimensions), 1),
        writeable=False,
    )
    some = max(1, CHUNK * len(view) // view.size)
    for first in range(0, len(view), some):
        yield view[first : first + some].tobytes()


def _reach(dimensions: list[tuple[int, int]], width: int) -> int:
    """Bytes from the first element's first to the last element's last."""
    return width + sum((count - 1) * step for count, step in dimensions)


def _binary(nbytes: int) -> str:
    """E.g. ``4 TiB``."""
    size, unit = float(nbytes), "bytes"
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        if size < 1024 or unit == "EiB":
            break
        size /= 1024
    return f"{size:,.3g} {unit}"
