"""safetensors files as careless writers leave them, for `ckpt repair`.

What the format does not allow but nobody can misread is mended, each change with a remark; tensors
keep their bytes. What could be read in two ways, or lacks bytes, is refused as `safetensors` does.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckpt.dtypes import FROM_SAFETENSORS
from ckpt.errors import TRUNCATED, FormatError
from ckpt.formats import safetensors
from ckpt.io.sources import ByteSource
from ckpt.tensors import Piece, Span, TensorEntry

_AROUND = b"\xef\xbb\xbf\0 \t\r\n"  # a byte order mark, padding and white space


@dataclass(frozen=True, slots=True)
class Mended:
    """A file as it should have been written.

    Attributes:
        layout: Its pieces, a new header before the tensors of the old file.
        entries: Its tensors.
        changes: What differs from the old file, a sentence each; empty if nothing does.
    """

    layout: Sequence[Piece]
    entries: Sequence[TensorEntry]
    changes: Sequence[str]


def mend(source: ByteSource) -> Mended:
    """Read a file that is nearly a safetensors file.

    Raises:
        FormatError: It is another kind of file, lacks bytes, or can be read in two ways.
    """
    name, changes = source.name, list[str]()
    data = safetensors.header_of(source)
    body = Span(8 + len(data), source.size - 8 - len(data))
    text = data.strip(_AROUND)
    if data.rstrip(b" ") != text:
        changes.append(f"left out {len(data) - len(text):,} bytes around the header's JSON")
    header = safetensors.parsed(name, text)
    metadata = _texts(header.pop("__metadata__", None), changes)
    entries = [
        safetensors.entry(name, key, mended, body)
        for key, fields in header.items()
        if (mended := _fields(key, fields, changes)) is not None
    ]
    entries.sort(key=lambda entry: (entry.position, entry.nbytes))
    _remark_gaps(name, entries, body, changes)
    layout: list[Piece] = [safetensors.header_before(entries, metadata)]
    layout += [Span(entry.position, entry.nbytes) for entry in entries if entry.nbytes]
    return Mended(layout, entries, changes)


def _texts(metadata: Any, changes: list[str]) -> Mapping[str, str] | None:
    """The metadata as text to text; other values as their JSON."""
    if metadata is None:
        return None
    if not isinstance(metadata, dict):
        changes.append("left out the metadata, which is not an object")
        return None
    texts = {key: each if isinstance(each, str) else json.dumps(each)
             for key, each in metadata.items()}  # fmt: skip
    changed = [key for key, text in texts.items() if text != metadata[key]]
    if changed:
        changes.append(f"wrote as text in the metadata: {', '.join(changed)}")
    return texts


def _fields(key: str, fields: Any, changes: list[str]) -> Any:
    """What the header says of one tensor, as the format has it; None if that is nothing at all."""
    if not isinstance(fields, dict):
        return fields  # refused as in a good file
    if fields.get("dtype") == "" and fields.get("data_offsets") in ([0, 0], None):
        changes.append(f"left out {key}, which has no dtype and no bytes")
        return None
    known = {each: fields[each] for each in safetensors.FIELDS if each in fields}
    if len(known) < len(fields):
        others = ", ".join(each for each in fields if each not in known)
        changes.append(f"left out what the format does not have of {key}: {others}")
    dtype = known.get("dtype")
    if (
        isinstance(dtype, str)
        and dtype not in FROM_SAFETENSORS
        and dtype.upper() in FROM_SAFETENSORS
    ):
        changes.append(f"wrote the dtype of {key} as {dtype.upper()}")
        known["dtype"] = dtype.upper()
    return known


def _remark_gaps(name: str, entries: Sequence[TensorEntry], body: Span, changes: list[str]) -> None:
    """Note the bytes that belong to no tensor, or to several."""
    end, holes, shared = body.offset, 0, list[str]()
    for entry in entries:
        if entry.nbytes and entry.position < end:
            shared.append(entry.key)
        holes += max(0, entry.position - end)
        end = max(end, entry.position + entry.nbytes)
    if end > body.end:
        raise FormatError(
            f"{name}: the tensors end at byte {end:,}, the file has {body.end:,}",
            hint=TRUNCATED,
        )
    if holes:
        changes.append(f"left out {holes:,} bytes between the tensors")
    if shared:
        changes.append(f"copied the bytes that another tensor has too: {', '.join(shared)}")
    if end < body.end:
        changes.append(f"left out {body.end - end:,} bytes after the last tensor")
