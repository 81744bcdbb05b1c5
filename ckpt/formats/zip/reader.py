"""The zip container of a torch file: its members, strictly.

Sources: APPNOTE.TXT 6.3.10, sections 4.3 and 4.5; PyTorch's `caffe2/serialize/inline_container`
and miniz, which write flags 0x0808 or less, and no comment. Ambiguous archives are refused:
with prefixes, overlaps, gaps, or local headers that differ from the directory. Compressed
members are listed like any other.

Law: torch's reader finds the same member under a name. It ignores case
(`mz_zip_reader_locate_file`), and gives uninitialised memory for a folder
(`mz_zip_reader_extract_to_mem_no_alloc`).
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from ckpt.errors import FormatError
from ckpt.io.sources import ByteSource

MEMBER_LIMIT = 1_000_000
DIRECTORY_LIMIT = 1 << 28  # bytes; a storage takes about 70
# Without versions, times and attributes, which do not describe the data.
_LOCAL = struct.Struct("<4s2x2H4x3I2H")
_CENTRAL = struct.Struct("<4s4x2H4x3I4H2x2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_ZIP64 = 0x0001  # id of the extra field with 64-bit sizes
_DESCRIPTOR = 0x0008  # a flag: CRC-32 and sizes follow the data
# Names in UTF-8, a descriptor, and the compression level, which zip sets even on stored members.
_FLAGS = 0x080E
_DESCRIPTORS = {
    kind.size: kind for kind in map(struct.Struct, ("<III", "<4sIII", "<IQQ", "<4sIQQ"))
}
_FOLDER = 0x10  # an external attribute, of DOS
# The records that `torch.serialization` and `inline_container` look up by name.
_RECORDS = frozenset(
    {
        *("data.pkl", "byteorder", "version", "constants.pkl", ".format_version"),
        *(".storage_alignment", ".data/version", ".data/serialization_id"),
    }
)
_WIDE = 0xFFFFFFFF  # in a field of 32 bits: see the zip64 field
_SMALL, _BATCH = 1 << 10, 1 << 16  # bytes of a member with its header, and of many
_AROUND = 320  # bytes before and after a local header: the descriptor, a name, an alignment
_END_HINT = (
    "the file is truncated, or bytes or a comment were added at its end: fetch it again, or if "
    "you trust it:  zip -F FILE --out NEW"
)
_DAMAGED = "the file is truncated or damaged; fetch it again"


class Member(NamedTuple):
    """One member.

    Attributes:
        name: With its folder, e.g. ``archive/data/0``.
        offset: Of its data in the file.
        packed: Bytes of its data in the file.
        nbytes: Bytes of its content; equal to `packed` if it is stored.
        crc32: Of its content; 0 if the writer did not compute it.
        method: Of compression (APPNOTE 4.4.5); 0 if it is stored.
    """

    name: str
    offset: int
    packed: int
    nbytes: int
    crc32: int
    method: int


class _Listed(NamedTuple):
    """One entry of the directory.

    Attributes:
        name: As text.
        encoded: The same in bytes.
        header: Offset of the local header.
        begin: Offset of its extra fields, which the data follows.
    """

    name: str
    encoded: bytes
    header: int
    begin: int
    flags: int
    method: int
    crc32: int
    packed: int
    nbytes: int


def read_members(source: ByteSource) -> list[Member]:
    """All members in file order, each with the offset of its data.

    Raises:
        FormatError: The archive is damaged, or not of the kind that torch writes.
    """
    begin, size, count = _directory(source)
    listed = list(_listed(source, source.read(begin, size), count))
    if not listed:
        return []
    _expect_distinct(source.name, [member.name for member in listed])
    listed.sort(key=lambda member: member.header)
    if listed[-1].header >= begin:
        raise FormatError(f"{source.name}: {listed[-1].name}: begins after the last member")
    if listed[0].header:
        raise FormatError(f"{source.name}: {listed[0].header:,} bytes before its first member")
    followers = [*(member.header for member in listed[1:]), begin]
    pairs = list(zip(listed, followers, strict=True))
    source.prefetch(
        (max(0, at - _AROUND), min(at + _AROUND, source.size)) for at in (0, *followers)
    )
    reader = _BatchReader(source, [(member.header, end) for member, end in pairs])
    return [_located(reader, *pair) for pair in pairs]


def _expect_distinct(name: str, members: list[str]) -> None:
    """Make sure that each name finds one member, whether or not the reader ignores case."""
    folded: dict[str, str] = {}
    for member in members:
        other = folded.get(member.casefold())
        if other is not None:
            raise FormatError(
                f"{name}: two members have the same name if case is ignored, as torch does: "
                f"{other} and {member}"
            )
        folded[member.casefold()] = member
    for member in members:
        record = member.partition("/")[2]
        if record not in _RECORDS and record.lower() in _RECORDS:
            raise FormatError(f"{name}: {member}: torch reads it as {record.lower()}")


class _BatchReader:
    """Reads small members in batches, and only the requested bytes of large ones.

    Args:
        source: The archive.
        places: Begin and end of each member, in file order.
    """

    def __init__(self, source: ByteSource, places: list[tuple[int, int]]) -> None:
        self.name = source.name
        self._source = source
        self._batches = _small_batches(places)
        self._batch = next(self._batches, None)
        self._begin, self._data = 0, b""

    def read(self, offset: int, nbytes: int) -> bytes:
        """As `ByteSource.read`; offsets must grow from call to call."""
        at = offset - self._begin
        if 0 <= at <= len(self._data) - nbytes:
            return self._data[at : at + nbytes]
        while self._batch is not None and self._batch[1] <= offset:
            self._batch = next(self._batches, None)
        if self._batch is not None and self._batch[0] <= offset:
            self._begin, end = self._batch
            self._data = self._source.read(self._begin, end - self._begin)
            return self.read(offset, nbytes)
        return self._source.read(offset, nbytes)


def _small_batches(places: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ranges of consecutive small members, each at most `_BATCH` bytes long."""
    batch: tuple[int, int] | None = None
    for begin, end in places:
        if batch is not None and (end - begin > _SMALL or end - batch[0] > _BATCH):
            yield batch
            batch = None
        if end - begin <= _SMALL:
            batch = (begin if batch is None else batch[0], end)
    if batch is not None:
        yield batch


def _directory(source: ByteSource) -> tuple[int, int, int]:
    """The central directory's offset, its bytes, and its number of members."""
    end = source.size - _END.size
    if end < 0:
        raise FormatError(f"{source.name}: {source.size} bytes, not a zip archive", hint=_DAMAGED)
    mark, disk, first, here, count, size, begin, comment = _END.unpack(source.read(end, _END.size))
    if mark != b"PK\x05\x06" or comment:
        raise FormatError(f"{source.name}: does not end like a zip archive", hint=_END_HINT)
    locator = _locator(source, end)
    if locator is not None:
        end, disk, first, here, count, size, begin = locator
    if (disk, first) != (0, 0) or here != count:
        raise FormatError(f"{source.name}: a zip archive of several parts")
    if begin + size != end:
        raise FormatError(
            f"{source.name}: its directory ends at byte {begin + size:,}, expected {end:,}",
            hint=_DAMAGED,
        )
    if count >= MEMBER_LIMIT or not count * _CENTRAL.size <= size <= DIRECTORY_LIMIT:
        raise FormatError(f"{source.name}: {count:,} members in a directory of {size:,} bytes")
    return begin, size, count


def _locator(source: ByteSource, end: int) -> tuple[int, int, int, int, int, int, int] | None:
    """The same fields from the zip64 end record, if there is one (APPNOTE 4.3.14)."""
    at = end - _LOCATOR.size
    if at < 0:
        return None
    mark, disk, record, disks = _LOCATOR.unpack(source.read(at, _LOCATOR.size))
    if mark != b"PK\x06\x07":
        return None
    if record != at - _END64.size or disk or disks > 1:
        raise FormatError(f"{source.name}: its zip64 end record is not at the stated offset")
    mark, length, _, _, disk, first, here, count, size, begin = _END64.unpack(
        source.read(record, _END64.size)
    )
    if mark != b"PK\x06\x06" or length != _END64.size - 12:
        raise FormatError(f"{source.name}: its zip64 end record is damaged", hint=_DAMAGED)
    return record, disk, first, here, count, size, begin


def _listed(source: ByteSource, directory: bytes, count: int) -> Iterator[_Listed]:
    position = 0
    for _ in range(count):
        if position + _CENTRAL.size > len(directory):
            raise FormatError(f"{source.name}: its directory is truncated", hint=_DAMAGED)
        mark, flags, method, crc32, packed, size, named, extra, comment, disk, bits, header = (
            _CENTRAL.unpack_from(directory, position)
        )
        name_end = position + _CENTRAL.size + named
        extra_end = name_end + extra
        if mark != b"PK\x01\x02" or comment or disk or extra_end > len(directory):
            raise FormatError(f"{source.name}: its directory is damaged", hint=_DAMAGED)
        encoded = directory[position + _CENTRAL.size : name_end]
        name = _name(source, encoded)
        if _WIDE in (size, packed, header):
            field = directory[name_end:extra_end]
            size, packed, header = _wide(source, name, field, size, packed, header)
        position = extra_end
        if flags & ~_FLAGS or (method == 0 and size != packed):
            raise _not_plain(source, name, flags, size, packed)
        is_folder = name.endswith("/")
        if (size and is_folder) or (bits & _FOLDER and not is_folder):
            raise FormatError(f"{source.name}: {name}: both a folder and a file")
        begin = header + _LOCAL.size + named
        yield _Listed(name, encoded, header, begin, flags, method, crc32, packed, size)
    if position != len(directory):
        raise FormatError(f"{source.name}: its directory has bytes after its last member")


def _name(source: ByteSource, data: bytes) -> str:
    try:
        name = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{source.name}: a member's name is not UTF-8: {data!r}") from error
    if not name or "\0" in name or "\\" in name:
        raise FormatError(f"{source.name}: {name!r} is not a valid name of a member")
    return name


def _wide(
    source: ByteSource, name: str, extra: bytes, size: int, packed: int, header: int
) -> tuple[int, int, int]:
    """Replace values that do not fit into 32 bits by the zip64 field (APPNOTE 4.5.3)."""
    narrow = [size, packed, header]
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        position += 4
        if kind == _ZIP64:  # the first decides
            count = narrow.count(_WIDE)
            if min(length, len(extra) - position) < 8 * count:
                break
            wide = iter(struct.unpack_from(f"<{count}Q", extra, position))
            size, packed, header = (next(wide) if it == _WIDE else it for it in narrow)
            return size, packed, header
        position += length
    raise FormatError(f"{source.name}: {name}: its 64-bit sizes are missing", hint=_DAMAGED)


def _not_plain(source: ByteSource, name: str, flags: int, size: int, packed: int) -> FormatError:
    if flags & 1:
        return FormatError(f"{source.name}: {name}: encrypted")
    if flags & ~_FLAGS:
        return FormatError(f"{source.name}: {name}: flags {flags:#06x}, which torch never writes")
    return FormatError(f"{source.name}: {name}: stored, but {size:,} bytes take {packed:,}")


def _located(source: _BatchReader, listed: _Listed, follower: int) -> Member:
    """The member with the offset of its data; its local header must agree with the directory.

    Args:
        source: The archive.
        listed: The member in the directory.
        follower: Offset of the next member or of the directory, where this member must end.
    """
    name, encoded, header, begin, flags, method, *sums = listed
    if begin > follower:
        raise FormatError(f"{source.name}: {name}: no room for its header", hint=_DAMAGED)
    data = source.read(header, begin - header)
    mark, local_flags, local_method, *local_sums, named, extra = _LOCAL.unpack_from(data)
    if mark != b"PK\x03\x04" or data[_LOCAL.size :] != encoded or named != len(encoded):
        raise FormatError(f"{source.name}: {name}: its two headers differ in name", hint=_DAMAGED)
    # With a descriptor after the data, or with 64-bit sizes, the local fields are unused.
    silent = local_flags & _DESCRIPTOR or _WIDE in local_sums[1:]
    if local_method != method or local_flags != flags or not (silent or local_sums == sums):
        raise FormatError(f"{source.name}: {name}: its two headers differ", hint=_DAMAGED)
    crc32, packed, nbytes = sums
    end = begin + extra + packed
    if end > follower:
        raise FormatError(
            f"{source.name}: {name}: ends at byte {end:,}, the next one begins at {follower:,}",
            hint=_DAMAGED,
        )
    if not _is_descriptor(source, end, follower - end, listed):
        raise FormatError(
            f"{source.name}: {name}: {follower - end:,} bytes after it belong to no member"
        )
    return Member(name, begin + extra, packed, nbytes, crc32, method)


def _is_descriptor(source: _BatchReader, at: int, length: int, listed: _Listed) -> bool:
    """Whether only its descriptor follows a member's data, or nothing if it has none.

    APPNOTE 4.3.9: CRC-32 and both sizes, of 4 or 8 bytes each, optionally after a mark.
    """
    if not listed.flags & _DESCRIPTOR:
        return not length
    kind = _DESCRIPTORS.get(length)
    sums = (listed.crc32, listed.packed, listed.nbytes)
    return kind is not None and kind.unpack(source.read(at, length)) in (
        sums,
        (b"PK\x07\x08", *sums),
    )
