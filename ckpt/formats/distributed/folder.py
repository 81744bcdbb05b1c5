"""Folders of `torch.distributed.checkpoint`: `.metadata`, and files of saved items.

Source: torch 2.13, `torch/distributed/checkpoint/filesystem.py` (`_write_item`): every item,
a chunk of a tensor or another value, is a `torch.save` archive of its own, somewhere in a
`.distcp` file. The folder's keys are those of the flattened state_dict (`model.fc.weight`);
`FOLDER::model` takes those below `model`, without that prefix.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ckpt.dtypes import DTYPES, itemsize
from ckpt.errors import TRUNCATED, FormatError, PlanError, RefusedGlobalError
from ckpt.formats import torch_zip
from ckpt.formats.checkpoint import Checksum, Pickled, expect_keys
from ckpt.formats.distributed.chunks import Chunk, ChunkedTensor, expect_filled
from ckpt.formats.distributed.followers import (
    GROUPS,
    STATE,
    Follower,
    followers_of,
    is_list_of_names,
    named_by,
    names_in,
    optimizers_of,
    parameters_of,
    prefix_of,
)
from ckpt.formats.distributed.metadata import Metadata, StoredItem, StoredTensor, read_metadata
from ckpt.formats.pickle.describe import describe, is_tensor
from ckpt.formats.pickle.edit import rename_texts
from ckpt.formats.pickle.find import ALL, COPIES
from ckpt.formats.pickle.tensors import Storages, entry_of
from ckpt.formats.torch_read import expect_consistent
from ckpt.io.composed import ExtendedSource, JoinedSource, PartSource
from ckpt.io.sources import ByteSource, Part
from ckpt.tensors import FileStart, Layout, Span, TensorEntry, tensor_spans

NAME = "torch-distributed"


@dataclass(frozen=True, slots=True)
class DistributedCheckpoint:
    """An opened folder; a `ckpt.formats.checkpoint.Checkpoint`.

    Attributes:
        tensors: Those of the whole folder, by their keys in it.
        follows: Whether optimizers and copies follow a rename.
        optimizers: The prefixes of the optimizers of the folder, such as ``optimizer.``.
    """

    source: ByteSource
    metadata: Metadata
    prefix: str
    entries: Sequence[TensorEntry]
    tensors: Mapping[str, TensorEntry]
    spans: Sequence[Span]
    checksums: Sequence[Checksum]
    rest: Mapping[str, Any]
    written_by: str
    follows: bool
    optimizers: tuple[str, ...]
    _items: "_Items"
    format: str = NAME
    pickled: Pickled | None = None

    @property
    def others(self) -> Sequence[str]:
        return ()

    @property
    def aliases(self) -> Mapping[str, str]:
        return {}

    def also_named(self, keys: Container[str]) -> Sequence[str]:
        return self._naming(keys) if self.follows else ()

    def left_behind(self, keys: Container[str]) -> Sequence[str]:
        """Other places in the folder that name some of these keys and do not follow a rename."""
        return () if self.follows else self._naming(keys)

    def _naming(self, keys: Container[str]) -> Sequence[str]:
        own = {entry.key for entry in self.entries}
        found = () if self._of_optimizers else self._followers(own).values()
        return tuple(dict.fromkeys(each.place for each in found if each.key in keys))

    @property
    def trained(self) -> str | None:
        """The prefix of the state_dict whose parameters the optimizers have; None if unknown."""
        lists = (self._items.list(key) for key in self._lists)
        named = {str(name) for names in lists for name in names if isinstance(name, str)}
        keys = [*self.metadata.tensors, *self.metadata.values]
        named = named or parameters_of(keys, self.optimizers)
        own = {it: None for it in self.metadata.tensors if not it.startswith(self.optimizers)}
        return prefix_of(named, own)

    @property
    def numbered(self) -> Sequence[str]:
        """The prefixes of those that number their parameters."""
        found = (key for key in self._lists if any(type(n) is int for n in self._items.list(key)))
        return tuple(dict.fromkeys(key.partition(GROUPS)[0] for key in found))

    @property
    def _lists(self) -> Sequence[str]:
        """The keys of lists of an optimizer's parameters."""
        return [key for key in self.metadata.values if is_list_of_names(key, self.optimizers)]

    def _followers(self, own: Container[str]) -> dict[str, Follower]:
        """What else names these keys of the state_dict; of the whole folder, optimizers alone."""
        keys = [*self.metadata.tensors, *self.metadata.values]
        if self._of_optimizers:
            others = [key for key in keys if key.startswith(self.optimizers)]
        else:
            others = [key for key in keys if not key.startswith(self.prefix)]
        return followers_of(others, self.optimizers, own)

    def followers(self) -> dict[str, Follower]:
        """What else in the folder is made of a key of the state_dict, by its key in the folder."""
        return self._followers({entry.key for entry in self.entries})

    def of_optimizer(self, prefix: str) -> list[str]:
        """The keys of the state and the groups of an optimizer."""
        own = (prefix + STATE, prefix + GROUPS)
        keys = (*self.metadata.tensors, *self.metadata.values)
        return [key for key in keys if key.startswith(own)]

    def root(self, key: str) -> object:
        """The node of a value."""
        return self._items.root(key)

    def chunks(self, keys: Container[str]) -> list[TensorEntry]:
        """The saved chunks of some keys of the folder."""
        return [chunk for chunk in self._items.chunks if chunk.key in keys]

    def untouched(self, new_keys: Mapping[str, str]) -> Mapping[str, Any]:
        lists = self._lists if self.follows or self._of_optimizers else ()
        return {key: value for key, value in self.rest.items() if key not in lists}

    def renamed(self, new_keys: Mapping[str, str]) -> Layout:
        """A new `.metadata`, and new lists of an optimizer's parameters; all else is unchanged.

        Raises:
            PlanError: A parameter and its state would have different names.
        """
        own = {self.prefix + entry.key: entry.key for entry in self.entries}
        new = {key: self.prefix + new_keys.get(short, short) for key, short in own.items()}
        names = self._names(new) if self.follows or self._of_optimizers else {}
        followed = self._followers(names)
        for key, each in followed.items():
            after = each.renamed(names[each.key])
            if new.setdefault(key, after) != after:
                raise self._apart(key, new[key], names[each.key])
        others = [key for key in (*self.metadata.tensors, *self.metadata.values) if key not in new]
        expect_keys(self.source.name, [*new.values(), *others])
        paths = {
            key: followed[key].path(path, names[followed[key].key])
            for key, path in ((str(key), path) for key, path in self.metadata.paths)
            if key in followed
        }
        items = self._items.with_names(self._lists, {a: b for a, b in names.items() if a != b})
        spans = self.metadata.moved({item: len(data) for item, data in items.items()})
        return self._laid_out(
            self.metadata.renamed(new, paths, spans, name=self.source.name), items
        )

    def _laid_out(self, metadata: bytes, items: Mapping[StoredItem, bytes]) -> Layout:
        first, *files = self.source.parts
        yield FileStart(first.name)
        yield metadata
        for part in files:
            yield FileStart(part.name)
            yield from _spliced(part, {i.span: b for i, b in items.items() if i.file == part.name})

    def _apart(self, key: str, new: str, expected: str) -> PlanError:
        weights = self.trained and f"{self.source.name}::{self.trained.removesuffix('.')}"
        return PlanError(
            f"{self.source.name}: the rules would name {key} {new}, but its parameter {expected}",
            hint=f"to take the optimizer along:  ckpt rename {weights} --all" if weights else None,
        )

    def _names(self, new: Mapping[str, str]) -> dict[str, str]:
        """Old name to new of the parameters, as an optimizer has them: without ``model.``."""
        heads: Iterable[tuple[str, str, str]]
        head = self.trained if self._of_optimizers else self.prefix
        if head is None:  # the weights are elsewhere: the state tells
            of = ((key, it) for key in new for it in named_by(key, self.optimizers))
            heads = ((key, it.head, it.tail) for key, it in of)
        else:
            heads = ((key, head, "") for key in new)
        return {
            key.removeprefix(head).removesuffix(tail): new[key]
            .removeprefix(head)
            .removesuffix(tail)
            for key, head, tail in heads
            if all(name.startswith(head) and name.endswith(tail) for name in (key, new[key]))
        }

    @property
    def _of_optimizers(self) -> bool:
        """Whether the state of an optimizer is renamed itself, not that it follows."""
        return not self.prefix or self.prefix in self.optimizers


def _spliced(part: Part, new: Mapping[Span, bytes]) -> Layout:
    """A file with other bytes in place of some ranges of it."""
    position = 0
    for span in sorted(new, key=lambda span: span.offset):
        yield Span(part.offset + position, span.offset - position)
        yield new[span]
        position = span.end
    yield Span(part.offset + position, part.nbytes - position)


def _bytes_of(layout: Layout, source: ByteSource) -> bytes:
    """The bytes of a small archive."""
    spans = (piece for piece in layout if isinstance(piece, bytes | Span))
    return b"".join(
        it if isinstance(it, bytes) else source.read(it.offset, it.nbytes) for it in spans
    )


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
    follows = inside in (None, ALL) or inside.endswith(COPIES)
    inside = None if inside == ALL else inside and inside.removesuffix(COPIES)
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
        tensors={entry.key: entry for entry in tensors},
        spans=tensor_spans(items.chunks),
        checksums=items.checksums,
        rest=values,
        written_by="torch.distributed.checkpoint"
        + (f", metadata {metadata.version}" if metadata.version else ""),
        follows=follows,
        optimizers=optimizers_of([*metadata.tensors, *metadata.values]),
        _items=items,
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
        match chunks:
            case [whole] if whole.shape == stored.shape:
                return whole
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
        count = len(self._metadata.items.get(key, ()))
        if count != 1:
            raise FormatError(f"{self.source.name}: {key}: saved {count} times, not once")
        try:
            return describe(self.root(key))
        except RefusedGlobalError as error:
            hint = (
                f"the value {key} is neither a tensor nor a plain value; save the folder without it"
            )
            raise RefusedGlobalError(str(error), hint=hint) from error

    def list(self, key: str) -> Sequence[object]:
        """The value of a key if it is a list."""
        root = self.root(key)
        return root if isinstance(root, list) else ()

    def root(self, key: str) -> object:
        """The node of a value."""
        return self._archive(key).root

    def with_names(self, keys: Iterable[str], names: Mapping[str, str]) -> dict[StoredItem, bytes]:
        """The items of lists of names in which some change, with their new bytes."""
        found = {}
        for key in keys if names else ():
            archive = self._archive(key)
            renames = names_in(archive.root, names)
            if renames:
                layout = archive.with_pickle(rename_texts(archive.pickle, archive.read, renames))
                found[self._item(key)] = _bytes_of(layout, archive.source)
        return found

    def _archive(self, key: str) -> torch_zip.TorchArchive:
        _, window = self._window(self._item(key))
        return torch_zip.open_archive(window)

    def _item(self, key: str) -> StoredItem:
        """The one item of a value."""
        (item,) = self._metadata.items[key]
        return item

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
