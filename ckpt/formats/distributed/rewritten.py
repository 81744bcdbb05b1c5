"""A new folder of `torch.distributed.checkpoint`, made of an old one and of new tensors.

Saved items that stay are copied as they are; new ones go into a file of their own. Law: what stays
keeps its bytes, and everything in `.metadata` that no key is about.
Source: torch 2.13, `torch/distributed/checkpoint/filesystem.py` (`_write_item`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

from ckpt.dtypes import itemsize
from ckpt.errors import FormatError
from ckpt.formats.checkpoint import expect_keys
from ckpt.formats.distributed import PART_SUFFIX
from ckpt.formats.distributed.folder import DistributedCheckpoint
from ckpt.formats.distributed.metadata import (
    CLASSES,
    StoredItem,
    call,
    fields_of,
    node_of,
)
from ckpt.formats.pickle.nodes import Call, DictNode, Global
from ckpt.formats.pickle.plain import plain_pickle
from ckpt.formats.pickle.writer import tensor_node
from ckpt.formats.torch_zip import lay_out_value
from ckpt.formats.zip.writer import length_of
from ckpt.tensors import FileStart, Layout, Span, TensorEntry

MOST_BYTES = 1 << 26  # of a chunk, unless one row has more; ranks read whole chunks


@dataclass(frozen=True, slots=True)
class Kept:
    """The tensor or value of a key of the old folder."""

    old: str


@dataclass(frozen=True, slots=True)
class NewTensor:
    """A tensor of the layout's source, with the properties of an old key's."""

    entry: TensorEntry
    like: str


@dataclass(frozen=True, slots=True)
class NewNames:
    """A list of names."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key of the new folder.

    Attributes:
        key: E.g. ``model.fc.weight``.
        path: Its path in the nested state_dict, if the folder holds paths.
        value: What it has.
    """

    key: str
    path: tuple[object, ...] | None
    value: Kept | NewTensor | NewNames


def rewritten(folder: DistributedCheckpoint, keys: Sequence[NewKey]) -> Layout:
    """The layout of the new folder.

    Args:
        folder: The old one.
        keys: Of the new one, in order.

    Raises:
        KeyCollisionError: Two keys are the same.
        FormatError: `.metadata` holds something that cannot be written again.
    """
    expect_keys(folder.source.name, [it.key for it in keys])
    new = _Folder(folder)
    new.add(keys)
    return new.layout()


@dataclass(frozen=True, slots=True)
class _Item:
    """A saved item: the fields of its `MetadataIndex`, and its place."""

    index: dict[str, object]
    file: str
    span: Span


class _Folder:
    def __init__(self, folder: DistributedCheckpoint) -> None:
        self._folder = folder
        self._root = fields_of(folder.metadata.pickle.root, "metadata.Metadata")
        described = node_of(self._root["state_dict_metadata"]).items
        self._described = {str(key): node for key, node in described}
        stored = zip(folder.metadata.stored, node_of(self._root["storage_data"]).items, strict=True)
        self._index = {
            item: fields_of(index, "metadata.MetadataIndex") for item, (index, _) in stored
        }
        _, *files = folder.source.parts
        self._begins = {part.name: part.offset for part in files}
        names = (f"__0_{number}{PART_SUFFIX}" for number in count())
        self._name = next(name for name in names if name not in self._begins)
        self._made: list[Callable[[], Layout]] = []
        self._end = 0
        self._kept: dict[str, list[Span]] = {name: [] for name in self._begins}
        self._metadata: tuple[list[tuple[object, object]], ...] = ([], [], [])

    def add(self, keys: Sequence[NewKey]) -> None:
        """Place the items of all keys, and describe them."""
        first = dict[StoredItem, str]()
        for it in keys:
            for item in self._items(it):
                first.setdefault(item, it.key)
        moved = self._moved(first)
        for it in keys:
            match it.value:
                case Kept(old=old):
                    described = self._described[old]
                    found = [self._again(it, item, first, moved) for item in self._items(it)]
                case NewTensor(entry=entry, like=like):
                    chunks = list(_chunks(entry))
                    described = self._description(entry, chunks, like)
                    found = [self._tensor(it.key, at, *chunk) for at, chunk in enumerate(chunks)]
                case NewNames(names=names):
                    described = Call(call("metadata.BytesStorageMetadata"), ())
                    value = partial(lay_out_value, list(names))
                    found = [
                        _Item({"fqn": it.key, "offset": None, "index": None}, *self._new(value))
                    ]
            self._note(it, described, found)

    def layout(self) -> Layout:
        """The files, `.metadata` last."""
        for name, spans in self._kept.items():
            if spans:
                yield FileStart(name)
                yield from (Span(self._begins[name] + it.offset, it.nbytes) for it in spans)
        if self._made:
            yield FileStart(self._name)
            for made in self._made:
                yield from made()
        yield FileStart(self._folder.source.parts[0].name)
        yield self._written()

    def _items(self, it: NewKey) -> Sequence[StoredItem]:
        return self._folder.metadata.items[it.value.old] if isinstance(it.value, Kept) else ()

    def _moved(self, items: dict[StoredItem, str]) -> dict[StoredItem, Span]:
        """The new places of items, which stay in their files."""
        moved, ends = {}, dict.fromkeys(self._begins, 0)
        for item in sorted(items, key=lambda item: (item.file, item.span.offset)):
            moved[item] = Span(ends[item.file], item.span.nbytes)
            ends[item.file] += item.span.nbytes
            self._kept[item.file].append(item.span)
        return moved

    def _again(
        self,
        it: NewKey,
        item: StoredItem,
        first: dict[StoredItem, str],
        moved: dict[StoredItem, Span],
    ) -> _Item:
        """An item that stays; several keys with it get a copy each."""
        index = {**self._index[item], "fqn": it.key}
        if first[item] == it.key:
            return _Item(index, item.file, moved[item])
        span = item.span.moved(self._begins[item.file])
        return _Item(index, *self._new(lambda: iter((span,))))

    def _tensor(self, key: str, at: int, begin: tuple[int, ...], entry: TensorEntry) -> _Item:
        node = tensor_node(entry, "0", "cpu", legacy=False)
        place = self._new(partial(lay_out_value, node, {"0": entry}))
        return _Item({"fqn": key, "offset": _size(begin), "index": at}, *place)

    def _new(self, made: Callable[[], Layout]) -> tuple[str, Span]:
        """Append an item to the new file; its place there."""
        span = Span(self._end, sum(map(length_of, made())))
        self._made.append(made)
        self._end = span.end
        return self._name, span

    def _description(
        self, entry: TensorEntry, chunks: Sequence[tuple[tuple[int, ...], TensorEntry]], like: str
    ) -> Call:
        known = fields_of(self._described[like], "metadata.TensorStorageMetadata")
        properties = known["properties"]
        _, *others = properties.state
        dtype = Global(f"torch.{entry.dtype}")
        boxes = [
            _object(
                "metadata.ChunkStorageMetadata",
                {"offsets": _size(begin), "sizes": _size(chunk.shape)},
            )
            for begin, chunk in chunks
        ]
        given = {
            "properties": Call(properties.function, (), (dtype, *others)),
            "size": _size(entry.shape),
            "chunks": boxes,
        }
        return _object("metadata.TensorStorageMetadata", given)

    def _note(self, it: NewKey, described: object, items: Sequence[_Item]) -> None:
        state_dict, storage, paths = self._metadata
        state_dict.append((it.key, described))
        for item in items:
            place = {
                "relative_path": item.file,
                "offset": item.span.offset,
                "length": item.span.nbytes,
            }
            index = _object("metadata.MetadataIndex", item.index)
            storage.append((index, _object("filesystem._StorageInfo", place)))
        if it.path is not None:
            paths.append((it.key, it.path))

    def _written(self) -> bytes:
        places = ("state_dict_metadata", "storage_data", "planner_data")
        instead: dict[int, object] = {
            id(self._root[place]): DictNode(items)
            for place, items in zip(places, self._metadata, strict=True)
            if isinstance(self._root.get(place), DictNode)
        }
        plain = plain_pickle(self._folder.metadata.pickle.root, instead=instead, kept=CLASSES)
        if lost := next((it for it in plain.changed if "made plain" not in it), None):
            raise FormatError(f"{self._folder.source.name}: cannot be written again with {lost}")
        return plain.data


def _chunks(entry: TensorEntry) -> Iterator[tuple[tuple[int, ...], TensorEntry]]:
    """The start of each chunk, some rows of a tensor, and its entry."""
    origin = (0,) * len(entry.shape)
    if entry.nbytes <= MOST_BYTES or not entry.shape or entry.shape[0] < 2:
        yield origin, entry
        return
    rows = entry.shape[0]
    some = max(1, MOST_BYTES * rows // entry.nbytes)
    step = entry.nbytes // rows
    if entry.stride is not None:
        step = entry.stride[0] * itemsize(entry.dtype)
    for first in range(0, rows, some):
        shape = (min(some, rows - first), *entry.shape[1:])
        yield (first, *origin[1:]), replace(entry.moved(first * step), shape=shape)


def _object(kind: str, fields: dict[str, object]) -> Call:
    """The node of an object of a dataclass."""
    return Call(call(kind), (), DictNode(list(fields.items())))


def _size(sizes: tuple[int, ...]) -> Call:
    return Call("torch.Size", (sizes,))
