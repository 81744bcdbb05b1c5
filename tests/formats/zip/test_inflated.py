"""Compressed archives: read exactly, in bounded memory, or refused before they are inflated."""

import shutil
import struct
import subprocess
import zipfile
import zlib
from functools import cache
from io import BytesIO
from pathlib import Path
from zlib import crc32

import pytest
import torch

from ckpt.errors import FormatError
from ckpt.formats import open_checkpoint
from ckpt.formats.zip.inflated import Inflated, expect_proportion
from ckpt.formats.zip.reader import Member
from ckpt.io.sources import CHUNK
from tests.formats.support import Memory, contents, expected, loaded, opened, renamed, saved

STATE = {
    "weight": torch.randn(700_000),  # several chunks
    "view": torch.arange(100)[10:90:3],
    "half": torch.randn(5).half(),
    "nothing": torch.zeros(0),
}


def zipped(data: bytes, method: int = zipfile.ZIP_DEFLATED, *, folders: bool = False) -> bytes:
    """A torch file, unpacked and packed again."""
    out = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as old, zipfile.ZipFile(out, "w", method) as new:
        for name in (["archive/", "archive/data/"] if folders else []) + old.namelist():
            new.writestr(name, b"" if name.endswith("/") else old.read(name))
    return out.getvalue()


@cache
def deflated() -> bytes:
    return zipped(saved(STATE))


@pytest.mark.parametrize("folders", [False, True])
def test_fault_10_honest_archive_is_read_as_torch_does(folders: bool) -> None:
    data = zipped(saved(STATE), folders=folders)
    checkpoint = opened(data)
    assert contents(checkpoint) == expected(loaded(data)) == expected(STATE)
    assert list(checkpoint.spans) == [], "no tensor stands in the file as it is"


@pytest.mark.parametrize("effort", ["-1", "-6", "-9"])
def test_archive_of_the_zip_command_is_read(tmp_path: Path, effort: str) -> None:
    if shutil.which("zip") is None:
        pytest.skip("the command zip is not installed")
    with zipfile.ZipFile(BytesIO(saved(STATE))) as archive:
        archive.extractall(tmp_path)
    subprocess.run(["zip", "-q", "-r", effort, "a.pt", "archive"], cwd=tmp_path, check=True)
    assert contents(opened((tmp_path / "a.pt").read_bytes())) == expected(STATE)


def test_renamed_archive_is_stored_and_can_be_mapped(tmp_path: Path) -> None:
    path = tmp_path / "new.pt"
    path.write_bytes(renamed(deflated(), {"weight": "w"}))
    theirs = torch.load(path, weights_only=True, mmap=True)
    assert expected(theirs) == expected({"w" if k == "weight" else k: t for k, t in STATE.items()})


def test_any_range_is_that_of_the_whole() -> None:
    checkpoint = opened(deflated())
    entry = checkpoint.entries[0]
    assert entry.offset is not None
    whole = checkpoint.source.read(entry.offset, entry.nbytes)
    assert whole == contents(checkpoint)["weight"][2]
    for first, last in (
        (0, 1),
        (5, 9),
        (CHUNK - 3, CHUNK + 3),
        (CHUNK, 2 * CHUNK),
        (7, len(whole)),
    ):
        part = checkpoint.source.read(entry.offset + first, last - first)
        assert part == whole[first:last]
    chunks = list(checkpoint.source.stream(entry.offset, entry.nbytes))
    assert max(map(len, chunks)) <= CHUNK


def patched(
    data: bytes, name: bytes, *, size: int | None = None, crc32: int | None = None
) -> bytes:
    """The archive with another length or checksum of a member, in both of its headers."""
    new = bytearray(data)
    local, central = data.index(name) - 30, data.rindex(name) - 46
    for sum_at, size_at in ((local + 14, local + 22), (central + 16, central + 24)):
        if crc32 is not None:
            struct.pack_into("<I", new, sum_at, crc32)
        if size is not None:
            struct.pack_into("<I", new, size_at, size)
    return bytes(new)


RECORD = b"archive/data/0"


def test_wrong_checksum_is_found_as_it_is_read() -> None:
    checkpoint = opened(patched(deflated(), RECORD, crc32=1))
    with pytest.raises(FormatError, match="data/0: damaged: its CRC-32 differs"):
        contents(checkpoint)


def test_archive_without_checksum_is_read() -> None:
    assert contents(opened(patched(deflated(), RECORD, crc32=0))) == expected(STATE)


@pytest.mark.parametrize("nbytes", [2_799_996, 2_800_004])
def test_length_that_lies_is_refused(nbytes: int) -> None:
    with pytest.raises(FormatError, match=r"2,800,00. bytes|damaged"):
        contents(opened(patched(deflated(), RECORD, size=nbytes)))


def test_stream_that_ends_early_or_late_is_found() -> None:
    state = {"a": torch.arange(1000.0)}
    data = zipped(saved(state))
    with zipfile.ZipFile(BytesIO(data)) as archive:
        info = archive.getinfo(RECORD.decode())
    begin = info.header_offset + 30 + len(RECORD)
    for at in range(begin, begin + info.compress_size, 7):
        mutant = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        checkpoint = opened(mutant)
        with pytest.raises(FormatError, match="damaged"):
            contents(checkpoint)


def bomb(nbytes: int, count: int = 1) -> bytes:
    out = BytesIO()
    good = zipfile.ZipFile(BytesIO(saved({"a": torch.ones(3)})))
    with good as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        for number in range(count):
            new.writestr(f"archive/data/x{number}", bytes(nbytes))
    return out.getvalue()


@pytest.mark.parametrize(
    ("nbytes", "count"), [(50_000_000, 1), (1_000_000, 100)], ids=["one member", "many members"]
)
def test_fault_10_bomb_is_refused_before_it_is_inflated(nbytes: int, count: int) -> None:
    data = bomb(nbytes, count)
    source = Memory(data)
    with pytest.raises(FormatError, match=r"bytes that would expand to \d+") as refused:
        open_checkpoint(source)
    assert "zip -0" in (refused.value.hint or "")
    with zipfile.ZipFile(BytesIO(data)) as archive:
        first = min(i.header_offset for i in archive.infolist() if "/x" in i.filename)
        directory = archive.start_dir
    # Headers and the directory are read, and no data of the bomb.
    assert all(n < 200 for at, n in source.reads if first <= at < directory)


def test_fault_10_declared_size_beyond_the_file_is_refused() -> None:
    with pytest.raises(FormatError, match="bytes that would expand to"):
        opened(patched(deflated(), RECORD, size=2**31))


def test_zeros_are_read_where_they_are_few() -> None:
    state = {"weight": torch.randn(10), "zeros": torch.zeros(200_000)}
    assert contents(opened(zipped(saved(state)))) == expected(state)


def test_what_torch_does_not_inflate_is_refused() -> None:
    with pytest.raises(FormatError, match="method 12, which torch does not read"):
        opened(zipped(saved(STATE), zipfile.ZIP_BZIP2))


def packed(nbytes: int, of: int) -> Member:
    return Member("a/data/0", 0, of, nbytes, 0, 8)


@pytest.mark.parametrize(("nbytes", "of"), [(2**20, 1), (2_000_000, 20_000)])
def test_fault_10_member_expands_100_to_1_or_to_a_megabyte(nbytes: int, of: int) -> None:
    assert Inflated(Memory(b""), packed(nbytes, of)).nbytes == nbytes
    with pytest.raises(FormatError, match=f"{of:,} bytes that would expand to {nbytes + 1:,}"):
        Inflated(Memory(b""), packed(nbytes + 1, of))


@pytest.mark.parametrize(("total", "size"), [(2**26, 1), (100_000_000, 1_000_000)])
def test_fault_10_archive_expands_100_to_1_or_to_64_megabytes(total: int, size: int) -> None:
    members = [packed(total - 10, 1), packed(10, 1)]
    expect_proportion("file", members, size)
    with pytest.raises(FormatError, match=f"{size:,} bytes that would expand to {total + 1:,}"):
        expect_proportion("file", [*members, packed(1, 1)], size)


CONTENT = bytes(range(256)) * 10
_PACKER = zlib.compressobj(wbits=-15)
WITHOUT_END = _PACKER.compress(CONTENT) + _PACKER.flush(zlib.Z_SYNC_FLUSH)
WHOLE = WITHOUT_END + _PACKER.flush()


@pytest.mark.parametrize(
    ("packed", "nbytes", "says"),
    [
        (WHOLE, 2561, "inflates to 2,560 bytes, expected 2,561"),
        (WHOLE, 2559, "inflates to more than 2,559 bytes"),
        (WITHOUT_END, 2560, "inflates to 2,560 bytes, expected 2,560"),
        (WHOLE + b"x", 2560, "bytes after the end of the stream"),
        (b"", 2560, "inflates to 0 bytes, expected 2,560"),
    ],
    ids=["shorter", "longer", "without an end", "bytes behind", "nothing"],
)
def test_fault_10_content_and_stream_end_where_they_say(
    packed: bytes, nbytes: int, says: str
) -> None:
    whole = Inflated(Memory(WHOLE), Member("a/0", 0, len(WHOLE), 2560, crc32(CONTENT), 8))
    assert b"".join(whole.stream(0, 2560)) == CONTENT
    inflated = Inflated(Memory(packed), Member("a/0", 0, len(packed), nbytes, 0, 8))
    with pytest.raises(FormatError, match=f"^file: a/0: damaged: {says}"):
        list(inflated.stream(0, nbytes))
