"""How an object is put together from new bytes and from ranges of another one: pure.

Source: Amazon S3, "Multipart upload limits": parts of 5 MiB to 5 GiB, the last one may be smaller,
at most 10,000. Law: the parts, joined, are the pieces, joined.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ckpt.tensors import Span

LEAST = 5 << 20  # bytes of a part that is not the last
MOST = 5 << 30  # bytes of a part
MOST_PARTS = 10_000
_SENT = 16 << 20  # bytes that are sent as one part


@dataclass(frozen=True, slots=True)
class Sent:
    """A part that is sent: new bytes, and ranges of the source that go with them."""

    pieces: tuple[bytes | Span, ...]

    @property
    def nbytes(self) -> int:
        """Its size."""
        return sum(_length(piece) for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Copied:
    """A part that the store copies itself from a range of the source."""

    span: Span


def parts_of(
    pieces: Sequence[bytes | Span], *, least: int = LEAST, most: int = MOST
) -> list[Sent | Copied]:
    """Cut the pieces of a new object into parts, of which as few bytes as possible are sent.

    Args:
        pieces: The new object's bytes, in order; a span is one of the source.
        least: Bytes of a part that is not the last.
        most: Bytes of a part.
    """
    parts: list[Sent | Copied] = []
    held: list[bytes | Span] = []

    def flush() -> None:
        if held:
            parts.append(Sent(tuple(held)))
            held.clear()

    for piece in pieces:
        if isinstance(piece, bytes):
            if piece:
                held.append(piece)
            continue
        offset, end = piece.offset, piece.end
        sent = sum(map(_length, held))
        if sent < least and held:  # the rest of the part comes from the source, too
            offset = min(end, offset + least - sent)
            held.append(Span(piece.offset, offset - piece.offset))
        if end - offset >= least:
            flush()
            parts += map(Copied, _even(Span(offset, end - offset), most))
        elif end > offset:
            held.append(Span(offset, end - offset))
        if sum(map(_length, held)) >= max(_SENT, least):
            flush()
    flush()
    return parts if len(parts) <= MOST_PARTS else parts_of(pieces, least=2 * least, most=most)


def _even(span: Span, most: int) -> list[Span]:
    """A span in parts of nearly one size, each at most `most` bytes."""
    count = -(-span.nbytes // most)
    ends = [span.nbytes * part // count for part in range(count + 1)]
    return [Span(span.offset + a, b - a) for a, b in pairwise(ends)]


def _length(piece: bytes | Span) -> int:
    return len(piece) if isinstance(piece, bytes) else piece.nbytes
