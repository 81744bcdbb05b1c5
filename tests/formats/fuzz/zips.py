"""Writes zip archives of torch files that are strange in their container.

Source: APPNOTE.TXT 6.3.10, sections 4.3 and 4.5. Written without a library, which would not
write most of this.
"""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tests.formats.fuzz.draw import Draw

TRICKS = (
    *("case of a name", "same name twice", "other folder", "folders", "folder bit", "extra member"),
    *("record left out", "order of members", "order of the directory", "deflated", "method"),
    *("local name", "local sizes", "local method", "local flags", "extra fields", "zip64 fields"),
    *("descriptor", "flags", "gap", "overlap", "comment", "trailing bytes", "bytes before"),
    *("member's comment", "zip64 end", "byte order", "small records", "strange name", "sizes"),
    *("checksum", "nested data.pkl", "TorchScript", "attributes"),
)
WIDE = 0xFFFFFFFF
FOLDER = "archive"


@dataclass(frozen=True)
class Member:
    """A member as its two headers describe it; `local` fields replace those of the directory."""

    name: bytes
    data: bytes
    method: int = 0
    flags: int = 0
    crc32: int | None = None
    attributes: int = 0
    extra: bytes = b""
    local_extra: bytes = b""
    comment: bytes = b""
    wide: bool = False
    descriptor: int = 0
    local_name: bytes | None = None
    local_method: int | None = None
    local_flags: int | None = None
    local_sizes: tuple[int, int] | None = None
    nbytes: int | None = None
    gap: bytes = b""
    header: int | None = None


def archive(draw: Draw, pickle: bytes, storages: Mapping[str, bytes]) -> bytes:
    """The archive of a torch file, with the tricks that are drawn."""
    records = {"data.pkl": pickle, "byteorder": b"little"}
    records |= {f"data/{key}": data for key, data in storages.items()}
    records |= {"version": b"3\n"}
    _change_records(draw, records)
    members = [Member(f"{FOLDER}/{name}".encode(), data) for name, data in records.items()]
    members = _more_members(draw, members)
    members = [_changed(draw, member) for member in members]
    return _written(draw, members)


def _change_records(draw: Draw, records: dict[str, bytes]) -> None:
    if draw.trick("byte order"):
        records["byteorder"] = draw.one(b"big", b"big", b"little\n", b"Little", b"")
    if draw.trick("small records"):
        small = draw.one(
            *((".format_version", value) for value in (b"1", b"2", b"x", b"", b"99")),
            *((".storage_alignment", value) for value in (b"64", b"1", b"0", b"-1", b"4096", b"x")),
            *(("version", value) for value in (b"3", b" 3", b"3x", b"1", b"999", b"")),
            *((".data/version", value) for value in (b"3\n", b"1", b"x")),
            (".data/serialization_id", b"0" * 40),
        )
        records[small[0]] = small[1]
    if draw.trick("record left out", 0.3):
        del records[draw.rng.choice(list(records))]
    if draw.trick("TorchScript", 0.3):
        name = draw.one("constants.pkl", "code/a.py", "CONSTANTS.pkl", "x/constants.pkl")
        records[name] = b"\x80\x02N."


def _more_members(draw: Draw, members: list[Member]) -> list[Member]:
    """Members that are there twice, in other cases, folders or by other names."""
    own = [member.name.decode() for member in members]
    more = []
    if draw.trick("case of a name"):
        name = draw.rng.choice(own)
        record = name.partition("/")[2]
        inside = (record.upper(), record.title(), record.replace("d", "D"))
        changed = draw.one(name.upper(), *(f"{FOLDER}/{each}" for each in inside))
        if draw.chance(0.4):
            at = own.index(name)
            members[at] = replace(members[at], name=changed.encode())
        else:
            more.append(changed)
    if draw.trick("same name twice"):
        more.append(draw.rng.choice(own))
    if draw.trick("other folder"):
        more.append(draw.one("other/", "Archive/", "", "/", "archive ") + "data.pkl")
    if draw.trick("nested data.pkl"):
        more.append(f"{FOLDER}/{draw.one('x', 'data', '.data')}/data.pkl")
    if draw.trick("folders"):
        more += [f"{FOLDER}/", f"{FOLDER}/data/"][: draw.one(1, 2)]
    if draw.trick("extra member"):
        more.append(f"{FOLDER}/{draw.one('README', 'data/x', '.debug_pkl', 'data/0.debug_pkl')}")
    if draw.trick("strange name"):
        more.append(
            f"{FOLDER}/{draw.one('a/../data.pkl', 'data//0', './data.pkl', chr(233), 'x' * 600)}"
        )
        more.append(
            f"{FOLDER}\\data.pkl"
            if draw.chance(0.2)
            else f"{FOLDER}/data.pkl\0"[: draw.one(16, 17)]
        )
        more = [name for name in more if name != f"{FOLDER}/data.pkl"]
    for name in more:
        data = b"" if name.endswith("/") else _twin(draw, members, name)
        bits = 0x10 if name.endswith("/") and draw.chance(0.7) else 0
        member = Member(name.encode(), data, attributes=bits)
        members.insert(draw.rng.randrange(len(members) + 1), member)
    if draw.trick("order of members"):
        draw.rng.shuffle(members)
    return members


def _twin(draw: Draw, members: list[Member], name: str) -> bytes:
    """The content of a member with nearly this name, changed; else that of any."""
    for member in members:
        if member.name.lower() == name.lower().encode():
            other = bytes(byte ^ 1 for byte in member.data)
            return member.data.replace(b"k.0", b"x.0") if b"k.0" in member.data else other
    return draw.rng.choice(members).data


def _changed(draw: Draw, member: Member) -> Member:
    """A member with its headers changed."""
    often = 0.25
    if draw.trick("folder bit", often):
        member = replace(member, attributes=draw.one(0x10, 0x30, 0x41ED0010, 0xFF))
    if draw.trick("attributes", often):
        member = replace(member, attributes=draw.one(0x20, 0x81A40000, 0x41ED0000, 1))
    if draw.trick("deflated", 0.5):
        member = replace(member, method=8)
    if draw.trick("method", 0.1):
        member = replace(member, method=draw.one(1, 9, 12, 14, 93, 8))
    if draw.trick("flags", often):
        member = replace(member, flags=draw.one(1, 2, 4, 0x20, 0x40, 0x800, 0x2000))
    if draw.trick("local name", 0.1):
        member = replace(member, local_name=draw.one(b"archive/x", member.name.upper(), b""))
    if draw.trick("local method", 0.1):
        member = replace(member, local_method=draw.one(0, 8))
    if draw.trick("local flags", 0.1):
        member = replace(member, local_flags=draw.one(0, 1, 8, 0x800))
    if draw.trick("local sizes", 0.1):
        member = replace(member, local_sizes=draw.one((0, 0), (1, 1), (WIDE, WIDE)))
    if draw.trick("sizes", 0.1):
        member = replace(member, nbytes=max(0, len(member.data) + draw.one(-1, 1, -4, 4, 100)))
    if draw.trick("checksum", often):
        member = replace(member, crc32=draw.one(0, 1))
    if draw.trick("extra fields", often):
        fields = draw.one(
            b"FB\x04\0ZZZZ", b"\x01\0\x08\0" + bytes(8), b"\x75\x70\x05\0\x01abcd", b"\x01"
        )
        member = replace(member, **{draw.one("extra", "local_extra"): fields})
    if draw.trick("zip64 fields", often):
        member = replace(member, wide=True)
    if draw.trick("descriptor", often):
        member = replace(member, descriptor=draw.one(12, 16, 20, 24))
    if draw.trick("member's comment", 0.1):
        member = replace(member, comment=b"c")
    if draw.trick("gap", 0.1):
        member = replace(member, gap=draw.one(b"\0", b"PK\x03\x04", bytes(30)))
    if draw.trick("overlap", 0.1):
        member = replace(member, header=draw.one(0, 1, 40))
    return member


def _written(draw: Draw, members: list[Member]) -> bytes:
    out = bytearray(b"PK\x03\x04" + bytes(8) if draw.trick("bytes before", 0.3) else b"")
    lines = []
    for member in members:
        header = len(out)
        local, line = _headers(member, header)
        out += local
        lines.append(line)
    if draw.trick("order of the directory"):
        draw.rng.shuffle(lines)
    begin = len(out)
    directory = b"".join(lines)
    out += directory
    if draw.trick("zip64 end"):
        out += struct.pack(
            "<4sQ2H2I4Q",
            b"PK\x06\x06",
            44,
            45,
            45,
            0,
            0,
            len(lines),
            len(lines),
            len(directory),
            begin,
        ) + struct.pack("<4sIQI", b"PK\x06\x07", 0, begin + len(directory), 1)
    comment = b"comment" if draw.trick("comment", 0.3) else b""
    count = len(lines) + (draw.one(-1, 1) if draw.trick("sizes", 0.05) else 0)
    out += (
        struct.pack(
            "<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(directory), begin, len(comment)
        )
        + comment
    )
    return bytes(out) + (draw.one(b"\0", bytes(22)) if draw.trick("trailing bytes", 0.3) else b"")


def _headers(member: Member, header: int) -> tuple[bytes, bytes]:
    """The member as it stands in the file, and its line of the directory."""
    data = member.data
    if member.method == 8:
        deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
        data = deflater.compress(data) + deflater.flush()
    nbytes = len(member.data) if member.nbytes is None else member.nbytes
    packed = nbytes if member.method == 0 else len(data)
    crc32 = zlib.crc32(member.data) if member.crc32 is None else member.crc32
    flags = member.flags | (8 if member.descriptor else 0)
    sizes = member.local_sizes or ((0, 0) if member.descriptor else (packed, nbytes))
    name = member.name if member.local_name is None else member.local_name
    method = member.method if member.local_method is None else member.local_method
    local_flags = flags if member.local_flags is None else member.local_flags
    local = struct.pack(
        "<4s5H3I2H", b"PK\x03\x04", 20, local_flags, method, 0, 0,
        0 if member.descriptor else crc32, *sizes, len(name), len(member.local_extra),
    )  # fmt: skip
    kind = {0: "", 12: "<III", 16: "<4sIII", 20: "<IQQ", 24: "<4sIQQ"}[member.descriptor]
    mark = [b"PK\x07\x08"] if member.descriptor in (16, 24) else []
    tail = struct.pack(kind, *mark, crc32, packed, nbytes) if kind else b""
    extra, stated, at = member.extra, (packed, nbytes), member.header
    at = header if at is None else at
    if member.wide:
        extra = struct.pack("<HHQQQ", 1, 24, nbytes, packed, at) + extra
        stated, at = (WIDE, WIDE), WIDE
    line = struct.pack(
        "<4s6H3I5H2I", b"PK\x01\x02", 20, 20, flags, member.method, 0, 0, crc32, *stated,
        len(member.name), len(extra), len(member.comment), 0, 0, member.attributes, at,
    )  # fmt: skip
    return (
        local + name + member.local_extra + data + tail + member.gap,
        line + member.name + extra + member.comment,
    )
