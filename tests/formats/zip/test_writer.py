"""New archives beyond 4 GiB, where zip needs fields of 64 bits; zipfile and torch read them."""

import struct
import zipfile
from io import SEEK_CUR, SEEK_END, RawIOBase
from typing import cast
from zlib import crc32

import pytest
import torch

from ckpt.formats.opaque import LaidOut
from ckpt.formats.zip.reader import read_members
from ckpt.formats.zip.writer import NewMember, _end, lay_out_archive, length_of
from ckpt.io.sources import ByteSource
from ckpt.tensors import FileStart, Span, Summed, TensorEntry
from tests.formats.support import Zeros

VERSION = b"3\n"
MOST = 2**32 - 2  # the largest number that a field of 32 bits holds


class AsFile(RawIOBase):
    """A source as Python's libraries read files."""

    def __init__(self, source: ByteSource) -> None:
        self._source, self._at = source, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + {0: 0, SEEK_CUR: self._at, SEEK_END: self._source.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: object) -> int:
        into = memoryview(cast("bytearray", buffer))
        data = self._source.read(self._at, min(len(into), self._source.size - self._at))
        into[: len(data)] = data
        self._at += len(data)
        return len(data)


def archive_of(*sizes: int) -> LaidOut:
    """Members of zeros without checksums, and the one that torch expects."""
    members = [
        NewMember(f"a/data/{number}", nbytes, 0, Span(0, nbytes))
        for number, nbytes in enumerate(sizes)
    ]
    version = NewMember("a/version", len(VERSION), crc32(VERSION), VERSION)
    return LaidOut(Zeros(b""), lay_out_archive([*members, version]))


@pytest.mark.parametrize(
    "sizes",
    [(MOST, 1, 0), (MOST + 1, 1), (1, MOST + 1, MOST, 1), (2**33, 2**33, 5)],
    ids=["sizes fit", "one size too large", "sizes and places", "far beyond"],
)
def test_large_archive_is_read_by_zipfile_and_torch(sizes: tuple[int, ...]) -> None:
    source = archive_of(*sizes)
    members = read_members(source)
    names = [*(f"a/data/{number}" for number in range(len(sizes))), "a/version"]
    expected = [(name, n, n) for name, n in zip(names, (*sizes, len(VERSION)), strict=True)]
    assert [(each.name, each.nbytes, each.packed) for each in members] == expected
    archive = zipfile.ZipFile(AsFile(source))
    theirs = archive.infolist()
    assert [(each.filename, each.file_size, each.compress_size) for each in theirs] == expected
    assert archive.read("a/version") == VERSION
    reader = torch._C.PyTorchFileReader(AsFile(source))
    for member in members:
        assert reader.get_record_offset(member.name.removeprefix("a/")) == member.offset
        assert member.offset % 64 == 0


@pytest.mark.parametrize(
    ("number", "short", "long"),
    [(65_534, 65_534, 65_534), (65_535, 65_535, 65_535), (65_536, 65_535, 65_536),
     (2**32 - 1, 65_535, 2**32 - 1), (2**32, 65_535, 2**32)],
)  # fmt: skip
def test_end_records_state_what_fits(number: int, short: int, long: int) -> None:
    """Members, bytes and place of a directory; APPNOTE 4.3.14 to 4.3.16."""
    record = _end(number, number, number)
    wide = struct.unpack("<4sQHHII4Q", record[:56])
    assert wide == (b"PK\6\6", 44, 0x031E, 45, 0, 0, long, long, long, long)
    assert struct.unpack("<4sIQI", record[56:76]) == (b"PK\6\7", 0, 2 * number, 1)
    most = min(number, 2**32 - 1)
    assert struct.unpack("<4s4H2IH", record[76:]) == (
        *(b"PK\5\6", 0, 0, short, short, most, most, 0),
    )


def test_checksum_that_nobody_computes_is_a_mistake() -> None:
    member = NewMember("a", 1, None, b"x")
    with pytest.raises(ValueError, match="nobody computes its CRC-32"):
        list(lay_out_archive([member]))


def test_pieces_take_their_bytes() -> None:
    entry = TensorEntry("a", "float32", (3,), 0)
    pieces = [b"abc", Span(7, 4), entry, Summed(entry), FileStart("x")]
    assert [length_of(piece) for piece in pieces] == [3, 4, 12, 12, 0]
