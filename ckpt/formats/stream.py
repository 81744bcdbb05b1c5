"""Writes layouts: the pieces of a source, streamed in bounded memory."""

from collections.abc import Iterator
from typing import BinaryIO

from ckpt.dtypes import itemsize
from ckpt.errors import FormatError
from ckpt.io.sources import CHUNK, ByteSource, Seen
from ckpt.tensors import FileStart, Layout, Span, Summed, TensorEntry

# A view may have more elements than there are bytes (stride 0, or strides that overlap); larger
# ones are refused.
MATERIALISED_LIMIT = 1 << 30  # bytes
GATHERED_BYTES = 1 << 26  # of a non-contiguous tensor, read at once where it can be divided


def write_layout(layout: Layout, source: ByteSource, out: BinaryIO) -> None:
    """Write the pieces in order; `Summed` pieces get their checksums."""
    for piece in layout:
        match piece:
            case bytes():
                out.write(piece)
            case Span() | TensorEntry():
                _copy(piece, source, out)
            case Summed():
                _copy(piece.piece, source, out, piece.add)
            case FileStart():
                raise ValueError(f"a layout of several files, {piece.name} among them, for one")


def layout_bytes(layout: Layout, source: ByteSource) -> Iterator[bytes]:
    """The bytes of one file, which `write_layout` writes, in chunks."""
    for piece in layout:
        match piece:
            case bytes():
                yield piece
            case Span():
                yield from source.stream(piece.offset, piece.nbytes)
            case TensorEntry():
                yield from tensor_bytes(source, piece)
            case Summed():
                for chunk in layout_bytes((piece.piece,), source):
                    piece.add(chunk)
                    yield chunk


def _copy(
    piece: Span | TensorEntry, source: ByteSource, out: BinaryIO, seen: Seen | None = None
) -> None:
    span = piece if isinstance(piece, Span) else piece.span
    if span is not None:
        source.copy(span.offset, span.nbytes, out, seen)
    elif isinstance(piece, TensorEntry):
        for chunk in tensor_bytes(source, piece):
            if seen is not None:
                seen(chunk)
            out.write(chunk)


def tensor_bytes(source: ByteSource, entry: TensorEntry) -> Iterator[bytes]:
    """The contiguous little-endian bytes of an entry of `source`, in chunks.

    Raises:
        FormatError: It is a view that is far larger than its bytes.
    """
    if entry.stride is None:
        return source.stream(entry.position, entry.nbytes)
    width = itemsize(entry.dtype)
    dimensions = _dimensions(entry.shape, entry.stride, width)
    reach = _reach(dimensions, width)
    if entry.nbytes > max(MATERIALISED_LIMIT, reach):
        raise FormatError(
            f"{source.name}: {entry.key}: a view that would expand to "
            f"{_binary(entry.nbytes)} from {reach:,} bytes"
        )
    return _gathered(source, entry.position, dimensions, width)


def reach_of(entry: TensorEntry) -> int:
    """Bytes from the start of an entry's first element to the end of its last one."""
    if entry.stride is None:
        return entry.nbytes
    width = itemsize(entry.dtype)
    return _reach(_dimensions(entry.shape, entry.stride, width), width)


def _dimensions(
    shape: tuple[int, ...], stride: tuple[int, ...], width: int
) -> list[tuple[int, int]]:
    """Counts and byte strides of a view that is not contiguous.

    A dimension of one element may have any stride, and numpy takes at most 64 dimensions.
    """
    pairs = zip(shape, stride, strict=True)
    return [(count, step * width) for count, step in pairs if count != 1]


def _gathered(
    source: ByteSource, offset: int, dimensions: list[tuple[int, int]], width: int
) -> Iterator[bytes]:
    """Elements of `width` bytes in row-major order; `dimensions` are counts and byte strides."""
    reach = _reach(dimensions, width)
    if dimensions and reach > GATHERED_BYTES:
        (count, step), *inner = dimensions
        if step >= _reach(inner, width):  # rows that do not interleave: a few at a time
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
    """Bytes from the start of the first element to the end of the last one."""
    return width + sum((count - 1) * step for count, step in dimensions)


def _binary(nbytes: int) -> str:
    """E.g. ``4 TiB``."""
    size, unit = float(nbytes), "bytes"
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        if size < 1024 or unit == "EiB":
            break
        size /= 1024
    return f"{size:,.3g} {unit}"
