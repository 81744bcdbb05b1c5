"""safetensors: 8 bytes of header length, a JSON header, the tensors.

Source: safetensors README, "Format": the length is an unsigned little-endian 64-bit integer,
the header at most 100,000,000 bytes, it begins with ``{`` and may end in spaces; offsets count
from the end of the header; the tensors fill the rest without holes. Stricter than the
library where it silently loses something: duplicate names, unknown fields and the empty
name are refused. If a dtype packs two numbers into an element (F4), the header counts the
numbers, in the last dimension, and torch the elements; entries have torch's shape.
"""

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from shlex import quote
from typing import Any

from ckpt.dtypes import DTYPES, FROM_SAFETENSORS, DType
from ckpt.errors import TRUNCATED, FormatError, KeyCollisionError, excerpt
from ckpt.formats.checkpoint import Checksum, Pickled, expect_keys
from ckpt.formats.naming.metadata import keys_in, parted, unique, with_new_names
from ckpt.io.documents import strict_json
from ckpt.io.rights import OWNER, Rights
from ckpt.io.sources import ByteSource
from ckpt.tensors import Layout, Piece, Span, TensorEntry, tensor_spans

NAME = "safetensors"
HEADER_LIMIT = 100_000_000  # bytes
TENSOR_LIMIT = 250_000  # the largest models of today have 100,000 in all their shards
DIMENSIONS_LIMIT = 1000  # torch's own operations stop at 64
# The most marks in a header of so many tensors: a brace and two brackets each, two braces for
# the whole and its metadata, and commas.
_MARKS = ((b"{", TENSOR_LIMIT + 2), (b"[", 2 * TENSOR_LIMIT), (b",", 16 * TENSOR_LIMIT))
_METADATA = "__metadata__"
FIELDS = {"dtype", "shape", "data_offsets"}
# Values of `format` in `__metadata__`, which the library's own functions write.
_WRITERS = {
    "pt": "a PyTorch writer",
    "tf": "a TensorFlow writer",
    "flax": "a Flax writer",
    "np": "a NumPy writer",
    "mlx": "an MLX writer",
}


@dataclass(frozen=True, slots=True)
class SafetensorsFile:
    """An opened file; a `ckpt.formats.checkpoint.Checkpoint`."""

    source: ByteSource
    entries: Sequence[TensorEntry]
    metadata: Mapping[str, str] | None
    body: Span
    format: str = NAME
    pickled: Pickled | None = None

    @property
    def written_by(self) -> str | None:
        """By the `format` of ``__metadata__``."""
        return _WRITERS.get((self.metadata or {}).get("format", ""))

    @property
    def checksums(self) -> Sequence[Checksum]:
        return ()

    @property
    def spans(self) -> Sequence[Span]:
        return tensor_spans(self.entries)

    @property
    def rest(self) -> Mapping[str, Any]:
        """The header's ``__metadata__``."""
        return self.metadata or {}

    @property
    def others(self) -> Sequence[str]:
        return ()

    @property
    def aliases(self) -> Mapping[str, str]:
        """The tied tensors that `safetensors.torch.save_model` left out.

        It notes them in ``__metadata__``, each with the key that it kept.
        """
        keys = {entry.key for entry in self.entries}
        return {name: kept for name, kept in (self.metadata or {}).items() if kept in keys}

    def also_named(self, keys: Container[str]) -> Sequence[str]:
        """``__metadata__``, if it notes one of them."""
        noted = {*self.aliases, *self.aliases.values(), *keys_in(self.rest)}
        return (_METADATA,) if any(name in keys for name in noted) else ()

    def untouched(self, new_keys: Mapping[str, str]) -> Mapping[str, Any]:
        new = self._renamed_metadata(new_keys) or {}
        same = {name: text for name, text in self.rest.items() if new.get(name) == text}
        return {_METADATA: [same, parted(self.rest, new_keys)]}

    def left_behind(self, keys: Container[str]) -> Sequence[str]:
        return ()

    def renamed(self, new_keys: Mapping[str, str]) -> list[Piece]:
        """A new header, and the body unchanged."""
        return [self._new_header(new_keys), self.body]

    def start_renamed(self, new_keys: Mapping[str, str]) -> bytes | None:
        """The header with other keys, as long as the old one; None if it is too long."""
        text = self._new_header(new_keys)[8:].rstrip(b" ")
        room = self.body.offset - 8
        return self.source.read(0, 8) + text.ljust(room) if len(text) <= room else None

    def _new_header(self, new_keys: Mapping[str, str]) -> bytes:
        keys = [new_keys.get(entry.key, entry.key) for entry in self.entries]
        _expect_keys(self.source.name, keys)
        header = {
            key: _described(entry, entry.position - self.body.offset)
            for key, entry in zip(keys, self.entries, strict=True)
        }
        return _header_bytes(header, self._renamed_metadata(new_keys))

    def _renamed_metadata(self, new_keys: Mapping[str, str]) -> Mapping[str, str] | None:
        if self.metadata is None:
            return None
        tied = set(self.aliases)
        metadata = with_new_names(self.metadata, new_keys)
        names = [new_keys.get(name, name) if name in tied else name for name in metadata]
        if not unique(names):
            raise KeyCollisionError(f"{self.source.name}: two names of {_METADATA} would be equal")
        texts = [new_keys.get(text, text) if name in tied else text
                 for name, text in metadata.items()]  # fmt: skip
        return dict(zip(names, texts, strict=True))


class _Start(ByteSource):
    """A file of which only the beginning is known."""

    def __init__(self, start: bytes, size: int) -> None:
        self.name, self.size, self.parts = "the journal", size, ()
        self._start = start

    @property
    def rights(self) -> Rights:
        return OWNER

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        yield self._start[offset : offset + nbytes]


def recognises(head: bytes) -> bool:
    """A JSON object after a length of at most four bytes, as the limit has."""
    return head[4:8] == b"\0\0\0\0" and head[8:].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{"


def read(source: ByteSource, *, inside: str | None = None) -> SafetensorsFile:
    """Open a safetensors file."""
    name = source.name
    if inside is not None:
        raise FormatError(f"{name}::{inside}: a safetensors file holds one state_dict")
    data = header_of(source)
    header = parsed(name, data)
    metadata = _metadata(name, header.pop(_METADATA, None))
    body = Span(8 + len(data), source.size - 8 - len(data))
    entries = tuple(entry(name, key, fields, body) for key, fields in header.items())
    _expect_filled(name, entries, body)
    return SafetensorsFile(source, entries, metadata, body)


def header_of(source: ByteSource) -> bytes:
    """The header's bytes, without their length before them."""
    length = int.from_bytes(source.read(0, 8), "little")
    if length > HEADER_LIMIT:
        raise FormatError(
            f"{source.name}: a header of {length:,} bytes, the limit is {HEADER_LIMIT:,}"
        )
    if 8 + length > source.size:
        raise FormatError(
            f"{source.name}: the header should have {length:,} bytes, the file has {source.size:,}",
            hint=TRUNCATED,
        )
    return source.read(8, length)


def is_start(start: bytes, size: int) -> bool:
    """Whether `start` is the whole header of a file of `size` bytes."""
    try:
        return read(_Start(start, size)).body.offset == len(start)
    except FormatError:
        return False


def carries(key: str, value: object) -> bool:
    """Only text, as ``__metadata__`` holds it."""
    return isinstance(value, str)


def lay_out(
    entries: Sequence[TensorEntry], *, name: str, rest: Mapping[str, Any] | None = None
) -> Layout:
    """As in `ckpt.formats.checkpoint.Format`.

    The header keeps the order of `entries`; in the body wide dtypes precede narrow ones,
    so that every tensor is aligned to its element.
    """
    for entry in entries:
        dtype = DTYPES[entry.dtype]
        scalar = "" if entry.shape or dtype.numbers == 1 else " without dimensions"
        if dtype.safetensors is None or scalar:
            raise FormatError(
                f"{entry.key}: safetensors cannot hold {entry.dtype}{scalar}",
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
        raise FormatError(f"{name}: safetensors cannot hold the key {_METADATA}")


def parsed(name: str, data: bytes) -> dict[str, Any]:
    """The header's JSON: what it says of each tensor by its key, and ``__metadata__``."""
    if not data.startswith(b"{"):
        raise FormatError(f"{name}: the header does not begin with {{", hint=_mend(name))
    # Parsed JSON takes a hundred times its length in memory, so this is checked before.
    if any(data.count(mark) > most for mark, most in _MARKS):
        raise FormatError(f"{name}: a header of more than {TENSOR_LIMIT:,} tensors")
    try:
        header: dict[str, Any] = strict_json.parse(data.decode("utf-8"))  # it begins with a brace
    except ValueError as error:  # of JSON or UTF-8
        hint = _mend(name) if data.endswith(b"\0") else None
        raise FormatError(f"{name}: the header is not valid JSON: {error}", hint=hint) from error
    return header


def _mend(name: str) -> str:
    """The hint for a file that `ckpt.formats.nearly_safetensors` reads."""
    return (
        f"ckpt repair {quote(name)} -o NEW  writes it as the format has it, and says what differs"
    )


def _expect_text(name: str, text: str) -> None:
    """Refuse half of a surrogate pair, which JSON can escape but no file can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FormatError(f"{name}: {_brief(text)} is not valid Unicode") from error


def _brief(value: object) -> str:
    """A foreign value, as much of it as fits into a message."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value):,}"
    return excerpt(repr(value))


def _metadata(name: str, metadata: Any) -> Mapping[str, str] | None:
    if metadata is None:
        return None
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FormatError(f"{name}: {_METADATA} is not an object of text to text", hint=_mend(name))
    for text in (*metadata, *metadata.values()):
        _expect_text(name, text)
    return metadata


def entry(name: str, key: str, fields: Any, body: Span) -> TensorEntry:
    """The tensor of which the header says `fields`; its bytes are in `body`."""
    if not key:
        raise FormatError(f"{name}: a tensor has an empty name")
    _expect_text(name, key)
    if not isinstance(fields, dict) or fields.keys() != FIELDS:
        found = ", ".join(map(_brief, fields)) if isinstance(fields, dict) else _brief(fields)
        raise FormatError(
            f"{name}: {key}: has {found}, expected dtype, shape, data_offsets",
            hint=_mend(name) if isinstance(fields, dict) and fields.keys() > FIELDS else None,
        )
    dtype = FROM_SAFETENSORS.get(fields["dtype"]) if isinstance(fields["dtype"], str) else None
    if dtype is None:
        text = fields["dtype"] if isinstance(fields["dtype"], str) else "?"
        known = not text or text.upper() in FROM_SAFETENSORS
        hint = _mend(name) if known else None
        raise FormatError(f"{name}: {key}: unknown dtype {_brief(fields['dtype'])}", hint=hint)
    shape = _elements(name, key, dtype, _whole_numbers(name, key, fields["shape"]))
    offsets = _whole_numbers(name, key, fields["data_offsets"])
    if len(offsets) != 2:
        raise FormatError(f"{name}: {key}: {len(offsets)} offsets, expected two")
    begin, end = offsets
    if prod(filter(None, shape)) >= 2**63:
        raise FormatError(f"{name}: {key}: 2^63 elements or more")
    tensor = TensorEntry(key, dtype.name, shape, offset=body.offset + begin)
    if end - begin != tensor.nbytes:
        raise FormatError(
            f"{name}: {key}: {end - begin:,} bytes for {dtype.name} of shape {list(shape)}, "
            f"expected {tensor.nbytes:,}"
        )
    return tensor


def _elements(name: str, key: str, dtype: DType, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape as torch has it: elements have at least one byte."""
    if dtype.numbers == 1:
        return shape
    if not shape or shape[-1] % dtype.numbers:
        raise FormatError(
            f"{name}: {key}: {dtype.safetensors} of shape {list(shape)}; an element of torch's "
            f"{dtype.name} holds {dtype.numbers} numbers of the last dimension"
        )
    return (*shape[:-1], shape[-1] // dtype.numbers)


def _whole_numbers(name: str, key: str, numbers: Any) -> tuple[int, ...]:
    if not isinstance(numbers, list):
        raise FormatError(f"{name}: {key}: {_brief(numbers)} is not a list of numbers")
    if len(numbers) > DIMENSIONS_LIMIT:
        raise FormatError(f"{name}: {key}: {len(numbers):,} dimensions")
    for number in numbers:
        # In Python a bool is an int, in JSON it is not a number.
        if type(number) is not int or not 0 <= number < 2**63:
            raise FormatError(f"{name}: {key}: {_brief(number)} is not a size or offset")
    return tuple(numbers)


def _expect_filled(name: str, entries: Sequence[TensorEntry], body: Span) -> None:
    """Make sure that the tensors lie end to end and fill the file."""
    position = body.offset
    for entry in sorted(entries, key=lambda entry: (entry.position, entry.nbytes)):
        if entry.offset != position:
            kind = "overlaps another" if entry.position < position else "leaves a hole before it"
            what = f"{name}: {entry.key}: {kind}, at byte {entry.offset:,}"
            raise FormatError(what, hint=_mend(name))
        position += entry.nbytes
    if position != body.end:
        raise FormatError(
            f"{name}: the header promises {position - body.offset:,} bytes of tensors, "
            f"the file holds {body.nbytes:,}",
            hint=TRUNCATED if position > body.end else _mend(name),
        )


def header_before(entries: Sequence[TensorEntry], metadata: Mapping[str, str] | None) -> bytes:
    """The header of a file in which the entries follow each other in this order."""
    header, position = {}, 0
    for each in entries:
        header[each.key] = _described(each, position)
        position += each.nbytes
    return _header_bytes(header, metadata)


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
