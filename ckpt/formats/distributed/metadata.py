"""Reads `.metadata` of a torch.distributed.checkpoint folder, and renames its keys.

Source: torch 2.13, `torch/distributed/checkpoint/metadata.py` and `filesystem.py`: a pickle of
dataclasses. It is read like any other pickle: nothing in it is built.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckpt.errors import FormatError
from ckpt.formats.distributed import FILE_NAME
from ckpt.formats.pickle.edit import Edit, number_edit, rename_texts
from ckpt.formats.pickle.globals import ALLOWED
from ckpt.formats.pickle.nodes import Call, DictNode, Global, Number, Text
from ckpt.formats.pickle.reader import ParsedPickle, read_numbered, read_pickle
from ckpt.formats.pickle.tensors import size_of, sizes_of
from ckpt.io.files import is_base_name
from ckpt.tensors import Span

LIMIT = 1 << 28  # bytes
FILE_LIMIT = 10_000
_OPCODES = 16_000_000  # a chunk takes about 60
_MODULE = "torch.distributed.checkpoint"
_CLASSES = (
    *("Metadata", "MetadataIndex", "TensorStorageMetadata", "BytesStorageMetadata"),
    *("ChunkStorageMetadata", "TensorProperties", "_MEM_FORMAT_ENCODING", "StorageMeta"),
)
CLASSES = frozenset(
    {*(f"{_MODULE}.metadata.{name}" for name in _CLASSES), f"{_MODULE}.filesystem._StorageInfo"}
)
_ALLOWED = frozenset(
    {
        *ALLOWED,
        *CLASSES,
        *("pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath"),
    }
)


@dataclass(frozen=True, slots=True)
class StoredItem:
    """A saved value or chunk of a tensor.

    Attributes:
        begin: Start of a chunk in each dimension; empty for another value.
        file: Base name of its file.
        span: Its range of that file.
    """

    begin: tuple[int, ...]
    file: str
    span: Span


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor: dtype, shape, and the start and shape of each chunk."""

    dtype: str
    shape: tuple[int, ...]
    chunks: Mapping[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Metadata:
    """The content of `.metadata`.

    Attributes:
        tensors: By key, e.g. ``model.fc.weight``, in the order of the file.
        values: Keys of values that are not tensors.
        items: The saved items of each key.
        version: Of the metadata's own form, if stated.
        pickle: The file, parsed.
        stored: The saved items of all keys, in the order of the file.
        paths: Each key with its path in the nested state_dict.
    """

    tensors: Mapping[str, StoredTensor]
    values: Sequence[str]
    items: Mapping[str, Sequence[StoredItem]]
    version: str | None
    pickle: ParsedPickle
    stored: Sequence[StoredItem]
    _data: bytes
    _texts: Sequence[Text]
    paths: Sequence[tuple[Text, tuple[object, ...]]]

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files, each once, sorted."""
        return tuple(sorted({item.file for items in self.items.values() for item in items}))

    def moved(self, nbytes: Mapping[StoredItem, int]) -> dict[StoredItem, Span]:
        """The new places of the items that move, if some get another size in bytes.

        Raises:
            FormatError: Another item overlaps one of these.
        """
        moved = {}
        for item in {item for items in self.items.values() for item in items} if nbytes else ():
            before = [each for each in nbytes if each.file == item.file and each is not item]
            if any(_overlap(each.span, item.span) for each in before if each != item):
                raise FormatError(f"{item.file}: two items have the same place")
            shift = sum(
                nbytes[each] - each.span.nbytes
                for each in before
                if each.span.end <= item.span.offset
            )
            span = Span(item.span.offset + shift, nbytes.get(item, item.span.nbytes))
            if span != item.span:
                moved[item] = span
        return moved

    def renamed(
        self,
        new_keys: Mapping[str, str],
        paths: Mapping[str, Sequence[str]],
        spans: Mapping[StoredItem, Span],
        *,
        name: str,
    ) -> bytes:
        """`.metadata` with other keys, all occurrences renamed; everything else is kept.

        Args:
            new_keys: Old key to new key.
            paths: Old key to its new path in the nested state_dict, where that is known; else every
                element keeps its number of dotted parts.
            spans: Items with another place in their file.
            name: Of the folder, for messages.

        Raises:
            FormatError: A key would move within the nested state_dict.
        """
        changed = {old: new for old, new in new_keys.items() if old != new}
        renames = [(text, changed[text]) for text in self._texts if text in changed]
        for key, path in self.paths:
            if key in changed:
                new = paths.get(key) or parts_of(path, changed[key])
                renames += _path_renames(path, new, changed[key], name=f"{name}: {key}")
        moves = self._moves(spans, name) if spans else ()
        return rename_texts(self._data, self.pickle, renames, moves)

    def _moves(self, spans: Mapping[StoredItem, Span], name: str) -> Iterator[Edit]:
        """The edits that give items another place in their file."""
        root = fields_of(
            read_numbered(self._data, name=name, allowed=_ALLOWED), "metadata.Metadata"
        )
        infos = (
            fields_of(info, "filesystem._StorageInfo")
            for _, info in node_of(root["storage_data"]).items
        )
        for item, info in zip(self.stored, infos, strict=True):
            if item in spans:
                for field, number in (
                    ("offset", spans[item].offset),
                    ("length", spans[item].nbytes),
                ):
                    assert isinstance(info[field], Number)
                    yield number_edit(info[field], number)


def read_metadata(data: bytes, *, name: str) -> Metadata:
    """Read the bytes of a `.metadata`.

    Raises:
        FormatError: It is damaged, or names something other than a file beside it.
    """
    pickle = read_pickle(data, name=name, opcode_limit=_OPCODES, allowed=_ALLOWED)
    try:
        metadata = _metadata(data, pickle)
    except (KeyError, ValueError, TypeError) as error:
        raise FormatError(f"{name}: not a checkpoint as torch describes it: {error}") from error
    for file in metadata.files:
        if not is_base_name(file) or file == FILE_NAME:
            raise FormatError(
                f"{name}: lists {file!r}, which is not a file beside it",
                hint="the files of a checkpoint are in one folder; do not trust this one",
            )
    if len(metadata.files) > FILE_LIMIT:
        raise FormatError(f"{name}: {len(metadata.files):,} files, the limit is {FILE_LIMIT:,}")
    return metadata


def _metadata(data: bytes, pickle: ParsedPickle) -> Metadata:
    root = fields_of(pickle.root, "metadata.Metadata")
    tensors, values, texts = dict[str, StoredTensor](), list[str](), list[Text]()
    for key, node in _pairs(root["state_dict_metadata"]):
        if str(key) in tensors or key in values:
            raise ValueError(f"{key!r} appears twice")
        texts.append(key)
        if isinstance(node, Call) and node.function == f"{_MODULE}.metadata.BytesStorageMetadata":
            values.append(str(key))
        else:
            tensors[str(key)] = _tensor(node)
    items: defaultdict[str, list[StoredItem]] = defaultdict(list)
    stored: list[StoredItem] = []
    for index, info in node_of(root["storage_data"]).items:
        fields = fields_of(index, "metadata.MetadataIndex")
        texts.append(_text(fields["fqn"]))
        stored.append(_item(fields.get("offset"), info))
        items[str(texts[-1])].append(stored[-1])
    paths = list(_pairs(root.get("planner_data") or DictNode([])))
    version = root.get("version")
    return Metadata(
        tensors=tensors,
        values=values,
        items=items,
        version=str(version) if isinstance(version, str) else None,
        pickle=pickle,
        stored=stored,
        _data=data,
        _texts=[*texts, *(key for key, _ in paths)],
        paths=[(key, path) for key, path in paths if isinstance(path, tuple)],
    )


def _tensor(node: object) -> StoredTensor:
    fields = fields_of(node, "metadata.TensorStorageMetadata")
    properties = _call(fields["properties"], "metadata.TensorProperties").state
    dtype = properties[0] if isinstance(properties, tuple) and properties else None
    chunks = fields["chunks"]
    if not isinstance(dtype, Global) or not isinstance(chunks, list):
        raise ValueError("a tensor without a dtype, or without chunks")
    boxes = {}
    for chunk in chunks:
        box = fields_of(chunk, "metadata.ChunkStorageMetadata")
        boxes[sizes_of(box["offsets"])] = sizes_of(box["sizes"])
    if len(boxes) != len(chunks):
        raise ValueError("two chunks of a tensor have the same start")
    return StoredTensor(dtype.name.removeprefix("torch."), sizes_of(fields["size"]), boxes)


def _item(begin: object, info: object) -> StoredItem:
    fields = fields_of(info, "filesystem._StorageInfo")
    if fields.get("transform_descriptors"):
        raise ValueError("an item was transformed when it was saved, perhaps compressed")
    span = Span(size_of(fields["offset"]), size_of(fields["length"]))
    return StoredItem(sizes_of(begin) if begin else (), str(_text(fields["relative_path"])), span)


def _overlap(one: Span, other: Span) -> bool:
    return one.offset < other.end and other.offset < one.end


def parts_of(path: Sequence[object], new: str) -> list[str]:
    """A new key as a path: each element has as many dotted parts as before, the last the rest."""
    parts, found = new.split("."), []
    for number, element in enumerate(path):
        count = len(parts) if number == len(path) - 1 else str(element).count(".") + 1
        found.append(".".join(parts[:count]))
        parts = parts[count:]
    return found


def _path_renames(
    path: Sequence[object], parts: Sequence[str], new: str, *, name: str
) -> list[tuple[Text, str]]:
    """The changes to the path of a key in the nested state_dict."""
    renames = []
    for element, text in zip(path, parts, strict=True):
        if not text or (text != str(element) and not isinstance(element, Text)):
            raise FormatError(
                f"{name}: cannot become {new!r}, which is elsewhere in the nested state_dict"
            )
        if isinstance(element, Text):
            renames.append((element, text))
    return renames


def call(kind: str) -> str:
    """The whole name of a class, such as ``metadata.Metadata``."""
    return f"{_MODULE}.{kind}"


def _call(node: object, kind: str) -> Call:
    if not isinstance(node, Call) or node.function != call(kind):
        raise ValueError(f"expected a {kind}")
    return node


def fields_of(node: object, kind: str) -> dict[str, Any]:
    """The fields of a dataclass of this kind."""
    return {str(key): value for key, value in _pairs(_call(node, kind).state)}


def _pairs(node: object) -> Iterator[tuple[Text, object]]:
    for key, value in node_of(node).items:
        yield _text(key), value


def node_of(node: object) -> DictNode:
    """The same, which is a mapping."""
    if not isinstance(node, DictNode):
        raise ValueError("expected a dict")
    return node


def _text(node: object) -> Text:
    if not isinstance(node, Text) or not node:
        raise ValueError("expected a text")
    return node
