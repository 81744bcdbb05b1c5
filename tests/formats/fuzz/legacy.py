"""Writes files of `torch.save` from before torch 1.6 that are strange in their container.

Source: `torch.serialization._legacy_save`: magic number, protocol, system, value, storage keys,
then each storage: the number of its elements and its bytes.
"""

import struct
from collections.abc import Mapping

from tests.formats.fuzz.draw import Draw

TRICKS = (
    *("legacy views", "legacy views that collide", "legacy views beyond", "magic", "system"),
    *("protocol number", "order of storages", "storage listed twice", "storage not listed"),
    *("storage nobody names", "number of elements", "bytes at the end", "cut short"),
)
MAGIC = 0x1950A86A20F9469CFC6C


def file(draw: Draw, pickle: bytes, storages: Mapping[str, tuple[int, bytes]]) -> bytes:
    """The file; each storage has its number of elements and its bytes."""
    magic = MAGIC + 1 if draw.trick("magic", 0.2) else MAGIC
    protocol = draw.one(1000, 1002, 0) if draw.trick("protocol number", 0.3) else 1001
    head = _number(magic) + _number(protocol) + _system(draw)
    keys = list(storages)
    if draw.trick("order of storages"):
        draw.rng.shuffle(keys)
    if keys and draw.trick("storage listed twice"):
        keys.append(draw.rng.choice(keys))
    if keys and draw.trick("storage not listed", 0.3):
        keys.remove(draw.rng.choice(keys))
    if draw.trick("storage nobody names", 0.3):
        keys.append("nobody")
    listed = b"\x80\x02]" + b"(" + b"".join(map(_text, keys)) + b"e."
    parts = [head, pickle, listed]
    for key in keys:
        numel, data = storages.get(key, (1, b"\0\0\0\0"))
        if draw.trick("number of elements", 0.3):
            numel += draw.one(1, -1, -numel)
        parts += [struct.pack("<q", numel), data]
    whole = b"".join(parts)
    if draw.trick("bytes at the end", 0.3):
        whole += b"\0" * draw.one(1, 8, 600)
    if draw.trick("cut short", 0.2):
        whole = whole[: -draw.one(1, 4, 16)]
    return whole


def _system(draw: Draw) -> bytes:
    little = draw.one(b"\x89", b"N", b"K\x00", b"K\x01") if draw.trick("system") else b"\x88"
    items = [_text("protocol_version") + b"M\xe9\x03", _text("little_endian") + little]
    if draw.trick("system"):
        items = draw.one(items[:1], [*items, items[1]], [_text("little_endian") + b"\x88", *items])
    return b"\x80\x02}(" + b"".join(items) + b"u."


def _number(value: int) -> bytes:
    data = value.to_bytes(10 if value > 1 << 32 else 2, "little")
    return b"\x80\x02" + (b"\x8a\x0a" + data if len(data) == 10 else b"M" + data) + b"."


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data
