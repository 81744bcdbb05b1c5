"""What a ref names, opened: a file, what is in memory, a version or a definition.

All have entries: keys, dtypes and shapes, and a state_dict as torch sees it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckpt.errors import UsageError
from ckpt.formats import ALL, open_checkpoint
from ckpt.formats.checkpoint import Checkpoint
from ckpt.formats.opaque import (
    RUNS_CODE,
    ForeignGlobal,
    foreign_globals,
    unopened,
)
from ckpt.opened.named import Weights
from ckpt.side_files import MOST_BYTES, MOST_FILES, Found, of_folder
from ckpt.tensors import StateDict, TensorEntry

if TYPE_CHECKING:
    from torch import nn

    from ckpt.definitions import Definition
    from ckpt.registry.manifest import Manifest
    from ckpt.registry.registry import Registry
    from ckpt.registry.store.version import VersionSource
    from ckpt.registry.version import Version


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


class OpenedPart(OpenedFile):
    """Another state_dict of a version's file than the registered one."""

    __slots__ = ()


@dataclass(frozen=True)  # without slots, for `cached_property`
class OpenedVersion:
    """A registered version; its checkpoint is read from the skeleton when it is first needed."""

    name: str
    version: "Version"
    source: "VersionSource"
    registry: "Registry"

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
    def manifest(self) -> "Manifest":
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


def _state_of(checkpoint: Checkpoint, entries: Sequence[TensorEntry]) -> StateDict:
    versions = checkpoint.rest.get("_metadata") if checkpoint.pickled is not None else None
    return StateDict(
        entries,
        tuple(checkpoint.others),
        versions if isinstance(versions, Mapping) else None,
        checkpoint.aliases,
    )
