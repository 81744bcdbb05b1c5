"""The zip container of a torch file: its members, strictly.

Sources: APPNOTE.TXT 6.3.10, sections 4.3 and 4.5; PyTorch's `caffe2/serialize/inline_container`
and miniz, which write stored members only, flags 0x0808 or less, and no comment. What a
reader could understand in two ways is refused: prefixes, overlaps, local headers that say
something else than the directory.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ckpt.errors import FormatError
from ckpt.files import ByteSource

MEMBER_LIMIT = 1_000_000
_LOCAL = struct.Struct("<4s5HIIIHH")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_ZIP64 = 0x0001  # id of the extra field with 64-bit sizes
_FLAGS = 0x0808  # a descriptor after the data, names in UTF-8
_CUT = "the file is cut short or damaged; fetch it again"


@dataclass(frozen=True, slots=True)
class Member:
    """One stored member. `crc32` is 0 where the writer did not compute it."""

    name: str
    offset: int
    nbytes: int
    crc32: int


@dataclass(frozen=True, slots=True)
class _Listed:
    """One line of the directory."""

    member: Member
    header: int


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
    position = 0
    members: list[Member] = []
    for each in listed:
        if each.header < position or (not members and each.header != 0):
            raise FormatError(
                f"{source.name}: {each.member.name}: begins at {each.header:,}, where "
                f"{'another member lies' if members else 'the file should begin with it'}"
            )
        members.append(_located(source, each, begin))
        position = members[-1].offset + members[-1].nbytes
    return members


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
    if count >= MEMBER_LIMIT or count * _CENTRAL.size > size:
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
        _expect_stored(source, name, flags, method, size, packed)
        yield _Listed(Member(name, 0, size, crc), header)
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
    if 0xFFFFFFFF not in narrow:
        return size, packed, header
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        position += 4
        if kind == _ZIP64 and position + length <= len(extra) and length % 8 == 0:
            wide = iter(struct.unpack_from(f"<{length // 8}Q", extra, position))
            full = [next(wide, None) if each == 0xFFFFFFFF else each for each in narrow]
            if None not in full:
                return full[0], full[1], full[2]  # type: ignore[return-value]
        position += length
    raise FormatError(f"{source.name}: {name}: lacks its 64-bit sizes", hint=_CUT)


def _expect_stored(
    source: ByteSource, name: str, flags: int, method: int, size: int, packed: int
) -> None:
    if flags & 1:
        raise FormatError(f"{source.name}: {name}: encrypted")
    if flags & ~_FLAGS:
        raise FormatError(f"{source.name}: {name}: has flags {flags:#06x}, torch writes none such")
    if method != 0:
        raise FormatError(
            f"{source.name}: {name}: compressed (method {method}); torch stores its members",
            hint="unzip it, and zip it again with  zip -0 -r",
        )
    if size != packed:
        raise FormatError(f"{source.name}: {name}: stored, and yet {size:,} bytes in {packed:,}")


def _located(source: ByteSource, listed: _Listed, directory: int) -> Member:
    """The member with the offset of its data, once its local header has agreed."""
    name, nbytes = listed.member.name, listed.member.nbytes
    encoded = name.encode("utf-8")
    begin = listed.header + _LOCAL.size
    if begin + len(encoded) > directory:
        raise FormatError(f"{source.name}: {name}: begins past the members", hint=_CUT)
    data = source.read(listed.header, _LOCAL.size + len(encoded))
    mark, _, flags, method, _, _, crc, packed, size, name_length, extra = _LOCAL.unpack_from(data)
    if mark != b"PK\x03\x04" or data[_LOCAL.size :] != encoded or name_length != len(encoded):
        raise FormatError(f"{source.name}: {name}: another name stands before its data", hint=_CUT)
    # With a descriptor after the data, or with 64-bit sizes, the local fields say nothing.
    silent = flags & 0x0008 or 0xFFFFFFFF in (packed, size)
    agrees = (crc, packed, size) == (listed.member.crc32, nbytes, nbytes)
    if method != 0 or flags & ~_FLAGS or not (silent or agrees):
        raise FormatError(f"{source.name}: {name}: its two headers differ", hint=_CUT)
    offset = begin + len(encoded) + extra
    if offset + nbytes > directory:
        raise FormatError(f"{source.name}: {name}: reaches into the directory", hint=_CUT)
    return Member(name, offset, nbytes, listed.member.crc32)
