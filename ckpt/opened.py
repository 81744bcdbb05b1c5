"""Open what a ref names: a version, a file or a definition. All three have entries."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from ckpt.errors import RefError, UsageError
from ckpt.formats import open_checkpoint
from ckpt.formats.checkpoint import Checkpoint
from ckpt.formats.opaque import (
    RUNS_CODE,
    ForeignGlobal,
    OpaqueWord,
    foreign_globals,
    without_opaque,
)
from ckpt.formats.paths import open_path, within
from ckpt.io.files import exists
from ckpt.refs import DefinitionRef, FileRef, Ref, VersionRef, parse_file_ref, parse_ref
from ckpt.registry.index import Version
from ckpt.registry.manifest import Manifest
from ckpt.registry.registry import Registry
from ckpt.registry.store.version import VersionSource
from ckpt.side_files import MOST_BYTES, MOST_FILES, Found, of_folder
from ckpt.tensors import TensorEntry

if TYPE_CHECKING:
    from ckpt.definitions import Definition


Named = str | PathLike[str]  # a ref, or a `pathlib` path, which always names a file


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """A checkpoint file, or a sharded checkpoint by its index or folder."""

    name: str
    path: Path
    inside: str | None
    checkpoint: Checkpoint

    @property
    def ref(self) -> Path:
        """The ref that opens it again."""
        return Path(self.name)

    @property
    def entries(self) -> Sequence[TensorEntry]:
        """The entries, with offsets and without digests."""
        return self.checkpoint.entries

    @property
    def foreign(self) -> tuple[ForeignGlobal, ...]:
        """The globals that torch's weights_only refuses."""
        return foreign_globals(self.checkpoint)

    @property
    def is_folder(self) -> bool:
        """Whether it is more than one file, or was named by its folder."""
        return len(self.names) > 1 or self.path.is_dir()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the files that hold the weights."""
        return tuple(part.name for part in self.checkpoint.source.parts)

    def side_files(self) -> Found:
        """What its folder holds besides the weights; nothing if a file was named.

        Too many files to belong to weights, a dataset for example, are only counted.
        """
        found = of_folder(self.path, self.names) if self.path.is_dir() else Found()
        nbytes = sum(file.nbytes for file in found.files)
        if len(found.files) > MOST_FILES or nbytes > MOST_BYTES:
            return Found(left=(f"{len(found.files):,} files of {nbytes:,} bytes", *found.left))
        return found

    def expect_other(self, out: Path) -> None:
        """Refuse to write to one of the files of this checkpoint, whatever `out` calls it."""
        folder = self.path if self.path.is_dir() else self.path.parent
        read = [self.path, *(folder / part.name for part in self.checkpoint.source.parts)]
        if out.exists() and any(file.exists() and out.samefile(file) for file in read):
            several = len(self.checkpoint.source.parts) > 1
            raise UsageError(
                f"{out} is the input, which is never overwritten",
                hint="name another file with -o" + ("" if several else ", or use --in-place"),
            )


@dataclass(frozen=True)  # without slots, for `cached_property`
class OpenedVersion:
    """A registered version; its checkpoint is read from the skeleton when it is first needed."""

    name: str
    version: Version
    source: VersionSource

    @property
    def ref(self) -> str:
        """The ref that opens it again."""
        return self.version.ref

    @property
    def is_folder(self) -> bool:
        """Whether it is more than one file."""
        return bool(self.manifest.files or self.manifest.side_files)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the files that hold the weights."""
        return self.manifest.names

    def side_files(self) -> Found:
        """What was registered beside the weights."""
        return Found(self.source.side_files())

    @property
    def manifest(self) -> Manifest:
        """The version's manifest."""
        return self.source.manifest

    @property
    def inside(self) -> str | None:
        """The state_dict of its file, as after ``FILE::``."""
        return self.manifest.inside

    @property
    def entries(self) -> Sequence[TensorEntry]:
        """The entries, with digests and without offsets."""
        return self.manifest.entries

    @property
    def foreign(self) -> tuple[ForeignGlobal, ...]:
        """The globals that run code when the version's file is unpickled."""
        noted = self.manifest.record.get(RUNS_CODE)
        return tuple(
            ForeignGlobal(name, offset, runs_code=True)
            for name, offset in (noted.items() if isinstance(noted, dict) else ())
            if type(offset) is int
        )

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The version's file, read like any other file."""
        return open_checkpoint(self.source, inside=self.manifest.inside)


@dataclass(frozen=True, slots=True)
class OpenedDefinition:
    """A definition, built on the meta device."""

    name: str
    definition: "Definition"
    entries: Sequence[TensorEntry]


OpenedState = OpenedFile | OpenedVersion
Opened = OpenedState | OpenedDefinition


def settled(opened: OpenedState, opaque: OpaqueWord | None) -> tuple[OpenedState, Sequence[str]]:
    """The same without opaque objects if `opaque` says so, and what is gone."""
    if opaque != "drop":
        return opened, ()
    checkpoint, changed = without_opaque(opened.checkpoint, opened.inside)
    if checkpoint is opened.checkpoint:
        return opened, ()
    opened = copy(opened)
    if isinstance(opened, OpenedVersion):
        vars(opened)["checkpoint"] = checkpoint
        return opened, changed
    return replace(opened, checkpoint=checkpoint), changed


@contextmanager
def open_ref(
    named: Named, registry: Registry, arguments: Mapping[str, object] | None = None
) -> Iterator[Opened]:
    """Open what a ref or a path names; files are closed when the block ends.

    Raises:
        RefError: Nothing has this name.
        FormatError: The file is not a checkpoint that can be read.
    """
    text, ref = fspath(named), parse_named(named, registry)
    if isinstance(ref, FileRef):
        file = within(ref)
        with open_path(file.path) as source:
            checkpoint = open_checkpoint(source, inside=file.inside)
            yield OpenedFile(text, file.path, file.inside, checkpoint)
    elif isinstance(ref, DefinitionRef) and not _is_model(ref, registry):
        definition = _definition(ref, arguments)
        yield OpenedDefinition(as_typed(text, arguments), definition, definition.entries())
    else:
        version = _version(text, ref, registry)
        yield OpenedVersion(version.ref, version, registry.source(version))


def parse_named(named: Named, registry: Registry) -> Ref:
    """The ref that somebody typed; a path that exists, and that no version is named like, is one.

    Raises:
        UsageError: The text fits none of the forms, and is not a path that exists.
    """
    text = fspath(named)
    if not isinstance(named, str):
        return parse_file_ref(text)
    is_there = bool(text) and exists(Path(text))
    try:
        ref = parse_ref(text)
        if is_there and isinstance(ref, VersionRef):
            registry.version(ref)
    except UsageError:
        if not is_there:
            raise
        return FileRef(Path(text))
    return ref


@contextmanager
def open_state(text: Named, registry: Registry) -> Iterator[OpenedState]:
    """Open a version or a file; a definition holds no weights."""
    with open_ref(text, registry) as opened:
        if isinstance(opened, OpenedDefinition):
            raise RefError(f"{text} is a definition and holds no weights")
        yield opened


def as_typed(definition: str, arguments: Mapping[str, object] | None) -> str:
    """A definition as one types it, ``net.py:Net --arg width=64``."""
    texts = (f"{name}={value}" for name, value in (arguments or {}).items())
    return " ".join([definition, *(f"--arg {quote(text)}" for text in texts)])


def _definition(ref: DefinitionRef, arguments: Mapping[str, object] | None) -> "Definition":
    from ckpt.definitions import find_definition

    try:
        return find_definition(ref.text, arguments)
    except RefError as error:
        if ref.version is None or "." in str(ref.version.model):
            raise
        raise RefError(
            f"{ref.text}: no model {ref.version.model} in the registry, and no such module",
            hint=f"{error}",
        ) from error


def _is_model(ref: DefinitionRef, registry: Registry) -> bool:
    return ref.version is not None and ref.version.model in registry.index().models


def _version(text: str, ref: Ref, registry: Registry) -> Version:
    try:
        return registry.version(ref)
    except RefError as error:
        # Whoever types `old` may mean old.pt.
        near = sorted(Path.cwd().glob(f"{text}.*")) if text.isidentifier() else []
        if not near:
            raise
        raise RefError(str(error), hint=f"or the file {near[0].name}?") from error
