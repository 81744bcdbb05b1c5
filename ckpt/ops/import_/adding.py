"""Add what was found as versions, and aliases to them; or tell what would be added.

Laws: the same bytes are one version; what the model has, or had, is not added again; an alias that
was ever here stays where it is. Each version is a write of its own, so that an import which was
interrupted goes on.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ckpt.errors import CkptError, FormatError, RefusedGlobalError
from ckpt.formats.opaque import OpaqueWord
from ckpt.io.files import Told, untold
from ckpt.ops.alias import alias
from ckpt.ops.import_.imported import Found, Item, Pointed
from ckpt.ops.register import Content, content_of, register
from ckpt.registry.index import Model
from ckpt.registry.registry import Registry
from ckpt.registry.version import Version

_PLAIN = ", made plain)"
_OF_ALIASES = ("alias", "unalias")


@dataclass(frozen=True, slots=True)
class Read:
    """A checkpoint that can become a version: its content, and how it is to be registered."""

    content: Content
    opaque: OpaqueWord | None


@dataclass(slots=True)
class Adding:
    """One import into a model.

    Attributes:
        registry: The registry.
        model: The name of the model.
        opaque: What becomes of objects that run code when unpickled; None makes those plain that
            have a plain form, and refuses others.
        dry_run: Whether nothing is written.
        created_registry: The folder of the registry that was created for it, if one was.
    """

    registry: Registry
    model: str
    opaque: OpaqueWord | None = None
    dry_run: bool = False
    created_registry: Path | None = None
    _labels: dict[str, str] = field(default_factory=dict)  # of this import, by content or name

    @property
    def known(self) -> Model:
        """The model as it is, or an empty one."""
        return self.registry.index().models.get(self.model) or Model(name=self.model)

    def read(self, found: Found, told: Told = untold) -> Read | Item:
        """Read a checkpoint, or say why it is left out."""
        try:
            read = self._read(found.path, told)
        except (CkptError, OSError) as error:  # of the file: the registry is not touched
            return left(found, error)
        if read.content.kind:
            why = f"{read.content.kind}, without the weights of a model"
            return Item(found.name, "skipped", found.created, why=why)
        return read

    def _read(self, path: Path, told: Told) -> Read:
        try:
            return Read(content_of(path, opaque=self.opaque, told=told), self.opaque)
        except RefusedGlobalError:
            if self.opaque is not None:
                raise
            plain = content_of(path, opaque="drop", told=told)
            if all(each.endswith(_PLAIN) for each in plain.dropped):
                return Read(plain, "drop")
            raise

    def add(self, found: Found, read: Read, told: Told = untold) -> Item:
        """Add a checkpoint as the next version, unless its bytes are known."""
        content = read.content.digest
        if label := self._labels.get(content):
            return Item(found.name, "same", found.created, label)
        if (known := self.known_item(found.name, found.created, content)) is not None:
            self._labels[content] = str(known.version)
            return known
        try:
            label = self._planned() if self.dry_run else self._registered(found, read, told)
        except FormatError as error:  # it changed since it was read
            return left(found, error)
        self._labels[content] = label
        return Item(found.name, "new", found.created, label, plain=read.content.dropped)

    def known_item(self, name: str, created: str, content: str) -> Item | None:
        """What becomes of a checkpoint whose bytes the model has, or had; None if it did not."""
        for version in self.known.every_version():
            if version.content == content:
                return self.item_of(version, name, created)
        return None

    def item_of(self, version: Version, name: str, created: str) -> Item:
        """A checkpoint that is a version already, or was one."""
        gone = version.number in self.known.removed
        return Item(name, "removed" if gone else "known", created, version.label)

    def plan(self, name: str) -> str:
        """The label that the next version would get, whose content is not known."""
        label = self._labels[name] = self._planned()
        return label

    def _planned(self) -> str:
        planned = sum(int(label[1:]) >= self.known.next_number for label in self._labels.values())
        return f"v{self.known.next_number + planned}"

    def _registered(self, found: Found, read: Read, told: Told) -> str:
        added = register(
            found.path,
            registry=self.registry,
            name=self.model,
            message=found.message,
            metrics=found.metrics,
            made_by=found.made_by,
            record={**found.record, "created": found.created},
            tags=found.tags,
            opaque=read.opaque,
            told=told,
        )
        self.created_registry = self.created_registry or added.created_registry
        return added.version.label

    def point(self, aliases: Iterable[tuple[str, str]], source: str) -> tuple[Pointed, ...]:
        """Point aliases to versions, unless they were here before.

        Args:
            aliases: Names and labels.
            source: Where they come from, for their history.
        """
        return tuple(self._pointed(name, label, source) for name, label in aliases)

    def _pointed(self, name: str, label: str, source: str) -> Pointed:
        model = self.known
        number = model.aliases.get(name)
        now = None if number is None else f"v{number}"
        if now == label:
            return Pointed(name, label, now, "known")
        if now or any(event.did in _OF_ALIASES and event.name == name for event in model.log):
            return Pointed(name, label, now, "kept")
        if not self.dry_run:
            ref, why = f"{self.model}@{name}", f"import {source}"
            alias(ref, label, expect="none", message=why, registry=self.registry)
        return Pointed(name, label, label, "new")


def left(found: Found, error: Exception) -> Item:
    """What could not be imported, with the reason."""
    text = (str(error) if isinstance(error, CkptError) else "") or getattr(error, "strerror", "")
    why = (text or str(error)).removeprefix(f"{found.path}: ")
    hint = (error.hint or "") if isinstance(error, RefusedGlobalError) else ""
    return Item(found.name, "left", found.created, why=why, hint=hint)


def of_import(source: Mapping[str, object], at: str) -> dict[str, object]:
    """Where a version comes from, for its record."""
    return {"source": {**source, "imported": at}}


def steps(sizes: Sequence[int], told: Told) -> Iterator[Told]:
    """Tells the bytes done of all files, each of which is read twice."""
    total, begun = 2 * sum(sizes), 0
    for nbytes in (*sizes, *sizes):
        yield partial(_told_of, told, begun, total)
        begun += nbytes


def _told_of(told: Told, begun: int, total: int, done: int, _of_file: int) -> None:
    told(begun + done, total)
