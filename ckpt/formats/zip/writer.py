"""The layout of a new zip archive as torch writes it: members stored, their data aligned.

Sources: APPNOTE.TXT 6.3.10, sections 4.3 and 4.5; PyTorch's `caffe2/serialize/inline_container`
(`getPadding`) and its miniz (`mz_zip_writer_add_mem_ex_v2`). The layout is theirs to the byte,
since `torch.serialization.config.load.calculate_storage_offsets` computes the places of records
without reading them: a descriptor after the data instead of sizes in the local header, an extra
field "FB" that aligns the data so that tensors can be mapped into memory, always zip64 end records.

Law: the members of an archive that torch wrote, laid out with its alignment, are that archive.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ckpt.tensors import FileStart, Layout, Piece, Span, Summed

ALIGNMENT = 64  # bytes; torch's default
_LOCAL = struct.Struct("<4s5HIIIHH")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_WIDE = 0xFFFFFFFF
_ZIP64 = 0x0001  # id of the extra field with 64-bit sizes
_UTF8 = 0x0800
_DESCRIPTOR = 0x0008
_MADE_BY, _NEEDED = 0x031E, 45  # in the end record, as miniz has it; 4.5 knows zip64


@dataclass(frozen=True, slots=True)
class NewMember:
    """A member to be written.

    Attributes:
        name: With its folder, e.g. ``archive/data/0``.
        nbytes: Bytes of `data`.
        crc32: Their CRC-32; None if `data` is `Summed`, which computes it.
        data: The bytes, or their place in the source.
    """

    name: str
    nbytes: int
    crc32: int | None
    data: bytes | Span | Summed


def lay_out_archive(members: Iterable[NewMember], *, alignment: int = ALIGNMENT) -> Layout:
    """The pieces of the archive, in order.

    Args:
        members: In file order.
        alignment: Bytes; the offset of every member's data is a multiple of it.
    """
    position = 0
    directory: list[tuple[NewMember, int]] = []
    for member in members:
        directory.append((member, position))
        for piece in _member(member, position, alignment):
            yield piece
            position += length_of(piece)
    begin = position
    for member, header in directory:
        line = _line(member, header)
        yield line
        position += len(line)
    yield _end(begin, position - begin, len(directory))


def _member(member: NewMember, header: int, alignment: int) -> Iterator[Piece]:
    name, wide = member.name.encode("utf-8"), _wide(member, header)
    # The padding has a head of its own, of 4 bytes.
    used = header + _LOCAL.size + len(name) + len(wide) + 4
    padding = -used % alignment
    extra = wide + struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    yield _LOCAL.pack(
        b"PK\x03\x04", 0, _flags(member), 0, 0, 0, 0, 0, 0, len(name), len(extra)
    ) + name + extra  # fmt: skip
    if member.nbytes:
        yield member.data
        kind = "<4sIQQ" if wide else "<4sIII"
        yield struct.pack(kind, b"PK\x07\x08", _crc32(member), member.nbytes, member.nbytes)


def _line(member: NewMember, header: int) -> bytes:
    name, wide = member.name.encode("utf-8"), _wide(member, header)
    stated = min(member.nbytes, _WIDE)
    return _CENTRAL.pack(
        b"PK\x01\x02", 0, 0, _flags(member), 0, 0, 0, _crc32(member), stated, stated,
        len(name), len(wide), 0, 0, 0, 0, min(header, _WIDE),
    ) + name + wide  # fmt: skip


def _wide(member: NewMember, header: int) -> bytes:
    """The zip64 extra field, with the values that do not fit into 32 bits (APPNOTE 4.5.3)."""
    values = [v for v in (member.nbytes, member.nbytes, header) if v >= _WIDE]
    return struct.pack(f"<HH{len(values)}Q", _ZIP64, 8 * len(values), *values) if values else b""


def _flags(member: NewMember) -> int:
    return _UTF8 | (_DESCRIPTOR if member.nbytes else 0)


def _end(begin: int, size: int, count: int) -> bytes:
    record = struct.pack(
        "<4sQ2H2I4Q", b"PK\x06\x06", 44, _MADE_BY, _NEEDED, 0, 0, count, count, size, begin
    )
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, begin + size, 1)
    few = min(count, 0xFFFF)
    return record + locator + struct.pack(
        "<4s4H2IH", b"PK\x05\x06", 0, 0, few, few, min(size, _WIDE), min(begin, _WIDE), 0
    )  # fmt: skip


def _crc32(member: NewMember) -> int:
    if isinstance(member.data, Summed):
        return member.data.crc32
    if member.crc32 is None:
        raise ValueError(f"{member.name}: nobody computes its CRC-32")
    return member.crc32


def length_of(piece: Piece | FileStart) -> int:
    """The bytes that a piece takes in a file."""
    match piece:
        case bytes():
            return len(piece)
        case Summed():
            return piece.piece.nbytes
        case FileStart():
            return 0
    return piece.nbytes
