"""The vocabulary: entries of a state_dict, and how a container's file is laid out.

Nothing here opens a file. Offsets and sizes are in bytes, strides in elements.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from ckpt.dtypes import itemsize


@dataclass(frozen=True, slots=True)
class Span:
    """A range of a container's file."""

    offset: int
    nbytes: int

    @property
    def end(self) -> int:
        """Offset of the first byte after the span."""
        return self.offset + self.nbytes


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One key of a state_dict with what is known of its tensor.

    Attributes:
        key: E.g. ``conv1.weight``.
        dtype: torch's spelling, e.g. ``bfloat16``.
        shape: E.g. ``(64, 32, 3, 3)``.
        offset: Where the first element lies in the container's file; None where there is
            no file (a definition, a version's manifest).
        stride: In elements, as torch has it; None for a contiguous (row-major) tensor.
        digest: SHA-256 of the contiguous little-endian bytes, where it is known.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    offset: int | None = None
    stride: tuple[int, ...] | None = None
    digest: str | None = None

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the contiguous tensor."""
        return prod(self.shape) * itemsize(self.dtype)

    @property
    def span(self) -> Span | None:
        """Where the tensor's bytes stand in the file as they are, if they do."""
        if self.offset is None or self.stride is not None:
            return None
        return Span(self.offset, self.nbytes)


@dataclass(slots=True)
class Summed:
    """A piece whose CRC-32 is noted as it is copied, for a layout that ends with checksums."""

    piece: "Span | TensorEntry"
    crc32: int = 0


@dataclass(frozen=True, slots=True)
class FileStart:
    """In the layout of a checkpoint of several files: here the next one begins."""

    name: str


# One piece of a file to be written: bytes as given, a span copied from the source, or the
# contiguous bytes of an entry of the source. A layout is consumed lazily and in order, so
# that it can use the checksum of a `Summed` piece that it has yielded before.
Piece = bytes | Span | TensorEntry | Summed
Layout = Iterable[Piece | FileStart]


def tensor_spans(entries: Iterable[TensorEntry]) -> list[Span]:
    """The disjoint spans that hold whole tensors, in file order.

    Tied tensors share a span. Of tensors that overlap in part the first keeps its span.
    Tensors of no bytes, and those that do not lie contiguously, have none.
    """
    candidates = set()  # (offset, -nbytes): of those that begin together the largest is first
    for entry in entries:
        nbytes = entry.nbytes
        if nbytes and entry.offset is not None and entry.stride is None:
            candidates.add((entry.offset, -nbytes))
    chosen: list[Span] = []
    end = 0
    for offset, negative in sorted(candidates):
        if offset >= end:
            chosen.append(Span(offset, -negative))
            end = offset - negative
    return chosen
