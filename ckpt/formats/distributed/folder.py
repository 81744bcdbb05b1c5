"""Folders of `torch.distributed.checkpoint`: `.metadata`, and files of saved items.

Source: torch 2.13, `torch/distributed/checkpoint/filesystem.py` (`_write_item`): every item,
a chunk of a tensor or another value, is a `torch.save` archive of its own, somewhere in a
`.distcp` file. The folder's keys are those of the flattened state_dict (`model.fc.weight`);
`FOLDER::model` takes those below `model`, without that prefix.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ckpt.dtypes import DTYPES, itemsize
from ckpt.errors import TRUNCATED, FormatError, RefusedGlobalError
from ckpt.formats import torch_zip
from ckpt.formats.checkpoint import Checksum, Pickled, expect_keys
from ckpt.formats.chunks import Chunk, ChunkedTensor, expect_filled
from ckpt.formats.distributed.metadata import Metadata, StoredItem, StoredTensor, read_metadata
from ckpt.formats.pickle.describe import describe, is_tensor
from ckpt.formats.pickle.tensors import Storages, entry_of
from ckpt.formats.torch_state import expect_consistent
from ckpt.io.sources import ByteSource, ExtendedSource, JoinedSource, Part, PartSource
from ckpt.tensors import FileStart, Layout, Span, TensorEntry, tensor_spans

NAME = "torch-distributed"


@dataclass(frozen=True, slots=True)
class DistributedCheckpoint:
    """An opened folder; a `ckpt.formats.checkpoint.Checkpoint`."""

    source: ByteSource
    metadata: Metadata
    prefix: str
    entries: Sequence[TensorEntry]
    spans: Sequence[Span]
    checksums: Sequence[Checksum]
    rest: Mapping[str, Any]
    written_by: str
    format: str = NAME
    pickled: Pickled | None = None

    @property
    def others(self) -> Sequence[str]:
        return ()

    @property
    def aliases(self) -> Mapping[str, str]:
        return {}

    def also_named(self, keys: Container[str]) -> Sequence[str]:
        return ()

    def left(self, new_keys: Mapping[str, str]) -> Mapping[str, Any]:
        return self.rest

    def renamed(self, new_keys: Mapping[str, str]) -> Layout:
        """A new `.metadata`; all other files are unchanged."""
        own = {self.prefix + entry.key: entry.key for entry in self.entries}
        new = {key: self.prefix + new_keys.get(short, short) for key, short in own.items()}
        others = [key for key in self.metadata.tensors if key not in own]
        expect_keys(self.source.name, [*new.values(), *others, *self.metadata.values])
        first, *files = self.source.parts
        yield FileStart(first.name)
        yield self.metadata.renamed(new, name=self.source.name)
        for part in files:
            yield FileStart(part.name)
            yield Span(part.offset, part.nbytes)


def read(source: ByteSource, *, inside: str | None = None) -> DistributedCheckpoint:
    """Open a folder, whose files `source` joins.

    Raises:
        FormatError: It is not well-formed.
    """
    first, *files = source.parts
    metadata = source.first if isinstance(source, JoinedSource) else None
    if not isinstance(metadata, Metadata):
        where = f"{source.name}: {first.name}"
        metadata = read_metadata(source.read(0, first.nbytes), name=where)
    if metadata.files != tuple(part.name for part in files):
        raise FormatError(f"{source.name}: {first.name} lists other files than those beside it")
    items = _Items(source, {part.name: part for part in files}, metadata)
    tensors = [items.tensor(key, stored) for key, stored in metadata.tensors.items()]
    values = {key: items.value(key) for key in metadata.values}
    prefix = f"{inside}." if inside else ""
    entries = [entry for entry in tensors if entry.key.startswith(prefix)]
    if inside and not entries:
        tops = sorted({key.partition(".")[0] for key in metadata.tensors if "." in key})
        named = "  or  ".join(f"{source.name}::{top}" for top in tops)
        raise FormatError(
            f"{source.name}: holds no state_dict {inside!r}",
            hint=f"name one: {named}" if tops else None,
        )
    return DistributedCheckpoint(
        source=items.source,
        metadata=metadata,
        prefix=prefix,
        entries=[replace(entry, key=entry.key.removeprefix(prefix)) for entry in entries],
        spans=tensor_spans(items.chunks),
        checksums=items.checksums,
        rest=values,
        written_by="torch.distributed.checkpoint"
        + (f", metadata {metadata.version}" if metadata.version else ""),
    )


class _Items:
    """Reads items, and collects the places of the chunks and the checksums.

    Attributes:
        source: The files, and tensors that are put together from chunks.
        chunks: An entry for every chunk, with its offset in the joined files.
        checksums: Those that the items' archives state.
    """

    def __init__(self, source: ByteSource, files: Mapping[str, Part], metadata: Metadata) -> None:
        self.source = ExtendedSource(source)
        self.chunks: list[TensorEntry] = []
        self.checksums: list[Checksum] = []
        self._files, self._metadata = files, metadata
        self._joined = source

    def tensor(self, key: str, stored: StoredTensor) -> TensorEntry:
        """The entry of a tensor."""
        where = f"{self.source.name}: {key}"
        if stored.dtype not in DTYPES:
            raise FormatError(f"{where}: ckpt cannot read dtype {stored.dtype} yet")
        items = {item.begin: item for item in self._metadata.items.get(key, ())}
        if set(items) != set(stored.chunks):
            raise FormatError(f"{where}: {len(items)} chunks saved, expected {len(stored.chunks)}")
        chunks = [self._chunk(key, items[at], stored, at) for at in stored.chunks]
        self.chunks += chunks
        if len(chunks) == 1 and chunks[0].shape == stored.shape:
            return chunks[0]
        boxes = []
        for begin, chunk in zip(stored.chunks, chunks, strict=True):
            if chunk.span is None:
                raise FormatError(f"{where}: a chunk that is not contiguous")
            boxes.append(Chunk(begin, chunk.shape, chunk.span.offset))
        expect_filled(where, stored.shape, boxes)
        entry = TensorEntry(key, stored.dtype, stored.shape, 0)
        if not entry.nbytes:
            return entry
        together = ChunkedTensor(self._joined, entry.shape, itemsize(entry.dtype), boxes)
        return replace(entry, offset=self.source.add(together))

    def value(self, key: str) -> object:
        """The description of a value that is not a tensor."""
        windows = [window for _, window in map(self._window, self._metadata.items.get(key, ()))]
        if len(windows) != 1:
            raise FormatError(f"{self.source.name}: {key}: saved {len(windows)} times, not once")
        try:
            return describe(torch_zip.open_archive(windows[0]).root)
        except RefusedGlobalError as error:
            hint = (
                f"the value {key} is neither a tensor nor a plain value; save the folder without it"
            )
            raise RefusedGlobalError(str(error), hint=hint) from error

    def _chunk(
        self, key: str, item: StoredItem, stored: StoredTensor, begin: tuple[int, ...]
    ) -> TensorEntry:
        part, window = self._window(item)
        archive = torch_zip.open_archive(window)
        root = archive.root
        if not is_tensor(root):
            raise FormatError(f"{window.name}: holds no tensor, expected {key}")
        if isinstance(archive.source, ExtendedSource):
            raise FormatError(f"{window.name}: {key}: compressed, which torch does not write")
        storages = Storages(archive.storage)
        entry = entry_of(key, root, storages, name=window.name)
        expect_consistent(archive.read, storages, name=window.name)
        if (entry.dtype, entry.shape) != (stored.dtype, stored.chunks[begin]):
            raise FormatError(
                f"{window.name}: {key}: {entry.dtype} {entry.shape}, the metadata says "
                f"{stored.dtype} {stored.chunks[begin]}"
            )
        self.checksums += (
            Checksum(checksum.span.moved(part.offset), checksum.crc32, key)
            for checksum in archive.checksums
        )
        return entry.moved(part.offset)

    def _window(self, item: StoredItem) -> tuple[Part, PartSource]:
        file = self._files[item.file]
        if item.span.end > file.nbytes:
            raise FormatError(
                f"{self.source.name}: {item.file}: ends at byte {file.nbytes:,}, "
                f"expected {item.span.end:,}",
                hint=TRUNCATED,
            )
        part = Part(item.file, file.offset + item.span.offset, item.span.nbytes)
        return part, PartSource(self._joined, part)
