"""A compressed member of a zip archive, inflated as it is read.

Source: APPNOTE.TXT 6.3.10, 4.4.5: method 8 is a raw DEFLATE stream (RFC 1951). torch does not
compress its records; `zip -r` does, and torch still reads them. Law: the content has the length
and the CRC-32 that the directory states, or the read fails.
"""

import zlib
from collections.abc import Iterable, Iterator

from ckpt.errors import FormatError
from ckpt.formats.zip.reader import Member
from ckpt.io import digest
from ckpt.io.sources import CHUNK, ByteSource

STORED, DEFLATED = 0, 8
# DEFLATE reaches 1,032 to 1. Weights reach 10 to 1, unless they are zeros.
RATIO_LIMIT = 100
FREE_BYTES = 1 << 20  # allowed at any ratio to a member, and 64 times as many to an archive
HINT = "unzip it, and zip it again without compression:  zip -0 -r"


class Inflated:
    """The content of a member; a `ckpt.io.sources.Region`.

    Args:
        source: The archive.
        member: A compressed one.

    Raises:
        FormatError: It is compressed by another method, or more than `RATIO_LIMIT` to 1.
    """

    def __init__(self, source: ByteSource, member: Member) -> None:
        self.nbytes = member.nbytes
        self._source, self._member = source, member
        self._name = f"{source.name}: {member.name}"
        if member.method != DEFLATED:
            raise FormatError(
                f"{self._name}: compressed by method {member.method}, which torch does not read",
                hint=HINT,
            )
        if member.nbytes > max(FREE_BYTES, RATIO_LIMIT * member.packed):
            raise FormatError(
                f"{self._name}: {member.packed:,} bytes that would expand to {member.nbytes:,}",
                hint=f"weights rarely compress {RATIO_LIMIT} to 1; if these do,  {HINT}",
            )

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        """The range in chunks; the bytes before it are inflated as well."""
        end, position = offset + nbytes, 0
        for chunk in self._inflated():
            first, position = position, position + len(chunk)
            if position > offset:
                yield chunk[max(offset - first, 0) : end - first]
            if end <= position < self.nbytes:
                return

    def _inflated(self) -> Iterator[bytes]:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        length = crc32 = 0
        packed = self._source.stream(self._member.offset, self._member.packed)
        try:
            for chunk in _decompressed(inflater, packed):
                length, crc32 = length + len(chunk), digest.crc32(chunk, crc32)
                if length > self.nbytes:
                    raise self._damaged(f"inflates to more than {self.nbytes:,} bytes")
                if length == self.nbytes and self._member.crc32 not in (0, crc32):
                    raise self._damaged("its CRC-32 differs")
                yield chunk
        except zlib.error as error:
            raise self._damaged(str(error)) from error
        if not inflater.eof or length != self.nbytes:
            raise self._damaged(f"inflates to {length:,} bytes, expected {self.nbytes:,}")

    def _damaged(self, why: str) -> FormatError:
        return FormatError(f"{self._name}: damaged: {why}", hint="fetch the file again")


def _decompressed(inflater: "zlib._Decompress", packed: Iterable[bytes]) -> Iterator[bytes]:
    """The content in chunks of bounded size, whatever the ratio."""
    for data in packed:
        while data or not inflater.eof:
            chunk = inflater.decompress(data, CHUNK)
            data = inflater.unconsumed_tail
            if inflater.unused_data:
                raise zlib.error("bytes after the end of the stream")
            if chunk:
                yield chunk
            if len(chunk) < CHUNK:
                break


def expect_proportion(name: str, members: Iterable[Member], size: int) -> None:
    """Make sure that all members together expand at most `RATIO_LIMIT` to 1.

    Args:
        name: Of the file, for messages.
        members: Compressed ones.
        size: Of the file, in bytes.

    Raises:
        FormatError: They expand further.
    """
    total = sum(member.nbytes for member in members)
    if total > max(64 * FREE_BYTES, RATIO_LIMIT * size):
        raise FormatError(f"{name}: {size:,} bytes that would expand to {total:,}", hint=HINT)
