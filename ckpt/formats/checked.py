"""A source that compares the records it reads with the checksums that their container states.

`torch.load` ignores these checksums; a copy of damaged bytes would lose the one that shows the
damage. Law: a record that was read whole, or was `finish`ed, has the CRC-32 that its container
states.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from ckpt.errors import FormatError
from ckpt.formats.checkpoint import Checksum
from ckpt.io import digest
from ckpt.io.rights import Rights
from ckpt.io.sources import ByteSource, Seen
from ckpt.tensors import TensorEntry

_NAMED = 3  # keys in a message


class CheckedSource(ByteSource):
    """A source whose ranges are compared with the checksums of its container.

    Args:
        source: The bytes.
        checksums: Of ranges of it.
        entries: The tensors, whose keys are in the error if a checksum differs.
    """

    def __init__(
        self, source: ByteSource, checksums: Iterable[Checksum], entries: Sequence[TensorEntry]
    ) -> None:
        self.name, self.size, self.parts = source.name, source.size, source.parts
        self._source, self._entries = source, entries
        self._waiting = {
            (checksum.span.offset, checksum.span.nbytes): checksum
            for checksum in checksums
            if checksum.crc32 is not None
        }

    @property
    def extent(self) -> int:
        return self._source.extent

    @property
    def rights(self) -> Rights:
        return self._source.rights

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        """The range in chunks.

        Raises:
            FormatError: The range is a record whose checksum differs.
        """
        stated = self._waiting.get((offset, nbytes))
        if stated is None:
            return self._source.stream(offset, nbytes)
        return self._checked(stated)

    def copy(self, offset: int, nbytes: int, out: BinaryIO, seen: Seen | None = None) -> None:
        stated = self._waiting.get((offset, nbytes))
        if stated is None:
            self._source.copy(offset, nbytes, out, seen)
            return
        crc32 = 0

        def add(chunk: bytes) -> None:
            nonlocal crc32
            crc32 = digest.crc32(chunk, crc32)
            if seen is not None:
                seen(chunk)

        self._source.copy(offset, nbytes, out, add)
        self._expect(stated, crc32)

    def mapped(self, offset: int, nbytes: int) -> memoryview | None:
        """The range is not checked."""
        return self._source.mapped(offset, nbytes)

    def finish(self, entries: Iterable[TensorEntry] | None = None) -> None:
        """Check the records that were not read whole.

        Args:
            entries: Only the records that hold these tensors; None for all.

        Raises:
            FormatError: A checksum differs.
        """
        if entries is None:
            for stated in list(self._waiting.values()):
                self._read_through(stated)
            return
        waiting = sorted(self._waiting.values(), key=lambda checksum: checksum.span.offset)
        begins = [checksum.span.offset for checksum in waiting]
        touched = set()
        for entry in entries:
            index = bisect_right(begins, entry.position) - 1
            if entry.nbytes and index >= 0 and entry.position < waiting[index].span.end:
                touched.add(index)
        for index in sorted(touched):
            self._read_through(waiting[index])

    def _read_through(self, stated: Checksum) -> None:
        for _ in self._checked(stated):
            pass

    def _checked(self, stated: Checksum) -> Iterator[bytes]:
        crc32 = 0
        for chunk in self._source.stream(stated.span.offset, stated.span.nbytes):
            crc32 = digest.crc32(chunk, crc32)
            yield chunk
        self._expect(stated, crc32)

    def _expect(self, stated: Checksum, crc32: int) -> None:
        expect_checksum(self.name, stated, crc32, self._entries)
        self._waiting.pop((stated.span.offset, stated.span.nbytes), None)


class ChecksumError(FormatError):
    """The bytes of a range do not have the checksum that its container states."""


def expect_checksum(
    name: str, stated: Checksum, crc32: int, entries: Iterable[TensorEntry]
) -> None:
    """Make sure that a range has the stated checksum.

    Args:
        name: Of the file, for messages.
        stated: The container's checksum.
        crc32: The actual one.
        entries: The tensors; the error names those that lie in the range.

    Raises:
        ChecksumError: The two differ.
    """
    if stated.crc32 is None or stated.crc32 == crc32:
        return
    span = stated.span
    # Every view lies in one record, so its first byte decides.
    keys = [e.key for e in entries if e.nbytes and span.offset <= e.position < span.end]
    named = ", ".join(keys[:_NAMED])
    if len(keys) > _NAMED:
        named += f" and {len(keys) - _NAMED:,} more keys"
    raise ChecksumError(
        f"{name}: {f'{named}: ' if keys else ''}{stated.what} is damaged: its CRC-32 is "
        f"{crc32:08x}, expected {stated.crc32:08x}",
        hint="fetch the file again",
    )
