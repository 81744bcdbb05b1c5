"""The zip container of `torch.save`: data.pkl, a record for every storage, a few small ones.

Source: `torch.serialization` of torch 2.13 (`_save`, `_load`) and PyTorch's
`caffe2/serialize/inline_container`. The pickle is read by `pickle_reader`, which runs nothing.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckpt.errors import FormatError
from ckpt.files import ByteSource
from ckpt.formats.checkpoint import Sum, expect_keys
from ckpt.formats.pickle_describe import SHOWN_ITEMS, describe, free_name, is_tensor
from ckpt.formats.pickle_edit import key_renames, module_renames, rename_texts
from ckpt.formats.pickle_find import choose, dotted, find
from ckpt.formats.pickle_nodes import Mapping as Node
from ckpt.formats.pickle_reader import Read, read_pickle
from ckpt.formats.pickle_tensors import entries_of, entry_of, metadata_of, texts_of
from ckpt.formats.pickle_writer import pickle_state_dict
from ckpt.formats.zip_reader import Member, read_members
from ckpt.formats.zip_writer import ALIGNMENT, NewMember, lay_out_archive
from ckpt.tensors import Layout, Span, Summed, TensorEntry, tensor_spans

NAME = "torch-zip"
PICKLE_LIMIT = 1 << 28  # bytes of data.pkl; 100,000 keys take 12 MB
# A tensor takes about 30 opcodes; the rest of a checkpoint may hold curves and settings.
_OPCODES, _OPCODES_A_MEMBER = 1_000_000, 100
_STEPS = 3  # an opcode; what is not shared takes two at most
_LARGEST_ALIGNMENT = 1 << 15  # bytes; the length of an extra field has 16 bits


@dataclass(frozen=True, slots=True)
class TorchZipFile:
    """An opened file; see `ckpt.formats.checkpoint.Checkpoint`."""

    source: ByteSource
    members: Sequence[Member]
    pickle: bytes
    read: Read
    state_dict: Node
    entries: Sequence[TensorEntry]
    spans: Sequence[Span]
    rest: Mapping[str, Any]
    alignment: int
    format: str = NAME
    written_by: str | None = None

    @property
    def sums(self) -> Sequence[Sum]:
        """Of every member; where there are bytes, a CRC-32 of 0 was not computed."""
        return [
            Sum(Span(member.offset, member.nbytes), member.crc32 or None, member.name)
            for member in self.members
            if member.nbytes
        ]

    def renamed(self, new_keys: Mapping[str, str]) -> Layout:
        """A new data.pkl, and all records as they are, aligned anew."""
        full = {entry.key: new_keys.get(entry.key, entry.key) for entry in self.entries}
        others = [key for key in texts_of(self.state_dict) if key not in full]
        expect_keys(self.source.name, [*full.values(), *others])
        renames = key_renames(self.state_dict, full)
        metadata = metadata_of(self.state_dict)
        if metadata is not None:
            renames += module_renames(metadata, full)
        data = rename_texts(self.pickle, self.read, renames)
        return lay_out_archive(self._members(data), alignment=self.alignment)

    def _members(self, data: bytes) -> Iterator[NewMember]:
        for member in self.members:
            if member.name.partition("/")[2] == "data.pkl":
                yield NewMember(member.name, len(data), zlib.crc32(data), data)
            else:
                span = Span(member.offset, member.nbytes)
                yield NewMember(member.name, member.nbytes, member.crc32, span)


def recognises(head: bytes) -> bool:
    """A zip archive whose first member is in a folder, as torch's all are."""
    length = int.from_bytes(head[26:28], "little")
    return head.startswith(b"PK\x03\x04") and b"/" in head[30 : 30 + length]


def read(source: ByteSource, *, inside: str | None = None) -> TorchZipFile:
    """See `ckpt.formats.checkpoint.Format.read`."""
    members = read_members(source)
    records = _records(source, members)
    data = _pickle(source, records)
    limit = _OPCODES + _OPCODES_A_MEMBER * len(members)
    where = f"{source.name}: data.pkl"
    described = read_pickle(data, name=where, opcode_limit=limit)

    def storage(key: str) -> Span:
        record = records.get(f"data/{key}")
        if record is None:
            raise FormatError(f"{source.name}: lacks the record data/{key}")
        return Span(record.offset, record.nbytes)

    found = find(described.root, name=where, step_limit=_STEPS * described.opcodes + 1000)
    path, state_dict = choose(found, inside, name=source.name)
    entries = entries_of(state_dict, storage, name=source.name)
    inside_it = {id(value) for _, value in state_dict.items}
    others = [
        entry_of(dotted(at), tensor, storage, name=source.name)
        for at, tensor in found.tensors
        if id(tensor) not in inside_it
    ]
    return TorchZipFile(
        source=source,
        members=members,
        pickle=data,
        read=described,
        state_dict=state_dict,
        entries=entries,
        spans=tensor_spans([*entries, *others]),
        rest=_rest(described.root, path, state_dict),
        alignment=_alignment(source, records),
    )


def lay_out(entries: Sequence[TensorEntry], *, name: str) -> Layout:
    """See `ckpt.formats.checkpoint.Format.lay_out`. Tied entries share a storage."""
    expect_keys("the new file", [entry.key for entry in entries])
    storages: dict[object, tuple[str, TensorEntry]] = {}
    names = []
    for entry in entries:
        tie = (entry.offset, entry.dtype, entry.shape, entry.stride)
        identity: object = tie if entry.nbytes else object()
        names.append(storages.setdefault(identity, (str(len(storages)), entry))[0])
    # torch names the folder after the file too, where the name is ASCII.
    folder = name if name.isascii() and name and "/" not in name else "archive"
    small = {
        "data.pkl": pickle_state_dict(entries, names),
        ".format_version": b"1",
        ".storage_alignment": b"%d" % ALIGNMENT,
        "byteorder": b"little",
    }
    members = [_small(folder, record, data) for record, data in small.items()]
    for record, entry in storages.values():
        path = f"{folder}/data/{record}"
        members.append(NewMember(path, entry.nbytes, None, Summed(entry)))
    return lay_out_archive([*members, _small(folder, "version", b"3\n")])


def _small(folder: str, record: str, data: bytes) -> NewMember:
    return NewMember(f"{folder}/{record}", len(data), zlib.crc32(data), data)


def _records(source: ByteSource, members: Sequence[Member]) -> dict[str, Member]:
    """The members by their name below the archive's one folder; the small ones checked."""
    folders = {member.name.partition("/")[0] for member in members}
    if len(folders) != 1:
        raise FormatError(f"{source.name}: a zip archive of {len(folders)} folders, not of one")
    records = {member.name.partition("/")[2]: member for member in members}
    if "constants.pkl" in records or any(name.startswith("code/") for name in records):
        raise FormatError(
            f"{source.name}: a TorchScript archive, which contains code",
            hint="save its weights: torch.save(torch.jit.load(FILE).state_dict(), NEW)",
        )
    if "archive_format" in records:
        raise FormatError(
            f"{source.name}: a torch.export archive, which contains a program",
            hint="save its weights: torch.save(torch.export.load(FILE).state_dict, NEW)",
        )
    for member in members:
        if member.method != 0:
            raise FormatError(
                f"{source.name}: {member.name}: compressed (method {member.method}); torch "
                "stores its records as they are",
                hint="unzip it, and zip it again with  zip -0 -r",
            )
    order = _content(source, records, "byteorder")
    if order not in (None, b"little"):
        raise FormatError(f"{source.name}: byteorder {order!r}, only little is read")
    for name in ("version", ".data/version", ".format_version"):
        _number(source, records, name)
    return records


def _alignment(source: ByteSource, records: Mapping[str, Member]) -> int:
    alignment = _number(source, records, ".storage_alignment")
    if alignment is None:
        return ALIGNMENT
    if not 1 <= alignment <= _LARGEST_ALIGNMENT:
        raise FormatError(f"{source.name}: storages aligned to {alignment:,} bytes")
    return alignment


def _number(source: ByteSource, records: Mapping[str, Member], name: str) -> int | None:
    content = _content(source, records, name)
    if content is None:
        return None
    text = content.strip()
    if not (text.isdigit() and len(text) < 10):
        raise FormatError(f"{source.name}: {name} {content!r} is no number")
    return int(text)


def _content(source: ByteSource, records: Mapping[str, Member], name: str) -> bytes | None:
    record = records.get(name)
    if record is None:
        return None
    if record.nbytes > 64:
        raise FormatError(f"{source.name}: {name}: {record.nbytes:,} bytes, a word was expected")
    return source.read(record.offset, record.nbytes)


def _pickle(source: ByteSource, records: Mapping[str, Member]) -> bytes:
    record = records.get("data.pkl")
    if record is None:
        raise FormatError(f"{source.name}: a zip archive without data.pkl")
    if record.nbytes > PICKLE_LIMIT:
        raise FormatError(f"{source.name}: data.pkl of {record.nbytes:,} bytes")
    data = source.read(record.offset, record.nbytes)
    # torch.load does not look at it; 0 means that the writer did not compute it.
    if record.crc32 and zlib.crc32(data) != record.crc32:
        raise FormatError(
            f"{source.name}: data.pkl is damaged: its CRC-32 differs", hint="fetch it again"
        )
    return data


def _rest(root: object, path: Sequence[str], state_dict: Node) -> dict[str, Any]:
    """What is beside the tensors of the state_dict, and its module versions whole."""
    rest = _beside(root, path, state_dict, [SHOWN_ITEMS])
    metadata = metadata_of(state_dict)
    if metadata is not None:
        rest["_metadata"] = describe(metadata, [len(metadata.items) * 10 + 10])
    return rest


def _beside(node: object, path: Sequence[str], chosen: Node, budget: list[int]) -> dict[str, Any]:
    """What stands along the path to the chosen state_dict; the path is bounded in length."""
    shown: dict[str, Any] = {}
    for key, value in node.items if isinstance(node, Node) else ():
        if path and key == path[0]:
            inner = _beside(value, path[1:], chosen, budget)
            if inner:
                shown[free_name(key, shown)] = inner
        elif not (node is chosen and is_tensor(value)):
            shown[free_name(key, shown)] = describe(value, budget)
            if budget[0] < 0:
                break
    return shown
