"""The compact form of large manifests (schema 2): columns instead of rows, each digest once.

Law: `to_rows(to_columns(document))` is `document` but for its `schema`, if its `inline` maps
digests to bytes. Objects are numbered: those of the store first, then the inline ones. A column of
numbers holds the differences, which are nearly always the same and so compress to nothing.
"""

import base64
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

from ckpt.io import digest

MOST_BYTES = 1 << 26  # of a manifest, inflated; larger ones are stored as rows, not deflated
_GZIP = 31  # zlib's `wbits`, so that zcat shows a manifest
# RFC 1952, 2.3: deflated, no optional fields, no time, best compression, an unknown system.
_GZIP_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\x02\xff"
_HEX = 64  # digits of a digest


def to_columns(document: dict[str, Any]) -> dict[str, Any]:
    """The columns of a document of rows."""
    size, skeleton, holes = document["skeleton"]
    inline: dict[str, bytes] = document["inline"]
    used = dict.fromkeys([*(row[-1] for row in (*holes, *document["entries"])), skeleton])
    stored = [name for name in used if name not in inline]
    numbers = {name: number for number, name in enumerate([*stored, *inline])}
    ends = [0, *(offset + nbytes for offset, nbytes, _ in holes)]
    keys, dtypes, shapes, tensors = _turned(document["entries"], 4)
    return {
        **document,
        "schema": 2,
        "digests": "".join(name.removeprefix("sha256:") for name in stored),
        "inline": [[len(data) for data in inline.values()], _packed(b"".join(inline.values()))],
        "skeleton": [
            size,
            numbers[skeleton],
            [offset - end for (offset, _, _), end in zip(holes, ends, strict=False)],
            [nbytes for _, nbytes, _ in holes],
            _steps(numbers[name] for *_, name in holes),
        ],
        "entries": [keys, dtypes, shapes, _steps(numbers[name] for name in tensors)],
    }


def to_rows(document: dict[str, Any]) -> dict[str, Any]:
    """The rows of a document of columns, whose types have been checked.

    Raises:
        ValueError: The columns do not fit each other.
        zlib.error: The inline bytes are damaged.
    """
    document = {**document}
    hexadecimal: str = document.pop("digests")
    inline = dict(_inline(*document["inline"]))
    starts = range(0, len(hexadecimal), _HEX)
    names = [*(f"sha256:{hexadecimal[at : at + _HEX]}" for at in starts), *inline]
    size, skeleton, gaps, sizes, holes = document["skeleton"]
    keys, dtypes, shapes, tensors = document["entries"]
    _expect_as_long("skeleton", gaps, sizes, holes)
    _expect_as_long("entries", keys, dtypes, shapes, tensors)
    offsets = _offsets(gaps, sizes)
    rows = zip(offsets, sizes, _named(holes, names), strict=True)
    entries = zip(keys, dtypes, shapes, _named(tensors, names), strict=True)
    (own,) = _named([skeleton], names)
    return {
        **document,
        "skeleton": [size, own, [list(row) for row in rows]],
        "entries": [list(row) for row in entries],
        "inline": inline,
    }


def deflated(document: bytes, *, digits: bytes = b"") -> bytes:
    """A document in the gzip format.

    Args:
        document: The document.
        digits: A part of it that holds the digests. In blocks of their own, and without a search
            for repetitions, hexadecimal digits take 4.0 bits each; among other text, 4.5.
    """
    begin = document.index(digits)
    end = begin + len(digits)
    return b"".join(
        (
            _GZIP_HEAD,
            _blocks(document[:begin]),
            _blocks(digits, strategy=zlib.Z_HUFFMAN_ONLY),
            _blocks(document[end:], last=True),
            struct.pack("<II", digest.crc32(document), len(document)),
        )
    )


def _blocks(data: bytes, *, strategy: int = zlib.Z_DEFAULT_STRATEGY, last: bool = False) -> bytes:
    """Deflated blocks of whole bytes, which do not refer to those before them."""
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS, strategy=strategy)
    return deflater.compress(data) + deflater.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)


def inflated(data: bytes) -> bytes:
    """The document, which may be deflated; it is bounded if it is.

    Raises:
        ValueError: It is larger, or incomplete.
        zlib.error: It is damaged.
    """
    return _inflated(data, MOST_BYTES, wbits=_GZIP) if data.startswith(b"\x1f\x8b") else data


def _inflated(data: bytes, most: int, *, wbits: int = zlib.MAX_WBITS) -> bytes:
    inflater = zlib.decompressobj(wbits)
    found = inflater.decompress(data, most + 1)
    if len(found) > most:
        raise ValueError(f"more than {most:,} bytes when inflated")
    if not inflater.eof or inflater.unused_data:
        raise ValueError("deflated bytes that are truncated, or have others behind them")
    return found


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode("ascii")


def _inline(sizes: Sequence[int], packed: str) -> Iterator[tuple[str, bytes]]:
    total = sum(sizes)
    if total > MOST_BYTES:
        raise ValueError(f"inline objects of {total:,} bytes, the limit is {MOST_BYTES:,}")
    data = _inflated(base64.b64decode(packed, validate=True), total)
    if len(data) != total:
        raise ValueError(f"inline objects have {len(data):,} bytes, expected {total:,}")
    for begin, end in pairwise(accumulate(sizes, initial=0)):
        yield digest.of_bytes(data[begin:end]), data[begin:end]


def _turned(rows: Iterable[Sequence[Any]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]


def _steps(numbers: Iterable[int]) -> list[int]:
    return [after - before for before, after in pairwise([0, *numbers])]


def _named(steps: Iterable[int], names: Sequence[str]) -> Iterator[str]:
    for number in accumulate(steps):
        if not 0 <= number < len(names):
            raise ValueError(f"object {number} of {len(names)}")
        yield names[number]


def _offsets(gaps: Sequence[int], sizes: Sequence[int]) -> Iterator[int]:
    position = 0
    for gap, nbytes in zip(gaps, sizes, strict=True):
        yield position + gap
        position += gap + nbytes


def _expect_as_long(what: str, *columns: Sequence[Any]) -> None:
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        raise ValueError(f"{what}: columns of {min(lengths):,} and {max(lengths):,} items")
