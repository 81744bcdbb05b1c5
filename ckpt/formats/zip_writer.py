"""A new zip archive as torch reads it, laid out: members stored, their data aligned.

Sources: APPNOTE.TXT 6.3.10, sections 4.3 and 4.5; PyTorch's `caffe2/serialize/inline_container`,
which aligns the data of every member to 64 bytes by an extra field "FB", so that tensors can
be mapped into memory.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ckpt.tensors import Layout, Piece, Span, Summed

ALIGNMENT = 64  # bytes
_LOCAL = struct.Struct("<4s5HIIIHH")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_WIDE = 0xFFFFFFFF
_VERSION = 45  # "needed to extract": 4.5 knows zip64
_UTF8 = 0x0800
_DESCRIPTOR = 0x0008


@dataclass(frozen=True, slots=True)
class NewMember:
    """A member to be written.

    Attributes:
        name: With its folder, e.g. ``archive/data/0``.
        nbytes: Bytes of `data`.
        crc32: Their CRC-32; None where the writer finds it out (`data` is `Summed` then).
        data: Where they come from.
    """

    name: str
    nbytes: int
    crc32: int | None
    data: bytes | Span | Summed


def lay_out_archive(members: Iterable[NewMember]) -> Layout:
    """The pieces of the archive, in order."""
    position = 0
    directory: list[tuple[NewMember, int]] = []
    for member in members:
        directory.append((member, position))
        for piece in _member(member, position):
            yield piece
            position += _length(piece)
    begin = position
    for member, header in directory:
        line = _line(member, header)
        yield line
        position += len(line)
    yield _end(begin, position - begin, len(directory))


def _member(member: NewMember, position: int) -> Iterator[Piece]:
    name = member.name.encode("utf-8")
    wide = member.nbytes >= _WIDE
    flags = _UTF8 | (_DESCRIPTOR if member.crc32 is None else 0)
    # APPNOTE 4.5.3: in a local header the zip64 field holds both sizes.
    sizes = struct.pack("<HHQQ", 1, 16, member.nbytes, member.nbytes) if wide else b""
    used = position + _LOCAL.size + len(name) + len(sizes) + 4
    extra = sizes + _padding(-used % ALIGNMENT)
    stated = _WIDE if wide else member.nbytes
    yield _LOCAL.pack(
        b"PK\x03\x04", _VERSION, flags, 0, 0, 0, member.crc32 or 0, stated, stated,
        len(name), len(extra),
    ) + name + extra  # fmt: skip
    if member.nbytes:
        yield member.data
    if member.crc32 is None:
        kind = "<4sIQQ" if wide else "<4sIII"
        yield struct.pack(kind, b"PK\x07\x08", _crc32(member), member.nbytes, member.nbytes)


def _padding(nbytes: int) -> bytes:
    return struct.pack("<2sH", b"FB", nbytes) + b"Z" * nbytes


def _line(member: NewMember, header: int) -> bytes:
    name = member.name.encode("utf-8")
    wide = [value for value in (member.nbytes, member.nbytes, header) if value >= _WIDE]
    extra = struct.pack(f"<HH{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
    flags = _UTF8 | (_DESCRIPTOR if member.crc32 is None else 0)
    stated = min(member.nbytes, _WIDE)
    return _CENTRAL.pack(
        b"PK\x01\x02", _VERSION, _VERSION, flags, 0, 0, 0, _crc32(member), stated, stated,
        len(name), len(extra), 0, 0, 0, 0, min(header, _WIDE),
    ) + name + extra  # fmt: skip


def _end(begin: int, size: int, count: int) -> bytes:
    end = struct.pack(
        "<4s4H2IH", b"PK\x05\x06", 0, 0, min(count, 0xFFFF), min(count, 0xFFFF),
        min(size, _WIDE), min(begin, _WIDE), 0,
    )  # fmt: skip
    if count < 0xFFFF and size < _WIDE and begin < _WIDE:
        return end
    record = struct.pack(
        "<4sQ2H2I4Q", b"PK\x06\x06", 44, _VERSION, _VERSION, 0, 0, count, count, size, begin
    )
    return record + struct.pack("<4sIQI", b"PK\x06\x07", 0, begin + size, 1) + end


def _crc32(member: NewMember) -> int:
    if member.crc32 is not None:
        return member.crc32
    assert isinstance(member.data, Summed)
    return member.data.crc32


def _length(piece: Piece) -> int:
    match piece:
        case bytes():
            return len(piece)
        case Summed():
            return piece.piece.nbytes
    return piece.nbytes
