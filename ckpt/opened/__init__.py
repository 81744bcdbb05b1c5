"""Open what a ref names, or what is in memory: a version, a file or a definition.

All three have entries. In Python, a state_dict or module in memory is a file that is not written,
and a class is a definition.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from os import PathLike, fspath
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, TypeVar, Union

from ckpt.errors import RefError, UsageError
from ckpt.formats import ALL, open_checkpoint
from ckpt.formats.checkpoint import Checkpoint
from ckpt.formats.opaque import (
    RUNS_CODE,
    ForeignGlobal,
    foreign_globals,
    unopened,
)
from ckpt.formats.paths import open_path, within
from ckpt.in_memory import is_module, name_of, unsaved
from ckpt.io.files import exists
from ckpt.refs import (
    SUFFIXES,
    DefinitionRef,
    FileRef,
    Ref,
    UrlRef,
    VersionRef,
    is_url,
    parse_file_ref,
    parse_ref,
    parse_url,
)
from ckpt.registry.index import Version
from ckpt.registry.manifest import Manifest
from ckpt.registry.registry import Added, Registry
from ckpt.registry.store.version import VersionSource
from ckpt.side_files import MOST_BYTES, MOST_FILES, Found, of_folder
from ckpt.tensors import StateDict, TensorEntry

if TYPE_CHECKING:
    from torch import nn

    from ckpt.definitions import Definition


Named = str | PathLike[str]  # a ref, or a `pathlib` path, which always names a file
# What else Python code has of weights: a state_dict, a module, a version, `ckpt.open`'s result.
Weights = Union[Named, Mapping[str, Any], "nn.Module", Version, Added]
# A class, or a function that returns a module, is a definition.
Defined = Union["type[nn.Module]", "Callable[[], nn.Module]"]
WeightsOrClass = Union[Weights, Defined]  # noqa: UP007
Given = TypeVar("Given")
_CODE_BYTES = 1 << 20  # of Python code, in which classes are looked for


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """A checkpoint file, or a sharded checkpoint by its index or folder."""

    name: str
    path: Path
    inside: str | None
    checkpoint: Checkpoint

    @property
    def ref(self) -> "Weights":
        """What opens it again."""
        return Path(self.name)

    @property
    def entries(self) -> Sequence[TensorEntry]:
        """The entries, with offsets and without digests."""
        return self.checkpoint.entries

    @property
    def state(self) -> StateDict:
        """The state_dict without its values."""
        return _state_of(self.checkpoint, self.entries)

    @property
    def foreign(self) -> tuple[ForeignGlobal, ...]:
        """The globals that torch's weights_only refuses."""
        return foreign_globals(self.checkpoint)

    @property
    def is_folder(self) -> bool:
        """Whether it is more than one file, or was named by its folder."""
        return len(self.names) > 1 or self.names_folder

    @property
    def names_folder(self) -> bool:
        """Whether it was named by its folder."""
        return self.path.is_dir()

    @property
    def origin(self) -> Mapping[str, Any] | None:
        """Where it comes from, for a record; None for a file that is here."""
        return None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the files that hold the weights."""
        return tuple(part.name for part in self.checkpoint.source.parts)

    def side_files(self) -> Found:
        """What its folder holds besides the weights; nothing if a file was named.

        Too many files to belong to weights, a dataset for example, are only counted.
        """
        found = of_folder(self.path, self.names) if self.names_folder else Found()
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


@dataclass(frozen=True, slots=True)
class OpenedMemory(OpenedFile):
    """A state_dict or module in memory, as the file that `torch.save` would write.

    Attributes:
        value: What was given.
    """

    value: "Mapping[str, Any] | nn.Module" = field(default_factory=dict)

    @property
    def ref(self) -> "Weights":
        """What opens it again."""
        return self.value

    @property
    def is_folder(self) -> bool:
        """It never is."""
        return False

    def side_files(self) -> Found:
        """There are none."""
        return Found()

    def expect_other(self, out: Path) -> None:
        """No file holds it."""


@dataclass(frozen=True)  # without slots, for `cached_property`
class OpenedVersion:
    """A registered version; its checkpoint is read from the skeleton when it is first needed."""

    name: str
    version: Version
    source: VersionSource
    registry: Registry

    @property
    def ref(self) -> str:
        """The ref that opens it again."""
        return self.name

    @property
    def is_elsewhere(self) -> bool:
        """Whether its registry is elsewhere, so that nothing is added to it."""
        return self.name != self.version.ref

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
    def state(self) -> StateDict:
        """The state_dict without its values; reads the version's file."""
        return _state_of(self.checkpoint, self.entries)

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
    state: StateDict

    @property
    def entries(self) -> Sequence[TensorEntry]:
        """The tensors of its state_dict."""
        return self.state.entries


OpenedState = OpenedFile | OpenedVersion
Opened = OpenedState | OpenedDefinition


@contextmanager
def open_ref(
    named: WeightsOrClass,
    registry: Registry,
    arguments: Mapping[str, object] | None = None,
    *,
    whole: bool = False,
    summed: bool = False,
) -> Iterator[Opened]:
    """Open what a ref or a path names, or what is in memory; files are closed when the block ends.

    Args:
        named: It.
        registry: Where versions are looked up.
        arguments: The arguments of a definition.
        whole: Whether its weights are needed: a server that sends only whole files sends one.
        summed: Whether what is in memory gets checksums, since it will be written.

    Raises:
        RefError: Nothing has this name.
        FormatError: The file is not a checkpoint that can be read.
        UsageError: It is nothing that could hold weights.
    """
    named = as_ref(named)
    if not isinstance(named, str | PathLike):
        yield _open_value(named, arguments, summed=summed)
        return
    text, ref = fspath(named), parse_named(named, registry)
    if isinstance(ref, FileRef):
        expect_class(ref.path)
        file = within(ref)
        with open_path(file.path) as source:
            checkpoint = open_checkpoint(source, inside=file.inside)
            yield OpenedFile(text, file.path, file.inside, checkpoint)
    elif isinstance(ref, UrlRef):
        opening = import_module("ckpt.remote.elsewhere.opening")  # a layer above, and optional
        with opening.open_url(text, ref, whole=whole) as elsewhere:
            yield elsewhere
    elif isinstance(ref, DefinitionRef) and not _is_model(ref, registry):
        yield _described(text, _definition(ref, arguments), arguments)
    else:
        yield open_version(text, ref, registry)


def open_version(text: str, ref: Ref, registry: Registry, place: str = "") -> OpenedState:
    """Open a version, or one state_dict of its file; the registered one is the version.

    Args:
        text: The ref as it was typed.
        ref: The same, parsed.
        registry: That has it.
        place: What the names of versions begin with: ``URL#`` of a registry elsewhere.

    Raises:
        RefError: There is no such version.
    """
    inside = None
    if isinstance(ref, VersionRef):
        ref, inside = replace(ref, inside=None), ref.inside
    version = _version(text, ref, registry)
    source, name = registry.source(version), place + version.ref
    if inside in (None, source.manifest.inside):
        return OpenedVersion(name, version, source, registry)
    checkpoint = open_checkpoint(source, inside=inside)
    return OpenedFile(f"{name}::{inside}", Path(version.ref), inside, checkpoint)


def as_ref(named: Given) -> Given | str:
    """The ref of a version of the registry; all else as it is."""
    version = named.version if isinstance(named, Added) else named
    return version.ref if isinstance(version, Version) else named


def _open_value(value: Any, arguments: Mapping[str, object] | None, *, summed: bool) -> Opened:
    """Open what is in memory; a module without values is a definition."""
    opened = getattr(value, "opened", None)
    if isinstance(opened, OpenedFile | OpenedVersion):  # of `ckpt.open`
        return opened
    if isinstance(value, Mapping) or (is_module(value) and _has_values(value)):
        name = name_of(value)
        source = unsaved(value, name=name, file_name=f"{name}.pt", summed=summed)
        return OpenedMemory(name, Path(f"<{name}>"), None, open_checkpoint(source), value)
    if callable(value):
        return opened_definition(value, arguments)
    raise UsageError(
        f"{type(value).__name__}: expected a ref, a path, a state_dict, a module or a class"
    )


def _has_values(module: Any) -> bool:
    tensors = [*module.parameters(), *module.buffers()]
    return not tensors or any(not tensor.is_meta for tensor in tensors)


def opened_definition(
    named: "str | Defined | nn.Module", arguments: Mapping[str, object] | None = None
) -> OpenedDefinition:
    """Open what can only be a definition; a module stands for its class as it was built."""
    from ckpt.definitions import definition_of

    definition = definition_of(named, arguments)
    return _described(definition.ref, definition, arguments)


def parse_named(named: Named, registry: Registry) -> Ref:
    """The ref that somebody typed; a path that exists, and that no version is named like, is one.

    Raises:
        UsageError: The text fits none of the forms, and is not a path that exists.
    """
    text = fspath(named)
    if not isinstance(named, str):
        return parse_file_ref(text)
    if is_url(text):
        return parse_url(text)
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
def open_state(text: Weights, registry: Registry, *, summed: bool = False) -> Iterator[OpenedState]:
    """Open a version, a file or what is in memory; a definition holds no weights."""
    with open_ref(text, registry, whole=True, summed=summed) as opened:
        if isinstance(opened, OpenedDefinition):
            raise RefError(f"{opened.name} is a definition and holds no weights")
        yield opened


def as_typed(definition: str, arguments: Mapping[str, object] | None) -> str:
    """A definition as one types it, ``net.py:Net --arg width=64``."""
    texts = (f"{name}={value}" for name, value in (arguments or {}).items())
    return " ".join([definition, *(f"--arg {quote(text)}" for text in texts)])


def nesting(opened: Opened) -> tuple[tuple[str, ...], str | None]:
    """The keys that lead from the root of a file to its state_dict, and how Python loads that.

    None if the state_dict is the file, or if the ref names it already.
    """
    if isinstance(opened, OpenedDefinition) or opened.checkpoint.pickled is None:
        return (), None
    path = opened.checkpoint.pickled.path
    if not path or opened.inside not in (None, ALL):
        return (), None
    if isinstance(opened, OpenedVersion):
        return path, f"ckpt.load({opened.ref!r})"
    if unopened(opened.checkpoint) or opened.origin is not None:
        inside = f"{opened.name.removesuffix(f'::{opened.inside}')}::{'.'.join(path)}"
        return path, f"ckpt.load({inside!r})"
    return path, f"torch.load({str(opened.path)!r})" + "".join(f"[{key!r}]" for key in path)


def _described(
    text: str, definition: "Definition", arguments: Mapping[str, object] | None
) -> OpenedDefinition:
    return OpenedDefinition(as_typed(text, arguments), definition, definition.state())


def _state_of(checkpoint: Checkpoint, entries: Sequence[TensorEntry]) -> StateDict:
    versions = checkpoint.rest.get("_metadata") if checkpoint.pickled is not None else None
    return StateDict(
        entries,
        tuple(checkpoint.others),
        versions if isinstance(versions, Mapping) else None,
        checkpoint.aliases,
    )


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
        meant = _meant(text, registry)
        if meant is None:
            raise
        raise RefError(str(error), hint=meant) from error


def _meant(text: str, registry: Registry) -> str | None:
    """A hint for a ref that names no version: an alias without its model, or a file."""
    if aliases := [f"{each.name}@{text}" for each in registry.index().models.values()
                   if text in each.aliases]:  # fmt: skip
        return f"{' or '.join(aliases)}  is the version with this alias"
    files = sorted(path.name for path in Path.cwd().glob("*.*") if path.suffix in SUFFIXES)
    near = [name for name in files if name.startswith(f"{text}.")]
    if not near and "." in text:
        from difflib import get_close_matches

        near = get_close_matches(text, files, n=1)
    return f"or the file {near[0]}?" if near else None


def expect_class(path: Path) -> None:
    """Refuse a file of Python code that is named without a class."""
    if path.suffix != ".py" or not path.is_file():
        return
    with path.open("rb") as file:
        text = file.read(_CODE_BYTES).decode("utf-8", "replace")
    names = re.findall(r"^class (\w+)\(", text, re.MULTILINE)
    shown = [f"{path}:{name}" for name in names[:5]] or [f"{path}:Class"]
    raise UsageError(f"{path}: Python code, and no class is named", hint="  ".join(shown))
