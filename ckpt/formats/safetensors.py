"""safetensors: 8 bytes of header length, a JSON header, the tensors.

Source: safetensors README, "Format": the length is an unsigned little-endian 64-bit integer,
the header at most 100,000,000 bytes, it begins with ``{`` and may end in spaces; offsets count
from the end of the header; the tensors fill the rest without holes. Stricter than the
library where that loses something in silence: duplicate names, unknown fields and the empty
name are refused. Of a dtype that packs two numbers into an element (F4) the header counts the
numbers, in the last dimension, and torch the elements; entries have torch's shape.
"""

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ckpt.dtypes import DTYPES, FROM_SAFETENSORS, DType
from ckpt.errors import FormatError, KeyCollisionError
from ckpt.formats.checkpoint import Checksum, expect_keys
from ckpt.io import strict_json
from ckpt.io.sources import ByteSource
from ckpt.tensors import Layout, Piece, Span, TensorEntry, tensor_spans

NAME = "safetensors"
HEADER_LIMIT = 100_000_000  # bytes
TENSOR_LIMIT = 250_000  # the largest models of today have 100,000 in all their shards
DIMENSIONS_LIMIT = 1000  # torch's own operations stop at 64
# What a header of so many tensors has at most: a brace and two brackets each, two braces for
# the whole and its metadata, and commas.
_MARKS = ((b"{", TENSOR_LIMIT + 2), (b"[", 2 * TENSOR_LIMIT), (b",", 16 * TENSOR_LIMIT))
_METADATA = "__metadata__"
_FIELDS = {"dtype", "shape", "data_offsets"}
# What `__metadata__` has as its format; the library's own functions for each of them write it.
_WRITERS = {
    "pt": "a PyTorch writer",
    "tf": "a TensorFlow writer",
    "flax": "a Flax writer",
    "np": "a NumPy writer",
    "mlx": "an MLX writer",
}


@dataclass(frozen=True, slots=True)
class SafetensorsFile:
    """An opened file; see `ckpt.formats.checkpoint.Checkpoint`."""

    source: ByteSource
    entries: Sequence[TensorEntry]
    metadata: Mapping[str, str] | None
    body: Span
    format: str = NAME

    @property
    def written_by(self) -> str | None:
        """By the format that ``__metadata__`` states."""
        return _WRITERS.get((self.metadata or {}).get("format", ""))

    @property
    def checksums(self) -> Sequence[Checksum]:
        """None: the format has no checksums."""
        return ()

    @property
    def spans(self) -> Sequence[Span]:
        """All tensors, in file order."""
        return tensor_spans(self.entries)

    @property
    def rest(self) -> Mapping[str, Any]:
        """The header's ``__metadata__``."""
        return self.metadata or {}

    @property
    def aliases(self) -> Sequence[str]:
        """What `safetensors.torch.save_model` left out, since another tensor has its bytes.

        It notes them in ``__metadata__``, with the key that was kept.
        """
        keys = {entry.key for entry in self.entries}
        return [name for name, kept in (self.metadata or {}).items() if kept in keys]

    def also_named(self, keys: Container[str]) -> Sequence[str]:
        """In ``__metadata__``, of tied tensors."""
        tied = {*self.aliases, *((self.metadata or {})[alias] for alias in self.aliases)}
        named = any(name in keys for name in tied)
        return (_METADATA,) if named else ()

    def renamed(self, new_keys: Mapping[str, str]) -> list[Piece]:
        """A new header and the body as it is."""
        keys = [new_keys.get(entry.key, entry.key) for entry in self.entries]
        _expect_keys(self.source.name, keys)
        header = {
            key: _described(entry, _offset(entry) - self.body.offset)
            for key, entry in zip(keys, self.entries, strict=True)
        }
        return [_header_bytes(header, self._renamed_metadata(new_keys)), self.body]

    def start_renamed(self, new_keys: Mapping[str, str]) -> bytes | None:
        """The header with other keys in the room of the old one; None if it has no room."""
        start, body = self.renamed(new_keys)
        assert isinstance(start, bytes)
        assert body == self.body
        text = start[8:].rstrip(b" ")
        room = self.body.offset - 8
        return self.source.read(0, 8) + text.ljust(room) if len(text) <= room else None

    def _renamed_metadata(self, new_keys: Mapping[str, str]) -> Mapping[str, str] | None:
        if self.metadata is None:
            return None
        tied = set(self.aliases)
        names = [new_keys.get(name, name) if name in tied else name for name in self.metadata]
        if len(set(names)) < len(names):
            raise KeyCollisionError(f"{self.source.name}: two names of {_METADATA} would be one")
        texts = [new_keys.get(text, text) if name in tied else text
                 for name, text in self.metadata.items()]  # fmt: skip
        return dict(zip(names, texts, strict=True))


def recognises(head: bytes) -> bool:
    """A JSON object after a length that has four bytes at most, as the limit has."""
    return head[4:9] == b"\0\0\0\0{"


def read(source: ByteSource, *, inside: str | None = None) -> SafetensorsFile:
    """See `ckpt.formats.checkpoint.Format.read`."""
    name = source.name
    if inside is not None:
        raise FormatError(f"{name}::{inside}: a safetensors file holds one state_dict")
    length = int.from_bytes(source.read(0, 8), "little")
    if length > HEADER_LIMIT:
        raise FormatError(f"{name}: a header of {length:,} bytes, the limit is {HEADER_LIMIT:,}")
    if 8 + length > source.size:
        raise FormatError(
            f"{name}: its header should have {length:,} bytes, the file has {source.size:,}",
            hint="the file is cut short; fetch it again",
        )
    header = _parse(name, source.read(8, length))
    metadata = _metadata(name, header.pop(_METADATA, None))
    body = Span(8 + length, source.size - 8 - length)
    entries = tuple(_entry(name, key, fields, body) for key, fields in header.items())
    _expect_filled(name, entries, body)
    return SafetensorsFile(source, entries, metadata, body)


def carries(key: str, value: object) -> bool:
    """See `ckpt.formats.checkpoint.Format.carries`: text, as ``__metadata__`` has it."""
    return isinstance(value, str)


def lay_out(
    entries: Sequence[TensorEntry], *, name: str, rest: Mapping[str, Any] | None = None
) -> Layout:
    """See `ckpt.formats.checkpoint.Format.lay_out`.

    The header keeps the order of `entries`; the body goes from wide dtypes to narrow ones,
    so that every tensor is aligned to its element.
    """
    for entry in entries:
        dtype = DTYPES[entry.dtype]
        scalar = "" if entry.shape or dtype.numbers == 1 else " without a dimension"
        if dtype.safetensors is None or scalar:
            raise FormatError(
                f"{entry.key}: safetensors has no {entry.dtype}{scalar}",
                hint="write a .pt file instead",
            )
    _expect_keys("the new file", [entry.key for entry in entries])
    body = sorted(entries, key=lambda entry: -DTYPES[entry.dtype].bits)
    offsets, position = {}, 0
    for entry in body:
        offsets[entry.key] = position
        position += entry.nbytes
    header = {entry.key: _described(entry, offsets[entry.key]) for entry in entries}
    pieces: list[Piece] = [_header_bytes(header, {"format": "pt", **(rest or {})})]
    return pieces + [entry for entry in body if entry.nbytes]


def _expect_keys(name: str, keys: Sequence[str]) -> None:
    expect_keys(name, keys)
    if _METADATA in keys:
        raise FormatError(f"{name}: {_METADATA} is no key that safetensors can hold")


def _parse(name: str, data: bytes) -> dict[str, Any]:
    if not data.startswith(b"{"):
        raise FormatError(f"{name}: the header does not begin with {{")
    # JSON takes a hundred times its length in memory; this is known before it is parsed.
    if any(data.count(mark) > most for mark, most in _MARKS):
        raise FormatError(f"{name}: a header of more than {TENSOR_LIMIT:,} tensors")
    try:
        header = strict_json.parse(data.decode("utf-8"))
    except ValueError as error:  # of JSON or UTF-8
        raise FormatError(f"{name}: the header is no JSON that can be meant: {error}") from error
    assert isinstance(header, dict)  # it begins with a brace
    return header


def _expect_text(name: str, text: str) -> None:
    """JSON can escape half of a surrogate pair, which is no text and cannot be written."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FormatError(f"{name}: {_short(text)} is no Unicode text") from error


def _short(value: object) -> str:
    """A foreign value, as much of it as has room in a line."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value):,}"
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"


def _metadata(name: str, metadata: Any) -> Mapping[str, str] | None:
    if metadata is None:
        return None
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FormatError(f"{name}: {_METADATA} is not an object of text to text")
    for text in (*metadata, *metadata.values()):
        _expect_text(name, text)
    return metadata


def _entry(name: str, key: str, fields: Any, body: Span) -> TensorEntry:
    if not key:
        raise FormatError(f"{name}: a tensor has the empty name")
    _expect_text(name, key)
    if not isinstance(fields, dict) or fields.keys() != _FIELDS:
        found = ", ".join(map(_short, fields)) if isinstance(fields, dict) else _short(fields)
        raise FormatError(f"{name}: {key}: has {found}; dtype, shape, data_offsets were expected")
    dtype = FROM_SAFETENSORS.get(fields["dtype"]) if isinstance(fields["dtype"], str) else None
    if dtype is None:
        raise FormatError(f"{name}: {key}: dtype {_short(fields['dtype'])} is not known")
    shape = _elements(name, key, dtype, _whole_numbers(name, key, fields["shape"]))
    offsets = _whole_numbers(name, key, fields["data_offsets"])
    if len(offsets) != 2:
        raise FormatError(f"{name}: {key}: {len(offsets)} offsets, two were expected")
    begin, end = offsets
    if prod(filter(None, shape)) >= 2**63:
        raise FormatError(f"{name}: {key}: 2^63 elements or more")
    nbytes = prod(shape) * dtype.bits // 8
    if end - begin != nbytes:
        raise FormatError(
            f"{name}: {key}: {end - begin:,} bytes for {dtype.name} of shape {list(shape)}, "
            f"{nbytes:,} were expected"
        )
    return TensorEntry(key, dtype.name, shape, offset=body.offset + begin)


def _elements(name: str, key: str, dtype: DType, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape as torch has it, which counts elements of a byte or more."""
    if dtype.numbers == 1:
        return shape
    if not shape or shape[-1] % dtype.numbers:
        raise FormatError(
            f"{name}: {key}: {dtype.safetensors} of shape {list(shape)}; torch's {dtype.name} "
            f"holds {dtype.numbers} numbers an element, along the last dimension"
        )
    return (*shape[:-1], shape[-1] // dtype.numbers)


def _whole_numbers(name: str, key: str, numbers: Any) -> tuple[int, ...]:
    if not isinstance(numbers, list):
        raise FormatError(f"{name}: {key}: {_short(numbers)} is no list of numbers")
    if len(numbers) > DIMENSIONS_LIMIT:
        raise FormatError(f"{name}: {key}: {len(numbers):,} dimensions")
    for number in numbers:
        # bool is an int to Python, and no number to JSON.
        if type(number) is not int or not 0 <= number < 2**63:
            raise FormatError(f"{name}: {key}: {_short(number)} is no size or offset")
    return tuple(numbers)


def _expect_filled(name: str, entries: Sequence[TensorEntry], body: Span) -> None:
    """The tensors lie end to end and fill the file."""
    position = body.offset
    for entry in sorted(entries, key=lambda entry: (_offset(entry), entry.nbytes)):
        if entry.offset != position:
            kind = "overlaps another" if _offset(entry) < position else "leaves a hole before it"
            raise FormatError(f"{name}: {entry.key}: {kind}, at byte {entry.offset:,}")
        position += entry.nbytes
    if position != body.end:
        raise FormatError(
            f"{name}: the header promises {position - body.offset:,} bytes of tensors, "
            f"the file holds {body.nbytes:,}",
            hint="the file is cut short; fetch it again" if position > body.end else None,
        )


def _offset(entry: TensorEntry) -> int:
    assert entry.offset is not None  # entries of a file have one
    return entry.offset


def _described(entry: TensorEntry, begin: int) -> dict[str, Any]:
    dtype = DTYPES[entry.dtype]
    shape = list(entry.shape)
    if dtype.numbers > 1:
        shape[-1] *= dtype.numbers
    return {
        "dtype": dtype.safetensors,
        "shape": shape,
        "data_offsets": [begin, begin + entry.nbytes],
    }


def _header_bytes(header: Mapping[str, Any], metadata: Mapping[str, str] | None) -> bytes:
    full = header if metadata is None else {_METADATA: metadata, **header}
    data = json.dumps(full, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    data += b" " * (-len(data) % 8)
    return len(data).to_bytes(8, "little") + data
