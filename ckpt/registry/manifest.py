"""The manifest: the immutable description of one version.

It names the version's tensors and the bytes around them (the skeleton) by digest, so that
file = skeleton + tensors, byte for byte. It is canonical JSON, stored under the digest of
its own bytes; a large one has columns in place of rows, and is deflated (`ckpt.registry.columns`).
Objects up to 4 KiB, and small skeletons, are part of it (`inline`).
Laws: `Manifest.from_bytes(m.to_bytes()) == m`; equal content has an equal `content_digest`.
"""

import base64
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, NotRequired, TypedDict

from ckpt.dtypes import DTYPES
from ckpt.errors import IntegrityError, UsageError
from ckpt.io import digest
from ckpt.io.documents import strict_json
from ckpt.io.documents.typed_json import Count, Digest, Form, Time, expect
from ckpt.io.files import is_base_name
from ckpt.io.who import By
from ckpt.registry.columns import MOST_BYTES, deflated, inflated, to_columns, to_rows
from ckpt.side_files import SideFile, expect_names
from ckpt.tensors import MOST_PARTS, TensorEntry, is_key

SCHEMA = 2
PLAIN_BYTES = 1 << 16  # up to here git shows what changed
_MOST_DEEP = 100  # readers may have less of Python's stack left than the writer
INLINE_BYTES = 4096  # a bias should not cost a disk block
HASHED_WHOLE = 32 << 20  # bytes; a second hash of a larger file takes as long as the first
# A skeleton is mostly zip padding and repeated names: 80 KB of one take 8 KB here.
INLINE_SKELETON_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Hole:
    """A range of the file that belongs to a tensor."""

    offset: int
    nbytes: int
    digest: str

    @property
    def end(self) -> int:
        """Offset of the first byte after the hole."""
        return self.offset + self.nbytes


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The file's bytes outside the tensors.

    Attributes:
        size: Bytes of the whole file.
        holes: Where tensors go, in file order, disjoint.
        digest: Of the bytes outside the holes, joined.
    """

    size: int
    holes: tuple[Hole, ...]
    digest: str

    @property
    def nbytes(self) -> int:
        """Bytes outside the holes."""
        return self.size - sum(hole.nbytes for hole in self.holes)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One version.

    Attributes:
        format: The container's format, e.g. ``torch-zip``.
        file_name: The base name of the file, or of the folder of several files.
        file_digest: Of the whole file, or of several joined; None if it was never written (a
            rename), or is large: skeleton and tensors prove its bytes as well.
        skeleton: The file around the tensors.
        entries: In file order, each with its digest and without an offset.
        inside: The state_dict of a training checkpoint that they are, as after ``FILE::``.
        rest: The container's non-tensor part, for people to read.
        record: Origin of the version: parent, plan, training, metrics, environment.
        inline: Digest to bytes, of objects that are too small for a file of their own.
        files: Base name and bytes of each file, joined in this order; empty for one file.
        side_files: What was registered beside the weights, by name.
    """

    format: str
    file_name: str
    file_digest: str | None
    skeleton: Skeleton
    entries: tuple[TensorEntry, ...]
    inside: str | None = None
    rest: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    inline: Mapping[str, bytes] = field(default_factory=dict)
    files: tuple[tuple[str, int], ...] = ()
    side_files: tuple[SideFile, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the files that hold the weights."""
        return tuple(name for name, _ in self.files) or (self.file_name,)

    @property
    def content_digest(self) -> str:
        """Digest of the content without the record: equal bytes, equal digest."""
        files = [self.files] if self.files else []
        beside = [self._beside()] if self.side_files else []
        content = [self.format, self.inside, *self._content(), *files, *beside]
        return digest.of_bytes(canonical(content))

    @property
    def tensors_digest(self) -> str:
        """Digest of the state_dict, independent of its container and its order."""
        _, entries = self._content()
        return digest.of_bytes(canonical(sorted(entries)))

    def objects(self, whose: str = "") -> dict[str, tuple[int, str]]:
        """Every object that the version needs: digest to (bytes, name in messages).

        Args:
            whose: What comes before these names.
        """
        found: dict[str, tuple[int, str]] = {}
        for name, nbytes, what in self.uses():
            if name not in self.inline:
                found.setdefault(name, (nbytes, f"{whose}{what}"))
        return found

    def uses(self) -> Iterator[tuple[str, int, str]]:
        """The digest, bytes and name in messages of every object where it is used."""
        for entry in self.entries:
            yield str(entry.digest), entry.nbytes, entry.key
        for hole in self.skeleton.holes:
            yield hole.digest, hole.nbytes, f"bytes at {hole.offset}"
        yield self.skeleton.digest, self.skeleton.nbytes, "skeleton"
        if source := self.record.get("definition"):
            yield source["digest"], source["nbytes"], "definition"
        for file in self.side_files:
            yield file.digest, file.nbytes, file.name

    def _beside(self) -> dict[str, Any]:
        return {"side_files": [[each.name, each.nbytes, each.digest] for each in self.side_files]}

    def _content(self) -> list[Any]:
        skeleton = self.skeleton
        holes = [[hole.offset, hole.nbytes, hole.digest] for hole in skeleton.holes]
        entries = [[e.key, e.dtype, list(e.shape), e.digest] for e in self.entries]
        return [[skeleton.size, skeleton.digest, holes], entries]

    def to_bytes(self) -> bytes:
        """The manifest in the form that is stored; `read_record` has checked its record."""
        skeleton, entries = self._content()
        files = {"files": self.files} if self.files else {}
        document = {
            **files,
            **(self._beside() if self.side_files else {}),
            "schema": 1,
            "format": self.format,
            "file": {"name": self.file_name, "digest": self.file_digest},
            "skeleton": skeleton,
            "entries": entries,
            "inside": self.inside,
            "rest": self.rest,
            "record": self.record,
            "inline": self.inline,
        }
        without = canonical({**document, "inline": {}})
        if len(without) <= PLAIN_BYTES and len(plain := self._plain(document)) <= PLAIN_BYTES:
            return plain
        columns = to_columns(document)
        compact = canonical(columns)
        if max(len(compact), sum(map(len, self.inline.values()))) > MOST_BYTES:
            return self._plain(document)
        return deflated(compact, digits=columns["digests"].encode("ascii"))

    def _plain(self, document: dict[str, Any]) -> bytes:
        packed = {name: _packed(data) for name, data in self.inline.items()}
        return canonical({**document, "inline": packed})

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Read a stored manifest.

        Raises:
            IntegrityError: It is not a manifest, or one of a newer schema.
        """
        try:
            document = strict_json.parse(inflated(data).decode("utf-8"))
            expect(document, _Schema, name="")
            if document["schema"] == 1:
                expect(document, _Rows, name="")
                inline = document["inline"]
                return _read(document, {name: _unpacked(name, inline[name]) for name in inline})
            if document["schema"] == SCHEMA:
                expect(document, _Columns, name="")
                document = to_rows(document)
                return _read(document, document["inline"])
        except (ValueError, zlib.error) as error:
            raise IntegrityError(f"not a manifest: {error}") from error
        raise IntegrityError(
            f"manifest of schema {document['schema']}, this ckpt reads up to {SCHEMA}",
            hint="a newer ckpt wrote it: pip install -U ckpt-registry",
        )


_Dtype = Annotated[str, Form("a dtype", DTYPES.__contains__)]
_Key = Annotated[str, Form(f"a key of at most {MOST_PARTS} parts", is_key)]
_Shape = Annotated[list[Count], Form("at most 1,000 dimensions", lambda sizes: len(sizes) <= 1000)]
_Digests = Annotated[
    str, Form("digests of 64 digits each", re.compile("([0-9a-f]{64})*").fullmatch)
]
_True = Annotated[bool, Form("true", bool)]


class _Schema(TypedDict):
    schema: Annotated[int, Form("a positive integer", lambda number: number > 0)]


class _File(TypedDict):
    name: str
    digest: Digest | None


class _Parent(TypedDict):
    version: str
    manifest: Digest
    same_tensors: NotRequired[_True]


class _Plan(TypedDict):
    rules: list[str]
    keys: dict[str, str]
    aliases: NotRequired[dict[str, str]]
    tied: NotRequired[list[str]]
    document: NotRequired[list[Any]]  # `ckpt.rules` reads both
    source: NotRequired[list[Any]]
    numbers: NotRequired[dict[str, int | None]]
    undone: NotRequired[_True]


class _Definition(TypedDict):
    digest: Digest
    nbytes: Count


class Record(TypedDict, total=False):
    """The fields of a record that ckpt reads; there may be more."""

    model: str
    message: str
    made_by: str
    created: Time
    by: By
    metrics: dict[str, float]
    parent: _Parent
    plan: _Plan
    fits: str
    training: dict[str, Any]
    curves: dict[str, list[Any]]
    definition: _Definition


class _Document(_Schema):
    format: str
    file: _File
    files: NotRequired[list[tuple[str, Count]]]
    side_files: NotRequired[list[tuple[str, Count, Digest]]]
    inside: str | None
    rest: dict[str, Any]
    record: Record


class _Rows(_Document):
    skeleton: tuple[Count, Digest, list[tuple[Count, Count, Digest]]]
    entries: list[tuple[_Key, _Dtype, _Shape, Digest]]
    inline: dict[Digest, str]


class _Columns(_Document):
    digests: _Digests
    inline: tuple[list[Count], str]
    # Of the holes: the gap before each, its bytes, the step to its object.
    skeleton: tuple[Count, Count, list[Count], list[Count], list[int]]
    entries: tuple[list[_Key], list[_Dtype], list[_Shape], list[int]]


def canonical(document: object) -> bytes:
    """JSON with one spelling: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode(
        "ascii"
    )


def read_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as its readers will see it.

    Raises:
        UsageError: JSON or a reader does not have such a value; the message names it.
    """
    try:
        read: dict[str, Any] = strict_json.parse(canonical(record).decode("ascii"))
        expect(read, Record, name="")
        if _depth(read) > _MOST_DEEP:
            raise ValueError(f"nested deeper than {_MOST_DEEP}")
    except (TypeError, ValueError, RecursionError) as error:
        where = _unreadable(record)
        raise UsageError(f"{where}: {error}" if where else str(error)) from error
    return read


def _depth(value: object) -> int:
    return 1 + max((_depth(part) for _, part in _parts(value)), default=0)


def _parts(value: object) -> Iterable[tuple[object, object]]:
    if isinstance(value, Mapping):
        return value.items()
    return enumerate(value) if isinstance(value, list | tuple) else ()


def _unreadable(value: object, path: str = "") -> str:
    """The path of the innermost value that does not survive JSON; empty if all do."""
    for key, part in _parts(value):
        try:
            strict_json.parse(canonical(part).decode("ascii"))
        except (TypeError, ValueError):
            return _unreadable(part, f"{path}.{key}".removeprefix("."))
        except RecursionError:
            return f"{path}.{key}".removeprefix(".")
    return path


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode("ascii")


def _read(document: dict[str, Any], inline: Mapping[str, bytes]) -> Manifest:
    size, skeleton_digest, holes = document["skeleton"]
    manifest = Manifest(
        format=document["format"],
        file_name=document["file"]["name"],
        file_digest=document["file"]["digest"],
        skeleton=Skeleton(size, tuple(Hole(*hole) for hole in holes), skeleton_digest),
        entries=tuple(
            TensorEntry(key, dtype, tuple(shape), digest=tensor)
            for key, dtype, shape, tensor in document["entries"]
        ),
        inside=document["inside"],
        rest=document["rest"],
        record=document["record"],
        inline=inline,
        files=tuple((name, nbytes) for name, nbytes in document.get("files", ())),
        side_files=tuple(SideFile(*each) for each in document.get("side_files", ())),
    )
    _check(manifest)
    return manifest


def _unpacked(name: str, text: str) -> bytes:
    inflater = zlib.decompressobj()
    data = inflater.decompress(base64.b64decode(text), INLINE_SKELETON_BYTES)
    if not inflater.eof or digest.of_bytes(data) != name:
        raise ValueError(f"inline object {name} is damaged")
    return data


def _check(manifest: Manifest) -> None:
    """Check that holes are in order and sizes add up."""
    position = 0
    for hole in manifest.skeleton.holes:
        if hole.offset < position:
            raise ValueError(f"hole at {hole.offset} is out of order")
        position = hole.end
    if position > manifest.skeleton.size:
        raise ValueError(f"a hole ends at {position}, the file at {manifest.skeleton.size}")
    for entry in manifest.entries:
        if entry.numel >= 1 << 63:
            raise ValueError(f"{entry.key!r} has too many elements")
    sizes = {name: len(data) for name, data in manifest.inline.items()}
    for name, nbytes, what in manifest.uses():
        if sizes.setdefault(name, nbytes) != nbytes:
            raise ValueError(f"{what!r} has {nbytes} bytes, its object {sizes[name]}")
    if manifest.files and sum(nbytes for _, nbytes in manifest.files) != manifest.skeleton.size:
        raise ValueError("its files do not add up to its size")
    for file_name, _ in manifest.files:
        if not is_base_name(file_name):
            raise ValueError(f"{file_name!r} is not a file of a checkpoint")
    if manifest.side_files:
        expect_names([*manifest.names, *(file.name for file in manifest.side_files)])
