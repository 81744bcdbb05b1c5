"""Sharded checkpoints: an index beside the shards, each of which is a checkpoint of its own.

`model.safetensors.index.json` or `pytorch_model.bin.index.json` maps every key to the base
name of its shard. Source: `huggingface_hub.serialization` (`split_state_dict_into_shards_factory`)
and transformers' `load_sharded_checkpoint`. The index and its shards are read as one source, the
shards in the order of their names, which count. Law: every key stands in exactly the shard
that the index says, and in no other.
"""

import json
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from ckpt.errors import FormatError
from ckpt.formats import open_single
from ckpt.formats.checkpoint import Checkpoint, Checksum, expect_keys
from ckpt.formats.zip.inflated import HINT
from ckpt.io import strict_json
from ckpt.io.files import is_base_name
from ckpt.io.sources import ByteSource, ExtendedSource, Part, PartSource
from ckpt.refs import INDEX_SUFFIX
from ckpt.tensors import FileStart, Layout, Piece, Span, Summed, TensorEntry

INDEX_LIMIT = 1 << 28  # bytes; 100,000 keys take 10 MB
SHARD_LIMIT = 10_000
_SHOWN = 80  # characters of a foreign name in a message
_USUAL_REST = {"format": "pt"}  # which safetensors' torch writer puts into every file
# The ways in which the index is usually written; the one that gives its bytes is kept.
_STYLES: tuple[dict[str, Any], ...] = (
    {"indent": 2, "sort_keys": True},
    {"indent": 2},
    {"indent": 4},
    {},
    {"separators": (",", ":")},
)


@dataclass(frozen=True, slots=True)
class ShardedCheckpoint:
    """An index and its shards; see `ckpt.formats.checkpoint.Checkpoint`."""

    source: ByteSource
    index: Mapping[str, Any]
    shards: Sequence[Checkpoint]
    entries: Sequence[TensorEntry]
    format: str

    @property
    def written_by(self) -> str | None:
        """What wrote the shards."""
        return next((shard.written_by for shard in self.shards), None)

    @property
    def spans(self) -> Sequence[Span]:
        """All tensors, shard by shard."""
        return [
            _shifted(span, part.offset) for part, shard in self._pairs() for span in shard.spans
        ]

    @property
    def checksums(self) -> Sequence[Checksum]:
        """Those of all shards."""
        return [
            replace(each, span=_shifted(each.span, part.offset), what=f"{part.name}: {each.what}")
            for part, shard in self._pairs()
            for each in shard.checksums
        ]

    @property
    def rest(self) -> Mapping[str, Any]:
        """The index's metadata, and what the shards hold beside tensors where it says much.

        `total_size` is no part of it: it says of the files what their tensors say as well.
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
    def aliases(self) -> Sequence[str]:
        """Those of all shards."""
        return [name for shard in self.shards for name in shard.aliases]

    def also_named(self, keys: Container[str]) -> Sequence[str]:
        """In the index, and elsewhere in the shards."""
        return list(dict.fromkeys(at for shard in self.shards for at in shard.also_named(keys)))

    def renamed(self, new_keys: Mapping[str, str]) -> Layout:
        """Every file anew, the index first; without a new key it keeps its bytes."""
        keys = [new_keys.get(entry.key, entry.key) for entry in self.entries]
        expect_keys(self.source.name, keys)
        index, *_ = self.source.parts
        yield FileStart(index.name)
        if all(entry.key == key for entry, key in zip(self.entries, keys, strict=True)):
            yield Span(0, index.nbytes)
        else:
            yield self._new_index(new_keys)
        for part, shard in self._pairs():
            yield FileStart(part.name)
            for piece in shard.renamed(new_keys):
                assert not isinstance(piece, FileStart)  # a shard is one file
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
    """Whether a file that begins with `head` can be an index: a JSON object."""
    return re.match(rb'\s*\{\s*"', head) is not None


def shard_names(index_name: str, data: bytes, *, name: str) -> tuple[str, ...]:
    """The shards that an index names, each once, in the order of their names.

    Args:
        index_name: Its base name.
        data: Its bytes.
        name: What to call it in messages.

    Raises:
        FormatError: It is no index, or names something that is no base name of a shard.
    """
    weight_map = _parse(data, name)["weight_map"]
    shards = tuple(sorted(set(weight_map.values())))
    kinds = {PurePath(shard).suffix for shard in shards}
    for shard in shards:
        if not is_base_name(shard) or shard == index_name:
            raise FormatError(
                f"{name}: names {_short(shard)}, which is no file beside it",
                hint="shards stand in the folder of their index; do not trust this one",
            )
    stem = index_name.removesuffix(INDEX_SUFFIX)
    wanted = PurePath(stem).suffix if index_name.endswith(INDEX_SUFFIX) else ""
    if len(kinds) > 1 or (wanted and kinds - {wanted}):
        raise FormatError(
            f"{name}: names shards of {' and '.join(sorted(kinds))}"
            + (f", {wanted} was expected" if wanted else "")
        )
    if len(shards) > SHARD_LIMIT:
        raise FormatError(f"{name}: {len(shards):,} shards, the limit is {SHARD_LIMIT:,}")
    return shards


def read(source: ByteSource, *, inside: str | None = None) -> ShardedCheckpoint:
    """Open an index and its shards, which `source` joins.

    Raises:
        FormatError: They are not well-formed, or do not agree with each other.
    """
    if inside is not None:
        raise FormatError(f"{source.name}::{inside}: a sharded checkpoint holds one state_dict")
    first, *parts = source.parts
    where = source.name if source.name.endswith(first.name) else f"{source.name}: {first.name}"
    data = source.read(0, first.nbytes)
    names = shard_names(first.name, data, name=where)
    if names != tuple(part.name for part in parts):
        raise FormatError(f"{where}: names other shards than there are")
    index = _parse(data, where)
    shards = [open_single(PartSource(source, part), inside=None) for part in parts]
    for part, shard in zip(parts, shards, strict=True):
        if isinstance(shard.source, ExtendedSource):
            raise FormatError(f"{source.name}: {part.name}: a compressed shard", hint=HINT)
    formats = {shard.format for shard in shards}
    if len(formats) > 1:
        raise FormatError(f"{where}: its shards are of {' and '.join(sorted(formats))}")
    entries = tuple(
        replace(entry, offset=(entry.offset or 0) + part.offset)
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
        raise FormatError(f"{name}: damaged: {error}", hint="fetch it again") from error
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict):
        raise FormatError(f"{name}: a JSON file without a weight_map, not the index of shards")
    if not weight_map or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise FormatError(f"{name}: its weight_map does not map keys to names of files")
    return dict(index)


def _expect_mapped(
    where: str, weight_map: Mapping[str, str], parts: Sequence[Part], shards: Sequence[Checkpoint]
) -> None:
    found: dict[str, str] = {}
    for part, shard in zip(parts, shards, strict=True):
        for entry in shard.entries:
            if entry.key in found:
                raise FormatError(
                    f"{where}: {entry.key} stands in {found[entry.key]} and in {part.name}"
                )
            found[entry.key] = part.name
    for key, name in weight_map.items():
        if found.get(key) != name:
            place = f"it stands in {found[key]}" if key in found else "no shard has it"
            raise FormatError(f"{where}: {key} should stand in {name}, {place}")
    for key, name in found.items():
        if key not in weight_map:
            raise FormatError(f"{where}: {key} stands in {name}, and the index does not name it")


def _expect_total(where: str, index: Mapping[str, Any], entries: Sequence[TensorEntry]) -> None:
    """`total_size` counts bytes of tensors; writers differ in whether tied ones count once."""
    metadata = index.get("metadata")
    stated = metadata.get("total_size") if isinstance(metadata, dict) else None
    if stated is None:
        return
    each = sum(entry.nbytes for entry in entries)
    once = sum(nbytes for _, nbytes in {(e.offset, e.nbytes) for e in entries})
    if stated not in (each, once):
        raise FormatError(
            f"{where}: total_size {stated!r}, its shards hold {each:,} bytes of tensors",
            hint="a shard was exchanged or cut; fetch them all again",
        )


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def _shifted(span: Span, by: int) -> Span:
    return Span(span.offset + by, span.nbytes)


def _moved(piece: Piece, by: int) -> Piece:
    """A piece of a shard as one of the joined files."""
    match piece:
        case Span():
            return _shifted(piece, by)
        case TensorEntry():
            return replace(piece, offset=(piece.offset or 0) + by)
        case Summed():
            moved = _moved(piece.piece, by)
            assert isinstance(moved, Span | TensorEntry)
            piece.piece = moved  # the shard's writer holds the sum
    return piece


def _dumped(index: Mapping[str, Any], style: dict[str, Any]) -> str:
    return json.dumps(index, **style)
