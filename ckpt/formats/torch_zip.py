"""The zip container of `torch.save`: data.pkl, a record for every storage, a few small records.

Source: `torch.serialization` of torch 2.13 (`_save`, `_load`) and PyTorch's
`caffe2/serialize/inline_container`. The pickle is read by `pickle.reader`, which runs nothing.
"""

from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckpt.errors import FormatError
from ckpt.formats.checkpoint import Checksum, expect_keys
from ckpt.formats.pickle.plain import plain_pickle
from ckpt.formats.pickle.reader import PICKLE_LIMIT, ParsedPickle, read_pickle
from ckpt.formats.pickle.tensors import Storage, Storages
from ckpt.formats.pickle.writer import is_module_versions, pickle_state_dict
from ckpt.formats.torch_read import read_state
from ckpt.formats.torch_state import TorchFile
from ckpt.formats.zip.inflated import STORED, Inflated, expect_proportion
from ckpt.formats.zip.reader import Member, read_members
from ckpt.formats.zip.writer import ALIGNMENT, NewMember, lay_out_archive
from ckpt.io import digest
from ckpt.io.composed import ExtendedSource
from ckpt.io.sources import ByteSource
from ckpt.tensors import Layout, Span, Summed, TensorEntry

NAME = "torch-zip"
# A tensor takes about 30 opcodes; the rest of a checkpoint may hold curves and settings.
_OPCODES, _OPCODES_A_MEMBER = 1_000_000, 100
_LARGEST_ALIGNMENT = 1 << 15  # bytes; the length of an extra field has 16 bits


@dataclass(frozen=True, slots=True)
class TorchArchive:
    """The container and its parsed pickle.

    Attributes:
        source: The file; compressed records follow its end, inflated.
        members: All records, in file order.
        spans: The contents of the records, by their names below the archive's folder.
        pickle: The bytes of data.pkl.
        read: The same, parsed.
        alignment: Of the records' data, in bytes.
    """

    source: ByteSource
    members: Sequence[Member]
    spans: Mapping[str, Span]
    pickle: bytes
    read: ParsedPickle
    alignment: int

    @property
    def root(self) -> object:
        """The value that data.pkl describes."""
        return self.read.root

    @property
    def checksums(self) -> Sequence[Checksum]:
        """Of every member that has bytes; there a CRC-32 of 0 means that it was not computed."""
        return [
            Checksum(span, member.crc32 or None, member.name)
            for member, span in zip(self.members, self.spans.values(), strict=True)
            if span.nbytes
        ]

    def storage(self, storage: Storage) -> Span:
        """The place of a storage's bytes.

        Raises:
            FormatError: There is no such record.
            ValueError: It is a view, which no zip archive has.
        """
        span = self.spans.get(f"data/{storage.key}")
        if span is None:
            raise FormatError(f"{self.source.name}: lacks the record data/{storage.key}")
        if storage.view is not None:
            raise ValueError("a view of a storage, which no zip archive has")
        return span

    def with_pickle(
        self,
        data: bytes,
        kept: Container[str] | None = None,
        more: Mapping[str, TensorEntry] | None = None,
    ) -> Layout:
        """The archive with another data.pkl, all storages or those that are `kept`, and `more`."""
        return lay_out_archive(self._members(data, kept, more or {}), alignment=self.alignment)

    def _members(
        self, data: bytes, kept: Container[str] | None, more: Mapping[str, TensorEntry]
    ) -> Iterator[NewMember]:
        for member, (name, span) in zip(self.members, self.spans.items(), strict=True):
            if kept is not None and name.startswith("data/") and name[5:] not in kept:
                continue
            if name == "data.pkl":
                yield NewMember(member.name, len(data), digest.crc32(data), data)
            else:
                yield NewMember(member.name, member.nbytes, member.crc32, span)
        folder = self.members[0].name.partition("/")[0]
        for key, entry in more.items():
            yield NewMember(f"{folder}/data/{key}", entry.nbytes, None, Summed(entry))


@dataclass(frozen=True, slots=True)
class TorchZipFile(TorchFile):
    """An opened file; a `ckpt.formats.checkpoint.Checkpoint`."""

    archive: TorchArchive
    format: str = NAME

    @property
    def source(self) -> ByteSource:
        return self.archive.source

    def storage_names(self) -> Collection[str]:
        return [name[5:] for name in self.archive.spans if name.startswith("data/")]

    @property
    def written_by(self) -> str:
        """By the record `byteorder`, which torch has written since 2.1."""
        since = "2.1 or newer" if "byteorder" in self.archive.spans else "1.6 to 2.0"
        return f"torch.save of torch {since}"

    @property
    def spans(self) -> Sequence[Span]:
        """All tensors that are not compressed."""
        return [span for span in self.state.spans if span.end <= self.source.size]

    @property
    def checksums(self) -> Sequence[Checksum]:
        return self.archive.checksums

    def renamed(self, new_keys: Mapping[str, str]) -> Layout:
        """A new data.pkl, and all other records unchanged, aligned again and stored."""
        archive = self.archive
        name = self.source.name
        data = self.state.renamed(archive.pickle, archive.read, new_keys, name=name)
        return archive.with_pickle(data)

    def plain(
        self,
        without: frozenset[int] = frozenset(),
        instead: Mapping[int, object] | None = None,
        more: Mapping[str, TensorEntry] | None = None,
    ) -> tuple[Layout, Sequence[str]]:
        """A new data.pkl, and the records of the storages that it names."""
        archive, made = self.archive, plain_pickle(self.archive.root, without, instead)
        layout = archive.with_pickle(made.data, made.storages, more)
        return layout, (*archive.read.modules, *made.changed)


def recognises(head: bytes) -> bool:
    """A zip archive whose first member is in a folder, as torch's all are."""
    length = int.from_bytes(head[26:28], "little")
    return head.startswith(b"PK\x03\x04") and b"/" in head[30 : 30 + length]


def read(source: ByteSource, *, inside: str | None = None) -> TorchZipFile:
    """Open a zip archive of torch.save."""
    archive = open_archive(source, opaque=True)
    where = f"{source.name}: data.pkl"
    storages = Storages(archive.storage)
    state = read_state(
        archive.read, storages, source=source, container=NAME, where=where, inside=inside
    )
    return TorchZipFile(state, archive)


def open_archive(source: ByteSource, *, opaque: bool = False) -> TorchArchive:
    """Read the container and its pickle, whatever that describes.

    Args:
        source: The file.
        opaque: Whether unknown globals become opaque nodes.

    Raises:
        FormatError: The archive is damaged, or not one of `torch.save`.
    """
    members = read_members(source)
    _expect_weights(source.name, members)
    whole, spans = _spans(source, members)
    _expect_small_records(whole, spans)
    data = _pickle(whole, spans, {member.name.partition("/")[2]: member for member in members})
    limit = _OPCODES + _OPCODES_A_MEMBER * len(members)
    where = f"{source.name}: data.pkl"
    described = read_pickle(data, name=where, opcode_limit=limit, opaque=opaque)
    return TorchArchive(whole, members, spans, data, described, _alignment(whole, spans))


def carries(key: str, value: object) -> bool:
    """Only the versions of modules."""
    return key == "_metadata" and is_module_versions(value)


def lay_out(
    entries: Sequence[TensorEntry], *, name: str, rest: Mapping[str, Any] | None = None
) -> Layout:
    """As in `ckpt.formats.checkpoint.Format`; tied entries share a storage."""
    expect_keys("the new file", [entry.key for entry in entries])
    storages: dict[object, tuple[str, TensorEntry]] = {}
    names = []
    for entry in entries:
        tie = (entry.offset, entry.dtype, entry.shape, entry.stride)
        identity: object = tie if entry.nbytes else object()
        names.append(storages.setdefault(identity, (str(len(storages)), entry))[0])
    # Like torch, name the folder after the file if the name is ASCII.
    folder = name if name.isascii() and name and "/" not in name else "archive"
    data = pickle_state_dict(entries, names, (rest or {}).get("_metadata"))
    return _archive(data, dict(storages.values()), folder)


def lay_out_value(root: object, storages: Mapping[str, TensorEntry] | None = None) -> Layout:
    """An archive of any plain value, or of one tensor.

    Args:
        root: Its node.
        storages: Those that it names, each the contiguous bytes of an entry of some source.
    """
    return _archive(plain_pickle(root).data, storages or {}, "archive")


def _archive(data: bytes, storages: Mapping[str, TensorEntry], folder: str) -> Layout:
    """An archive with this data.pkl, as torch writes it."""
    small = {
        "data.pkl": data,
        ".format_version": b"1",
        ".storage_alignment": b"%d" % ALIGNMENT,
        "byteorder": b"little",
    }
    members = [_small(folder, record, data) for record, data in small.items()]
    for record, entry in storages.items():
        path = f"{folder}/data/{record}"
        members.append(NewMember(path, entry.nbytes, None, Summed(entry)))
    return lay_out_archive([*members, _small(folder, "version", b"3\n")])


def _small(folder: str, record: str, data: bytes) -> NewMember:
    return NewMember(f"{folder}/{record}", len(data), digest.crc32(data), data)


def _expect_weights(name: str, members: Sequence[Member]) -> None:
    """Make sure that the archive has one folder, as torch writes it, and no code."""
    folders = {member.name.partition("/")[0] for member in members}
    if len(folders) != 1:
        raise FormatError(f"{name}: a zip archive with {len(folders)} folders, expected one")
    records = {member.name.partition("/")[2] for member in members}
    if "constants.pkl" in records or any(record.startswith("code/") for record in records):
        raise FormatError(
            f"{name}: a TorchScript archive, which contains code",
            hint="save its weights: torch.save(torch.jit.load(FILE).state_dict(), NEW)",
        )
    if "archive_format" in records:
        raise FormatError(
            f"{name}: a torch.export archive, which contains a program",
            hint="save its weights: torch.save(torch.export.load(FILE).state_dict, NEW)",
        )


def _spans(source: ByteSource, members: Sequence[Member]) -> tuple[ByteSource, dict[str, Span]]:
    """The content of each record; compressed ones follow the end of the source."""
    packed = [member for member in members if member.method != STORED]
    extended = ExtendedSource(source)
    if packed:
        expect_proportion(source.name, packed, source.size)
    spans = {}
    for member in members:
        stored = member.method == STORED
        offset = member.offset if stored else extended.add(Inflated(source, member))
        spans[member.name.partition("/")[2]] = Span(offset, member.nbytes)
    return extended if packed else source, spans


def _expect_small_records(source: ByteSource, spans: Mapping[str, Span]) -> None:
    order = _content(source, spans, "byteorder")
    if order not in (None, b"little"):
        raise FormatError(f"{source.name}: byteorder {order!r}, only little is read")
    for name in ("version", ".data/version", ".format_version"):
        _number_in(source, spans, name)


def _alignment(source: ByteSource, spans: Mapping[str, Span]) -> int:
    alignment = _number_in(source, spans, ".storage_alignment")
    if alignment is None:
        return ALIGNMENT
    if not 1 <= alignment <= _LARGEST_ALIGNMENT:
        raise FormatError(f"{source.name}: storages aligned to {alignment:,} bytes")
    return alignment


def _number_in(source: ByteSource, spans: Mapping[str, Span], name: str) -> int | None:
    content = _content(source, spans, name)
    if content is None:
        return None
    text = content.strip()
    if not (text.isdigit() and len(text) < 10):
        raise FormatError(f"{source.name}: {name} {content!r} is not a number")
    return int(text)


def _content(source: ByteSource, spans: Mapping[str, Span], name: str) -> bytes | None:
    span = spans.get(name)
    if span is None:
        return None
    if span.nbytes > 64:
        raise FormatError(f"{source.name}: {name}: {span.nbytes:,} bytes, expected a word")
    return source.read(span.offset, span.nbytes)


def _pickle(source: ByteSource, spans: Mapping[str, Span], members: Mapping[str, Member]) -> bytes:
    span = spans.get("data.pkl")
    if span is None:
        raise FormatError(
            f"{source.name}: a zip archive without data.pkl",
            hint="a failed torch.save leaves such a file",
        )
    if span.nbytes > PICKLE_LIMIT:
        raise FormatError(
            f"{source.name}: data.pkl of {span.nbytes:,} bytes, the limit is {PICKLE_LIMIT:,}"
        )
    data = source.read(span.offset, span.nbytes)
    # torch.load ignores it; 0 means that the writer did not compute it.
    crc32 = members["data.pkl"].crc32
    if crc32 and digest.crc32(data) != crc32:
        raise FormatError(
            f"{source.name}: data.pkl is damaged: its CRC-32 differs", hint="fetch it again"
        )
    return data
