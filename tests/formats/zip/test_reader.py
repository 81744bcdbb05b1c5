"""The zip container: what could be read in two ways is refused."""

import struct
import zipfile
from collections.abc import Callable, Iterable
from io import BytesIO
from zlib import crc32

import pytest
import torch

from ckpt.errors import FormatError
from ckpt.formats.opaque import LaidOut
from ckpt.formats.zip.reader import read_members
from ckpt.tensors import Span
from tests.formats.support import Memory, Zeros, contents, expected, loaded, opened, saved

STATE = {"a": torch.arange(100.0), "b": torch.ones(3, dtype=torch.uint8)}
GOOD = saved(STATE)
END = len(GOOD) - 22
END64 = END - 20 - 56
CENTRAL = int.from_bytes(GOOD[END + 16 : END + 20], "little")
SECOND = GOOD.index(b"PK\x01\x02", CENTRAL + 4)
SIZE = int.from_bytes(GOOD[CENTRAL + 24 : CENTRAL + 28], "little")
FIRST_END = 30 + sum(struct.unpack_from("<HH", GOOD, 26)) + SIZE


def patched(offset: int, kind: str, value: int | bytes) -> bytes:
    data = bytearray(GOOD)
    struct.pack_into(f"<{kind}", data, offset, value)
    return bytes(data)


def without_zip64() -> bytes:
    """The same archive with the short end record alone."""
    return GOOD[:END64] + GOOD[END:]


def inserted(at: int, data: bytes) -> bytes:
    """Bytes between the members and the directory, whose end records follow."""
    begin, size = CENTRAL + len(data), END64 - CENTRAL
    count = struct.unpack_from("<H", GOOD, END + 10)[0]
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, size, begin, 0)
    return GOOD[:at] + data + GOOD[at:END64] + end


def rewritten(**options: object) -> bytes:
    """The same records, written by Python's zipfile."""
    out = BytesIO()
    with zipfile.ZipFile(BytesIO(GOOD)) as old, zipfile.ZipFile(out, "w", **options) as new:  # type: ignore[call-overload]
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return out.getvalue()


def doubled() -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a/data.pkl", b"one")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/data.pkl", b"two")
    return out.getvalue()


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "local name differs": (lambda: patched(30, "s", b"X"), "its two headers differ in name"),
    "local name is longer": (lambda: patched(26, "H", 17), "its two headers differ in name"),
    "local name is shorter": (lambda: patched(26, "H", 13), "its two headers differ in name"),
    "central name differs": (lambda: patched(CENTRAL + 46, "s", b"X"), "differ in name"),
    "local magic": (lambda: patched(2, "B", 0), "neither a torch file"),
    "central magic": (lambda: patched(CENTRAL, "B", 0), "its directory is damaged"),
    "duplicate": (doubled, "two members have the same name"),
    "encrypted": (lambda: patched(CENTRAL + 8, "H", 0x0809), "data.pkl: encrypted"),
    "encrypted in the local header": (lambda: patched(6, "H", 0x0809), "two headers differ"),
    "strong encryption": (lambda: patched(CENTRAL + 8, "H", 0x0848), "flags 0x0848"),
    "masked header": (lambda: patched(CENTRAL + 8, "H", 0x2808), "flags 0x2808"),
    "patched data": (lambda: patched(CENTRAL + 8, "H", 0x0828), "flags 0x0828"),
    "bzip2": (lambda: rewritten(compression=zipfile.ZIP_BZIP2), "compressed by method 12"),
    "local method differs": (lambda: patched(8, "H", 8), "two headers differ"),
    "prefix": (lambda: b"PK\x03\x04" + bytes(60) + GOOD, "zip archive"),
    "trailing byte": (lambda: GOOD + b"\0", "does not end like a zip archive"),
    "trailing archive": (lambda: GOOD + GOOD, "its zip64 end record is not at the stated offset"),
    "comment": (lambda: patched(END + 20, "H", 1) + b"x", "does not end like a zip archive"),
    "bytes before the directory": (
        lambda: inserted(CENTRAL, bytes(8)), "24 bytes after it belong to no member"
    ),
    "other descriptor": (
        lambda: patched(GOOD.index(b"PK\x07\x08") + 8, "I", 7),
        "bytes after it belong to no member",
    ),
    "first member not at the start": (
        lambda: patched(CENTRAL + 42, "I", 2), "2 bytes before its first member"
    ),
    "second member inside the first": (
        lambda: patched(SECOND + 42, "I", 100),
        f"data.pkl: ends at byte {FIRST_END:,}, the next one begins at 100",
    ),
    "second member inside the first's header": (
        lambda: patched(SECOND + 42, "I", 10), "data.pkl: no room for its header"
    ),
    "member past the directory": (
        lambda: patched(SECOND + 42, "I", END),
        "archive/.format_version: begins after the last member",
    ),
    "size past the end": (
        lambda: both_sizes(2**31), "ends at byte"
    ),
    "stored and yet of two sizes": (
        lambda: patched(CENTRAL + 20, "I", 5), f"stored, but {SIZE:,} bytes take 5"
    ),
    "stored and yet expanded": (
        lambda: patched(CENTRAL + 20, "I", 5000), f"stored, but {SIZE:,} bytes take 5,000"
    ),
    "comment of a member": (lambda: patched(CENTRAL + 32, "H", 1), "its directory is damaged"),
    "member on another disk": (lambda: patched(CENTRAL + 34, "H", 1), "its directory is damaged"),
    "name beyond the directory": (
        lambda: patched(CENTRAL + 28, "H", 60_000), "its directory is damaged"
    ),
    "64-bit sizes that are missing": (
        lambda: both_sizes(2**32 - 1), "its 64-bit sizes are missing"
    ),
    "directory elsewhere": (
        lambda: patched(END64 + 48, "Q", CENTRAL - 1),
        f"its directory ends at byte {END64 - 1:,}, expected {END64:,}",
    ),
    "directory a byte later": (
        lambda: patched(END64 + 48, "Q", CENTRAL + 1),
        f"its directory ends at byte {END64 + 1:,}, expected {END64:,}",
    ),
    "directory larger than the file": (
        lambda: patched(END64 + 40, "Q", 2**63), "its directory ends at byte"
    ),
    "zip64 record elsewhere": (
        lambda: patched(END - 12, "Q", 0), "its zip64 end record is not at the stated offset"
    ),
    "zip64 record a byte later": (
        lambda: patched(END - 12, "Q", END64 + 1), "record is not at the stated offset"
    ),
    "zip64 record on another disk": (
        lambda: patched(END - 16, "I", 1), "record is not at the stated offset"
    ),
    "two disks": (lambda: patched(END - 4, "I", 2), "record is not at the stated offset"),
    "longer zip64 record": (
        lambda: patched(END64 + 4, "Q", 45), "its zip64 end record is damaged"
    ),
    "shorter zip64 record": (
        lambda: patched(END64 + 4, "Q", 43), "its zip64 end record is damaged"
    ),
    "zip64 record damaged": (
        lambda: patched(END64, "B", 0), "its zip64 end record is damaged"
    ),
    "more members than lines": (
        lambda: counts(100), "members in a directory"
    ),
    "one member more than lines": (
        lambda: counts(len(zipfile.ZipFile(BytesIO(GOOD)).infolist()) + 1),
        "its directory is truncated",
    ),
    "no members": (
        lambda: GOOD[:CENTRAL] + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0, 0, 0, CENTRAL, 0),
        "0 folders, expected one",
    ),
    "fewer members than lines": (lambda: counts(1), "bytes after its last member"),
    "several disks": (lambda: patched(END64 + 16, "I", 1), "of several parts"),
    "directory on another disk": (lambda: patched(END64 + 20, "I", 1), "of several parts"),
    "fewer members on this disk": (lambda: patched(END64 + 24, "Q", 1), "of several parts"),
    "more members on this disk": (lambda: patched(END64 + 24, "Q", 99), "of several parts"),
    "name that is no utf-8": (lambda: patched(CENTRAL + 46, "s", b"\xff"), "is not UTF-8"),
    "name with a nul": (lambda: patched(CENTRAL + 47, "s", b"\0"), "not a valid name of a member"),
    "name with a backslash": (
        lambda: renamed("data/1", "data\\1"), "not a valid name of a member"
    ),
    "end record alone": (lambda: GOOD[-22:], "zip archive without the data.pkl"),
}  # fmt: skip


def both_sizes(nbytes: int) -> bytes:
    """The first member's sizes in the directory, changed alike."""
    return GOOD[: CENTRAL + 20] + struct.pack("<II", nbytes, nbytes) + GOOD[CENTRAL + 28 :]


def counts(count: int) -> bytes:
    """The number of members in the zip64 end record."""
    return GOOD[: END64 + 24] + struct.pack("<QQ", count, count) + GOOD[END64 + 40 :]


def renamed(record: str, name: str) -> bytes:
    """Another name of the same length, in both headers."""
    return GOOD.replace(f"archive/{record}".encode(), f"archive/{name}".encode())


def with_zip64(extra: bytes) -> bytes:
    """The first member's sizes in these extra fields of the directory alone."""
    line = bytearray(GOOD[CENTRAL:SECOND])
    struct.pack_into("<II", line, 20, 2**32 - 1, 2**32 - 1)
    struct.pack_into("<H", line, 30, len(extra))
    grown = GOOD[:CENTRAL] + bytes(line) + extra + GOOD[SECOND:END64]
    count = struct.unpack_from("<H", GOOD, END + 10)[0]
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(grown) - CENTRAL, CENTRAL, 0)
    return grown + end


SIZES = struct.pack("<QQ", SIZE, SIZE)
FIELD, TIME = b"\1\0\x10\0" + SIZES, b"UT\5\0\1abcd"
ZIP64 = {
    "alone": FIELD,
    "behind another": TIME + FIELD,
    "before others": FIELD + TIME + TIME,
    "with a place": b"\1\0\x18\0" + SIZES + bytes(8),
    "twice": FIELD + b"\1\0\x10\0" + struct.pack("<QQ", 9, 9),
}
NO_ZIP64 = {
    "no field": b"",
    "another field": TIME,
    "short fields": b"\1\0\x08\0" + SIZES[:8] + FIELD,
    "seven bytes": b"\1\0\x0f\0" + SIZES,
    "cut off": FIELD[:-1],
    "cut off at its length": TIME + FIELD[:3],
}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (bytes(21), "21 bytes, not a zip archive"),
        (bytes(22), "does not end like a zip archive"),
        (GOOD[-42:], "its zip64 end record is not at the stated offset"),
    ],
    ids=["short", "no end", "locator alone"],
)
def test_fault_09_few_bytes_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(FormatError, match=f"^file: {says}"):
        read_members(Memory(data))


def test_ends_of_an_archive_without_members_and_of_no_disks_are_read() -> None:
    assert read_members(Memory(b"PK\5\6" + bytes(18))) == []
    assert read_members(Memory(patched(END - 4, "I", 0))) == read_members(Memory(GOOD))


@pytest.mark.parametrize("name", ZIP64)
def test_64_bit_sizes_are_those_that_zipfile_finds(name: str) -> None:
    data = with_zip64(ZIP64[name])
    theirs = zipfile.ZipFile(BytesIO(data)).infolist()
    found = read_members(Memory(data))
    assert [(it.nbytes, it.packed) for it in found] == [
        (it.file_size, it.compress_size) for it in theirs
    ]
    assert found[0].nbytes == SIZE


@pytest.mark.parametrize("name", NO_ZIP64)
def test_fault_09_missing_64_bit_sizes_are_refused(name: str) -> None:
    with pytest.raises(FormatError, match=r"archive/data\.pkl: its 64-bit sizes are missing"):
        read_members(Memory(with_zip64(NO_ZIP64[name])))


@pytest.mark.parametrize(
    ("at", "kind", "value"),
    [
        *((14, "I", 0), (14, "I", 2**32 - 1), (18, "I", 9), (22, "I", 9)),
        *((6, "H", 0x0800), (6, "H", 2), (8, "H", 8)),
    ],
)
def test_fault_09_local_header_without_descriptor_agrees(at: int, kind: str, value: int) -> None:
    """Its checksum, sizes, flags and method, as zipfile writes them."""
    data = bytearray(rewritten())
    assert len(read_members(Memory(bytes(data)))) > 1
    struct.pack_into(f"<{kind}", data, at, value)
    with pytest.raises(FormatError, match="its two headers differ"):
        read_members(Memory(bytes(data)))


DESCRIPTORS = {
    "short": "<III", "marked": "<4sIII", "long": "<IQQ", "long and marked": "<4sIQQ",
}  # fmt: skip


def described(kind: str, *sums: int, flags: int = 8) -> bytes:
    """An archive of one member with three bytes and a descriptor behind them."""
    named = struct.pack("<HH", 1, 0) + b"a"
    stated = struct.pack("<5H3I", 20, flags, 0, 0, 0, crc32(b"xyz"), 3, 3)
    mark = [b"PK\7\x08"] if "s" in kind else []
    data = b"PK\3\4" + stated + named + b"xyz" + struct.pack(kind, *mark, *sums)
    line = b"PK\1\2" + struct.pack("<H", 20) + stated + struct.pack("<HHHHHII", 1, *[0] * 6) + b"a"
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(line), len(data), 0)
    return data + line + end


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_descriptor_has_one_of_four_forms_and_repeats_the_sums(name: str) -> None:
    """APPNOTE 4.3.9."""
    kind, sums = DESCRIPTORS[name], (crc32(b"xyz"), 3, 3)
    data = described(kind, *sums)
    assert zipfile.ZipFile(BytesIO(data)).read("a") == b"xyz"
    (member,) = read_members(Memory(data))
    assert data[member.offset :][: member.nbytes] == b"xyz"
    wrong = [(sums[0] ^ 1, 3, 3), (sums[0], 2, 3), (sums[0], 3, 4)]
    for bad in (described(kind, *sums, flags=0), *(described(kind, *it) for it in wrong)):
        with pytest.raises(FormatError, match=r"a: \d\d bytes after it belong to no member"):
            read_members(Memory(bad))


@pytest.mark.parametrize("name", REFUSED)
def test_fault_09_ambiguous_archive_is_refused(name: str) -> None:
    make, says = REFUSED[name]
    with pytest.raises(FormatError) as refused:
        opened(make())
    assert says in str(refused.value)
    assert str(refused.value).startswith("file: ")
    assert refused.value.exit_code == 3


@pytest.mark.parametrize(
    ("count", "nbytes", "says"),
    [
        (999_999, 999_999 * 46, "its directory is damaged"),
        (1_000_000, 1_000_000 * 46, "1,000,000 members in a directory of 46,000,000 bytes"),
        (2, 2 * 46, "its directory is damaged"),
        (2, 2 * 46 - 1, "2 members in a directory of 91 bytes"),
        (2, 2**28, "its directory is damaged"),
        (2, 2**28 + 1, "2 members in a directory of 268,435,457 bytes"),
    ],
)
def test_fault_09_directory_has_limits(count: int, nbytes: int, says: str) -> None:
    """Its content, here zeros, is looked at only within them."""
    record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, nbytes, 0)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, nbytes, 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    with pytest.raises(FormatError, match=f"^file: {says}"):
        read_members(LaidOut(Zeros(b""), [Span(0, nbytes), record, locator, end]))


@pytest.mark.parametrize(
    "make", [lambda: GOOD, without_zip64, rewritten], ids=["torch", "no zip64", "zipfile"]
)
def test_members_are_where_zipfile_finds_them(make: Callable[[], bytes]) -> None:
    data = make()
    with zipfile.ZipFile(BytesIO(data)) as archive:
        expected = [(each.filename, archive.read(each), each.CRC) for each in archive.infolist()]
    members = read_members(Memory(data))
    assert [
        (each.name, data[each.offset : each.offset + each.nbytes], each.crc32) for each in members
    ] == expected


def test_fault_19_truncated_anywhere_is_refused() -> None:
    for end in range(len(GOOD)):
        with pytest.raises(FormatError):
            opened(GOOD[:end])


def smuggled(*members: tuple[str, bytes], first: bool = False, attributes: int = 0) -> bytes:
    """The good archive as zipfile writes it, with other members before or after its own."""
    out = BytesIO()
    with zipfile.ZipFile(BytesIO(GOOD)) as old, zipfile.ZipFile(out, "w") as new:
        own = [(name, old.read(name)) for name in old.namelist()]
        for name, data in [*members, *own] if first else [*own, *members]:
            info = zipfile.ZipInfo(name)
            info.external_attr = attributes if (name, data) in members else 0
            new.writestr(info, data)
    return out.getvalue()


OTHER = saved({"other": STATE["a"]})
with zipfile.ZipFile(BytesIO(OTHER)) as archive:
    PICKLE = archive.read("archive/data.pkl")


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "name", ["archive/DATA.PKL", "archive/Data/0", "archive/dAtA/1", "archive/VERSION"]
)
def test_names_that_differ_in_case_alone_are_refused(name: str, first: bool) -> None:
    with pytest.raises(FormatError, match="the same name if case is ignored, as torch does"):
        opened(smuggled((name, PICKLE), first=first))


def test_short_name_twice_is_refused() -> None:
    """CPython has one object for each text of one character."""
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as new:
        new.writestr("a", b"")
        with pytest.warns(UserWarning, match="Duplicate"):
            new.writestr("a", b"")
    with pytest.raises(FormatError, match="two members have the same name"):
        read_members(Memory(out.getvalue()))


def test_torch_takes_another_member_for_its_case() -> None:
    """The reason: `DATA.PKL` is the pickle that torch reads, by its place in a binary search."""
    kept = ("data.pkl", "byteorder", "data/0", "version")
    with zipfile.ZipFile(BytesIO(GOOD)) as old:
        records = [("DATA.PKL", PICKLE), *((name, old.read(f"archive/{name}")) for name in kept)]
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as new:
        for name, data in records:
            new.writestr(f"archive/{name}", data)
    assert list(loaded(out.getvalue())) == ["other"]
    with pytest.raises(FormatError, match="the same name if case is ignored, as torch does"):
        opened(out.getvalue())


@pytest.mark.parametrize("record", ["data.pkl", "byteorder", "version", ".format_version"])
def test_record_in_other_case_is_refused(record: str) -> None:
    data = renamed(record, record.upper())
    assert len(loaded(data)) == len(STATE), "torch reads it"
    with pytest.raises(FormatError, match=f"{record.upper()}: torch reads it as {record}"):
        opened(data)


def test_other_case_of_byteorder_would_swap_bytes() -> None:
    data = renamed("byteorder", "BYTEORDER").replace(b"little", b"big   ")
    assert b"BYTEORDER" in data
    with pytest.raises(FormatError, match="torch reads it as byteorder"):
        opened(data)


def test_member_that_is_a_folder_too_is_refused() -> None:
    with pytest.raises(FormatError, match="x: both a folder and a file"):
        opened(smuggled(("archive/x", b""), attributes=0x10))
    with pytest.raises(FormatError, match="x/: both a folder and a file"):
        opened(smuggled(("archive/x/", b"data")))


def test_attribute_of_a_folder_on_a_storage_is_refused() -> None:
    data = bytearray(rewritten())
    line = data.rindex(b"archive/data/0") - 46
    data[line + 38] |= 0x10  # torch returns uninitialised memory for it
    with pytest.raises(FormatError, match="data/0: both a folder and a file"):
        opened(bytes(data))


@pytest.mark.parametrize("first", [True, False])
def test_folders_of_the_zip_command_are_read_as_torch_does(first: bool) -> None:
    data = smuggled(("archive/", b""), ("archive/data/", b""), first=first, attributes=0x10)
    assert contents(opened(data)) == expected(loaded(data)) == expected(STATE)


def test_second_folder_is_refused() -> None:
    """torch takes the folder of the member that the directory lists first."""
    for name in ("Archive/data.pkl", "other/data.pkl", "data.pkl", "/archive/data.pkl"):
        with pytest.raises(FormatError, match=r"2 folders|same name"):
            opened(smuggled((name, PICKLE)))


def test_descriptor_that_no_header_announces_is_refused() -> None:
    """Python's zipfile writes sizes into the headers, and no descriptors."""
    data = rewritten()
    last = zipfile.ZipFile(BytesIO(data)).infolist()[-1]
    end = data.rindex(b"PK\x05\x06")
    (central,) = struct.unpack_from("<I", data, end + 16)
    sums = struct.pack("<4sIII", b"PK\x07\x08", last.CRC, last.compress_size, last.file_size)
    moved = struct.pack("<IH", central + len(sums), 0)
    with pytest.raises(FormatError, match="16 bytes after it belong to no member"):
        opened(data[:central] + sums + data[central : end + 16] + moved)


@pytest.mark.parametrize("attributes", [0x01, 0x02, 0x04, 0x08, 0x20, 0o100644 << 16])
def test_other_attribute_of_a_file_is_ignored(attributes: int) -> None:
    """Read-only, hidden, of the system, a label, archived: DOS's; and a mode of Unix."""
    data = smuggled(("archive/x", b"x"), attributes=attributes)
    assert contents(opened(data)) == expected(loaded(data)) == expected(STATE)


def test_small_members_are_read_together() -> None:
    """Those of a KiB with their headers, 64 KiB at a time; of larger ones the headers alone."""
    sizes = [*[1024] * 63, 500, 524, 1024, 1024, 1025, 1024]
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number, size in enumerate(sizes):
            archive.writestr(f"a/{number:02}", bytes(size - 34))
    source = Memory(out.getvalue())
    assert len(read_members(source)) == len(sizes)
    assert [it for it in source.reads if it[0] < sum(sizes)] == [
        *((0, 65_536), (65_536, 2048)),
        *((67_584, 34), (68_609, 1024)),
    ]


class Foreseen(Memory):
    """A file that notes what is said to be read soon."""

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        self.foreseen = [*ranges]


def test_bytes_around_each_header_are_foreseen() -> None:
    """320 on either side, so that a file elsewhere is asked once for all of them."""
    source = Foreseen(GOOD)
    read_members(source)
    archive = zipfile.ZipFile(BytesIO(GOOD))
    places = [*(each.header_offset for each in archive.infolist()), archive.start_dir]
    assert source.foreseen == [(max(0, at - 320), min(at + 320, len(GOOD))) for at in places]
