"""Layouts become bytes here: pieces of a source, streamed in bounded memory."""

import zlib
from collections.abc import Iterator
from typing import BinaryIO

from ckpt.dtypes import itemsize
from ckpt.errors import FormatError
from ckpt.files import ByteSource
from ckpt.tensors import Layout, Span, Summed, TensorEntry

# A view may show more elements than there are bytes (stride 0); past this it is refused.
MATERIALISED_LIMIT = 1 << 30  # bytes


def write_layout(layout: Layout, source: ByteSource, out: BinaryIO) -> None:
    """Write the pieces one after the other; the checksums of `Summed` pieces are noted."""
    for piece in layout:
        if isinstance(piece, Summed):
            for chunk in _chunks(piece.piece, source):
                piece.crc32 = zlib.crc32(chunk, piece.crc32)
                out.write(chunk)
        else:
            for chunk in _chunks(piece, source):
                out.write(chunk)


def _chunks(piece: bytes | Span | TensorEntry, source: ByteSource) -> Iterator[bytes]:
    if isinstance(piece, bytes):
        return iter((piece,))
    if isinstance(piece, Span):
        return source.stream(piece.offset, piece.nbytes)
    return tensor_bytes(source, piece)


def tensor_bytes(source: ByteSource, entry: TensorEntry) -> Iterator[bytes]:
    """The contiguous little-endian bytes of an entry of `source`, in chunks.

    Raises:
        FormatError: It is a view that would grow beyond all proportion.
    """
    if entry.span is not None:
        return source.stream(entry.span.offset, entry.nbytes)
    return iter((_gathered(source, entry),))


def _gathered(source: ByteSource, entry: TensorEntry) -> bytes:
    """A tensor that does not lie contiguously, made contiguous."""
    assert entry.offset is not None
    assert entry.stride is not None
    width = itemsize(entry.dtype)
    reach = 1 + sum((n - 1) * step for n, step in zip(entry.shape, entry.stride, strict=True))
    if entry.nbytes > max(MATERIALISED_LIMIT, reach * width):
        raise FormatError(
            f"{source.name}: {entry.key}: a view that would materialise "
            f"{entry.nbytes / 2**40:,.2f} TiB out of {reach * width:,} bytes"
        )
    import numpy as np

    data = np.frombuffer(source.read(entry.offset, reach * width), np.uint8)
    view = np.lib.stride_tricks.as_strided(
        data,
        shape=(*entry.shape, width),
        strides=(*(step * width for step in entry.stride), 1),
        writeable=False,
    )
    return view.tobytes()
