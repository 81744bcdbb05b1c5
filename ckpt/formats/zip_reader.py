"""The zip container of a torch file: its members, strictly.

Sources: APPNOTE.TXT 6.3.10, sections 4.3 and 4.5; PyTorch's `caffe2/serialize/inline_container`
and miniz, which write flags 0x0808 or less, and no comment. What a reader could understand in two
ways is refused: prefixes, overlaps, gaps, local headers that say something else than the
directory. Compressed members are listed like any other.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ckpt.errors import FormatError
from ckpt.files import ByteSource

MEMBER_LIMIT = 1_000_000
DIRECTORY_LIMIT = 1 << 28  # bytes; a storage's line takes about 70
_LOCAL = struct.Struct("<4s5HIIIHH")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_ZIP64 = 0x0001  # id of the extra field with 64-bit sizes
_DESCRIPTOR = 0x0008  # a flag: CRC-32 and sizes stand after the data
_FLAGS = 0x0800 | _DESCRIPTOR  # names in UTF-8
_WIDE = 0xFFFFFFFF  # in a field of 32 bits: see the zip64 field
_CUT = "the file is cut short or damaged; fetch it again"


@dataclass(frozen=True, slots=True)
class Member:
    """One member.

    Attributes:
        name: With its folder, e.g. ``archive/data/0``.
        offset: Of its data in the file.
        packed: Bytes of its data as they are in the file.
        nbytes: Bytes of what it holds; `packed` where it is stored.
        crc32: Of what it holds; 0 where the writer did not compute it.
        method: How it is compressed (APPNOTE 4.4.5); 0 where it is stored.
    """

    name: str
    offset: int
    packed: int
    nbytes: int
    crc32: int
    method: int


@dataclass(frozen=True, slots=True)
class _Listed:
    """One line of the directory."""

    member: Member
    header: int
    flags: int


def read_members(source: ByteSource) -> list[Member]:
    """All members in the order in which they lie, `offset` being that of their data.

    Raises:
        FormatError: The archive is damaged, or not of the kind that torch writes.
    """
    begin, size, count = _directory(source)
    listed = list(_listed(source, source.read(begin, size), count))
    names = {each.member.name for each in listed}
    if len(names) != len(listed):
        raise FormatError(f"{source.name}: two members have the same name")
    listed.sort(key=lambda each: each.header)
    if listed and listed[-1].header >= begin:
        raise FormatError(f"{source.name}: {listed[-1].member.name}: lies past the members")
    followers = [*(each.header for each in listed[1:]), begin]
    if listed and listed[0].header != 0:
        raise FormatError(f"{source.name}: {listed[0].header:,} bytes before its first member")
    return [_located(source, *pair) for pair in zip(listed, followers, strict=True)]


def _directory(source: ByteSource) -> tuple[int, int, int]:
    """Where the central directory begins, its bytes, and how many members it lists."""
    end = source.size - _END.size
    if end < 0:
        raise FormatError(f"{source.name}: {source.size} bytes are no zip archive", hint=_CUT)
    mark, disk, first, here, count, size, begin, comment = _END.unpack(source.read(end, _END.size))
    if mark != b"PK\x05\x06" or comment:
        raise FormatError(f"{source.name}: does not end like a zip archive", hint=_CUT)
    locator = _locator(source, end)
    if locator is not None:
        end, disk, first, here, count, size, begin = locator
    if (disk, first) != (0, 0) or here != count:
        raise FormatError(f"{source.name}: a zip archive in several parts")
    if begin + size != end:
        raise FormatError(
            f"{source.name}: its directory ends at byte {begin + size:,}, {end:,} was expected",
            hint=_CUT,
        )
    if count >= MEMBER_LIMIT or not count * _CENTRAL.size <= size <= DIRECTORY_LIMIT:
        raise FormatError(f"{source.name}: {count:,} members in a directory of {size:,} bytes")
    return begin, size, count


def _locator(source: ByteSource, end: int) -> tuple[int, int, int, int, int, int, int] | None:
    """The same fields from the zip64 end record, where there is one (APPNOTE 4.3.14)."""
    at = end - _LOCATOR.size
    if at < 0:
        return None
    mark, disk, record, disks = _LOCATOR.unpack(source.read(at, _LOCATOR.size))
    if mark != b"PK\x06\x07":
        return None
    if record != at - _END64.size or disk or disks > 1:
        raise FormatError(f"{source.name}: its zip64 end record is not where it should be")
    mark, length, _, _, disk, first, here, count, size, begin = _END64.unpack(
        source.read(record, _END64.size)
    )
    if mark != b"PK\x06\x06" or length != _END64.size - 12:
        raise FormatError(f"{source.name}: its zip64 end record is damaged", hint=_CUT)
    return record, disk, first, here, count, size, begin


def _listed(source: ByteSource, directory: bytes, count: int) -> Iterator[_Listed]:
    position = 0
    for _ in range(count):
        if position + _CENTRAL.size > len(directory):
            raise FormatError(f"{source.name}: its directory is cut short", hint=_CUT)
        fields = _CENTRAL.unpack_from(directory, position)
        mark, _, _, flags, method, _, _, crc, packed, size, *lengths = fields[:13]
        disk, _, _, header = fields[13:]
        position += _CENTRAL.size
        name_end = position + lengths[0]
        extra_end = name_end + lengths[1]
        if mark != b"PK\x01\x02" or lengths[2] or disk or extra_end > len(directory):
            raise FormatError(f"{source.name}: its directory is damaged", hint=_CUT)
        name = _name(source, directory[position:name_end])
        size, packed, header = _wide(
            source, name, directory[name_end:extra_end], size, packed, header
        )
        position = extra_end
        _expect_plain(source, name, flags, method, size, packed)
        yield _Listed(Member(name, 0, packed, size, crc, method), header, flags)
    if position != len(directory):
        raise FormatError(f"{source.name}: its directory lists more than it counts")


def _name(source: ByteSource, data: bytes) -> str:
    try:
        name = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{source.name}: a member's name is no UTF-8: {data!r}") from error
    if not name or "\0" in name:
        raise FormatError(f"{source.name}: {name!r} is no member's name")
    return name


def _wide(
    source: ByteSource, name: str, extra: bytes, size: int, packed: int, header: int
) -> tuple[int, int, int]:
    """Replace what has no room in 32 bits by the zip64 field (APPNOTE 4.5.3)."""
    narrow = [size, packed, header]
    if _WIDE not in narrow:
        return size, packed, header
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        position += 4
        if kind == _ZIP64 and position + length <= len(extra) and length % 8 == 0:
            wide = iter(struct.unpack_from(f"<{length // 8}Q", extra, position))
            full = [next(wide, None) if each == _WIDE else each for each in narrow]
            if None not in full:
                return full[0], full[1], full[2]  # type: ignore[return-value]
        position += length
    raise FormatError(f"{source.name}: {name}: lacks its 64-bit sizes", hint=_CUT)


def _expect_plain(
    source: ByteSource, name: str, flags: int, method: int, size: int, packed: int
) -> None:
    if flags & 1:
        raise FormatError(f"{source.name}: {name}: encrypted")
    if flags & ~_FLAGS:
        raise FormatError(f"{source.name}: {name}: has flags {flags:#06x}, torch writes none such")
    if method == 0 and size != packed:
        raise FormatError(f"{source.name}: {name}: stored, and yet {size:,} bytes in {packed:,}")


def _located(source: ByteSource, listed: _Listed, follower: int) -> Member:
    """The member with the offset of its data, once its local header has agreed.

    Args:
        source: The archive.
        listed: The member as the directory has it.
        follower: Where the next member begins, or the directory; it ends there exactly.
    """
    member = listed.member
    name, encoded = member.name, member.name.encode("utf-8")
    begin = listed.header + _LOCAL.size + len(encoded)
    if begin > follower:
        raise FormatError(f"{source.name}: {name}: no room for its header", hint=_CUT)
    data = source.read(listed.header, _LOCAL.size + len(encoded))
    mark, _, flags, method, _, _, crc, packed, size, name_length, extra = _LOCAL.unpack_from(data)
    if mark != b"PK\x03\x04" or data[_LOCAL.size :] != encoded or name_length != len(encoded):
        raise FormatError(f"{source.name}: {name}: another name stands before its data", hint=_CUT)
    # With a descriptor after the data, or with 64-bit sizes, the local fields say nothing.
    described = bool(flags & _DESCRIPTOR)
    silent = described or _WIDE in (packed, size)
    agrees = (crc, packed, size) == (member.crc32, member.packed, member.nbytes)
    if method != member.method or flags != listed.flags or not (silent or agrees):
        raise FormatError(f"{source.name}: {name}: its two headers differ", hint=_CUT)
    end = begin + extra + member.packed
    if end > follower:
        raise FormatError(
            f"{source.name}: {name}: ends at byte {end:,}, what follows begins at {follower:,}",
            hint=_CUT,
        )
    if not _is_descriptor(source, end, follower - end, member, described):
        raise FormatError(
            f"{source.name}: {name}: {follower - end:,} bytes after it that belong to nothing"
        )
    return replace(member, offset=begin + extra)


def _is_descriptor(
    source: ByteSource, at: int, length: int, member: Member, described: bool
) -> bool:
    """Whether what follows a member's data is its descriptor, or nothing where it has none.

    APPNOTE 4.3.9: CRC-32 and both sizes, of 4 or 8 bytes each; a mark may stand before them.
    """
    if not described or not length:
        return not described and not length
    kind = {12: "<III", 16: "<4sIII", 20: "<IQQ", 24: "<4sIQQ"}.get(length)
    if kind is None:
        return False
    fields = struct.unpack(kind, source.read(at, length))
    expected = (member.crc32, member.packed, member.nbytes)
    return fields[:-3] in ((), (b"PK\x07\x08",)) and fields[-3:] == expected
