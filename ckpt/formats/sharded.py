"""Sharded checkpoints: an index, and beside it the shards, which are checkpoints themselves.

`model.safetensors.index.json` or `pytorch_model.bin.index.json` maps every key to the base
name of its shard. Source: `huggingface_hub.serialization` (`split_state_dict_into_shards_factory`)
and transformers' `load_sharded_checkpoint`. The index and its shards are read as one source, the
shards in the order of their names. Law: every key is in the shard that the index names, and in
no other.
"""

import json
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from shlex import quote
from typing import Any

from ckpt.errors import FormatError, excerpt
from ckpt.formats import open_single
from ckpt.formats.checkpoint import Checkpoint, Checksum, Pickled, expect_keys
from ckpt.formats.zip.inflated import HINT
from ckpt.io.composed import ExtendedSource, PartSource
from ckpt.io.documents import strict_json
from ckpt.io.files import is_base_name
from ckpt.io.sources import ByteSource, Part
from ckpt.refs import without_index
from ckpt.tensors import FileStart, Layout, Piece, Span, Summed, TensorEntry

INDEX_LIMIT = 1 << 28  # bytes; 100,000 keys take 10 MB
SHARD_LIMIT = 10_000
_USUAL_REST = {"format": "pt"}  # written by safetensors.torch into every file
# The usual layouts of an index; a rename keeps the layout.
_STYLES: tuple[dict[str, Any], ...] = (
    {"indent": 2, "sort_keys": True},
    {"indent": 2},
    {"indent": 4},
    {},
    {"separators": (",", ":")},
)


@dataclass(frozen=True, slots=True)
class ShardedCheckpoint:
    """An index and its shards; a `ckpt.formats.checkpoint.Checkpoint`."""

    source: ByteSource
    index: Mapping[str, Any]
    shards: Sequence[Checkpoint]
    entries: Sequence[TensorEntry]
    format: str

    @property
    def written_by(self) -> str | None:
        """The writer of the shards."""
        return next((shard.written_by for shard in self.shards), None)

    @property
    def spans(self) -> Sequence[Span]:
        return [span.moved(part.offset) for part, shard in self._pairs() for span in shard.spans]

    @property
    def checksums(self) -> Sequence[Checksum]:
        return [
            Checksum(
                checksum.span.moved(part.offset), checksum.crc32, f"{part.name}: {checksum.what}"
            )
            for part, shard in self._pairs()
            for checksum in shard.checksums
        ]

    @property
    def rest(self) -> Mapping[str, Any]:
        """The index's metadata, and the rest of each shard, if unusual.

        `total_size` is left out: it follows from the tensors.
        """
        index = {key: value for key, value in self.index.items() if key != "weight_map"}
        metadata = index.pop("metadata", None)
        if isinstance(metadata, dict):
            index |= {key: value for key, value in metadata.items() if key != "total_size"}
        shards = {
            part.name: dict(shard.rest)
            for part, shard in self._pairs()
            if shard.rest not in ({}, _USUAL_REST)
        }
        return {**index, **shards}

    @property
    def aliases(self) -> Mapping[str, str]:
        return {name: key for shard in self.shards for name, key in shard.aliases.items()}

    @property
    def others(self) -> Sequence[str]:
        return [key for shard in self.shards for key in shard.others]

    @property
    def pickled(self) -> Pickled | None:
        found = [shard.pickled for shard in self.shards if shard.pickled is not None]
        names = dict(pair for one in found for pair in one.globals.items())
        return Pickled(names, max(one.protocol for one in found)) if found else None

    def also_named(self, keys: Container[str]) -> Sequence[str]:
        return list(dict.fromkeys(at for shard in self.shards for at in shard.also_named(keys)))

    def left_behind(self, keys: Container[str]) -> Sequence[str]:
        return ()

    def untouched(self, new_keys: Mapping[str, str]) -> Mapping[str, Any]:
        index, *_ = self.source.parts
        own = {key: value for key, value in self.index.items() if key != "weight_map"}
        shards = {part.name: shard.untouched(new_keys) for part, shard in self._pairs()}
        return {index.name: own, **shards}

    def renamed(self, new_keys: Mapping[str, str]) -> Layout:
        """All files, the index first; without new keys the index keeps its bytes."""
        keys = [new_keys.get(entry.key, entry.key) for entry in self.entries]
        expect_keys(self.source.name, keys)
        index, *_ = self.source.parts
        yield FileStart(index.name)
        if keys == [entry.key for entry in self.entries]:
            yield Span(0, index.nbytes)
        else:
            yield self._new_index(new_keys)
        for part, shard in self._pairs():
            yield FileStart(part.name)
            for piece in shard.renamed(new_keys):
                if isinstance(piece, FileStart):
                    raise ValueError(f"{part.name}: a shard of several files")
                yield _moved(piece, part.offset)

    def _new_index(self, new_keys: Mapping[str, str]) -> bytes:
        old = self.source.read(0, self.source.parts[0].nbytes)
        weight_map = {
            new_keys.get(key, key): name for key, name in self.index["weight_map"].items()
        }
        for style in _STYLES:
            for end in ("", "\n"):
                if _dumped(self.index, style) + end == old.decode("utf-8"):
                    return (_dumped({**self.index, "weight_map": weight_map}, style) + end).encode()
        return (_dumped({**self.index, "weight_map": weight_map}, _STYLES[0]) + "\n").encode()

    def _pairs(self) -> Iterator[tuple[Part, Checkpoint]]:
        return zip(self.source.parts[1:], self.shards, strict=True)


def is_index(head: bytes) -> bool:
    """Whether a file that begins with `head` may be an index: a JSON object."""
    return re.match(rb'\s*\{\s*"', head) is not None


def shard_names(index_name: str, data: bytes, *, name: str) -> tuple[str, ...]:
    """The shards that an index names, each once, in the order of their names.

    Args:
        index_name: Its base name.
        data: Its bytes.
        name: Of the index, for messages.

    Raises:
        FormatError: It is not an index, or names something other than a file beside it.
    """
    weight_map = _parse(data, name)["weight_map"]
    shards = tuple(sorted(set(weight_map.values())))
    kinds = {PurePath(shard).suffix for shard in shards}
    for shard in shards:
        if not is_base_name(shard) or shard == index_name:
            raise FormatError(
                f"{name}: lists {excerpt(repr(shard))}, which is not a file beside it",
                hint="shards are in the folder of their index; do not trust this one",
            )
    wanted = PurePath(without_index(index_name) or "").suffix
    if len(kinds) > 1 or (wanted and kinds - {wanted}):
        raise FormatError(
            f"{name}: lists shards with suffixes {' and '.join(sorted(kinds))}"
            + (f", expected {wanted}" if wanted else "")
        )
    if len(shards) > SHARD_LIMIT:
        raise FormatError(f"{name}: {len(shards):,} shards, the limit is {SHARD_LIMIT:,}")
    return shards


def read(source: ByteSource, *, inside: str | None = None) -> ShardedCheckpoint:
    """Open an index and its shards, which `source` joins.

    Raises:
        FormatError: They are not well-formed, or contradict each other.
    """
    if inside is not None:
        raise FormatError(f"{source.name}::{inside}: a sharded checkpoint holds one state_dict")
    first, *parts = source.parts
    where = source.name if source.name.endswith(first.name) else f"{source.name}: {first.name}"
    data = source.read(0, first.nbytes)
    names = shard_names(first.name, data, name=where)
    if names != tuple(part.name for part in parts):
        raise FormatError(f"{where}: lists other shards than those beside it")
    index = _parse(data, where)
    shards = [open_single(PartSource(source, part), inside=None) for part in parts]
    for part, shard in zip(parts, shards, strict=True):
        if isinstance(shard.source, ExtendedSource):
            raise FormatError(f"{source.name}: {part.name}: a compressed shard", hint=HINT)
    formats = {shard.format for shard in shards}
    if len(formats) > 1:
        raise FormatError(
            f"{where}: its shards have several formats: {' and '.join(sorted(formats))}"
        )
    entries = tuple(
        entry.moved(part.offset)
        for part, shard in zip(parts, shards, strict=True)
        for entry in shard.entries
    )
    _expect_mapped(where, index["weight_map"], parts, shards)
    _expect_total(where, index, entries)
    return ShardedCheckpoint(source, index, shards, entries, f"{formats.pop()}-sharded")


def _parse(data: bytes, name: str) -> dict[str, Any]:
    try:
        index: Any = strict_json.parse(data.decode("utf-8"))
    except ValueError as error:
        if _is_lines(data):
            hint = f"to draw what ckpt train --metrics wrote:  ckpt plot {quote(name)}"
            hint = hint if name.endswith(".jsonl") else "name a checkpoint"
            raise FormatError(f"{name}: JSON lines, not a checkpoint", hint=hint) from error
        raise FormatError(f"{name}: damaged: {error}", hint="fetch it again") from error
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict):
        raise FormatError(f"{name}: a JSON file without a weight_map, not an index")
    if not weight_map or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise FormatError(f"{name}: its weight_map does not map keys to file names")
    return dict(index)


def _is_lines(data: bytes) -> bool:
    """Whether the first two lines are JSON documents."""
    try:
        first, second = (strict_json.parse(line.decode()) for line in data.split(b"\n", 2)[:2])
    except ValueError:  # also if there is one line alone
        return False
    return isinstance(first, dict) and isinstance(second, dict)


def _expect_mapped(
    where: str, weight_map: Mapping[str, str], parts: Sequence[Part], shards: Sequence[Checkpoint]
) -> None:
    found: dict[str, str] = {}
    for part, shard in zip(parts, shards, strict=True):
        for entry in shard.entries:
            if entry.key in found:
                raise FormatError(
                    f"{where}: {entry.key} is in {found[entry.key]} and in {part.name}"
                )
            found[entry.key] = part.name
    for key, name in weight_map.items():
        if found.get(key) != name:
            place = f"found it in {found[key]}" if key in found else "found it in no shard"
            raise FormatError(f"{where}: expected {key} in {name}, {place}")
    for key, name in found.items():
        if key not in weight_map:
            raise FormatError(f"{where}: {key} is in {name}, but not in the index")


def _expect_total(where: str, index: Mapping[str, Any], entries: Sequence[TensorEntry]) -> None:
    """Check `total_size`, in bytes; some writers count tied tensors once, some each time."""
    metadata = index.get("metadata")
    stated = metadata.get("total_size") if isinstance(metadata, dict) else None
    if stated is None:
        return
    repeated = sum(entry.nbytes for entry in entries)
    once = sum(nbytes for _, nbytes in {(e.offset, e.nbytes) for e in entries})
    if stated not in (repeated, once):
        raise FormatError(
            f"{where}: total_size {stated!r}, its shards hold {repeated:,} bytes of tensors",
            hint="a shard was replaced or truncated; fetch them all again",
        )


def _moved(piece: Piece, by: int) -> Piece:
    """A piece of a shard as one of the joined files."""
    match piece:
        case Span() | TensorEntry():
            return piece.moved(by)
        case Summed():
            piece.piece = piece.piece.moved(by)  # the shard's writer holds the sum
    return piece


def _dumped(index: Mapping[str, Any], style: dict[str, Any]) -> str:
    return json.dumps(index, **style)
