"""A registry: the index and the object store of one folder."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from shlex import quote
from typing import Any, ClassVar

from ckpt.errors import IntegrityError, NoModelError, RefError, UsageError
from ckpt.io.durable import make_folder
from ckpt.io.files import read_plain, unlinked, write_whole
from ckpt.io.mounts import doubt_of_locks
from ckpt.io.rights import Rights
from ckpt.io.who import By, who
from ckpt.printed import Printed
from ckpt.refs import Ref, expect_name, expect_no_path
from ckpt.registry.events import Event, joined
from ckpt.registry.history.newest import newest, newest_versions
from ckpt.registry.index import Index, Model
from ckpt.registry.index_file import FILE_NAME, IndexFile
from ckpt.registry.labels import NO_LABELS, Labels
from ckpt.registry.manifest import Manifest, read_record
from ckpt.registry.places import expect_own, is_listed, locate
from ckpt.registry.seen import saw
from ckpt.registry.store.objects import ObjectStore
from ckpt.registry.store.shared import shared_store
from ckpt.registry.store.version import VersionSource
from ckpt.registry.version import Version, parent_record

_LOCAL = "local"  # holds the name of the machine that alone writes to the disk
_OWN_FILES = ("id", _LOCAL, "lock", "reflog", "remotes/", "tmp/", "writing")
REMOTES = "remotes.json"  # in the store's folder


@dataclass(frozen=True, slots=True, repr=False)
class Added(Printed):
    """The result of adding a version.

    Attributes:
        version: The version that holds the bytes.
        new: Whether it was added; false if the model held the same bytes already.
        created_registry: The folder of the registry that was created for it, if one was.
        dropped: The opaque objects of the file that it does not hold.
        noted: The message that was added to a version that held the same bytes already.
        measured: The metrics that were added to it.
        labels: The alias and tags that it was given.
        side_files: The names of the files that were registered beside the weights.
        left: What else the folder holds, and was not registered.
        kind: What the file holds instead of a model: ``the state of an optimizer``.
    """

    VIEW: ClassVar = "ckpt.show.register:added_text"

    version: Version
    new: bool
    created_registry: Path | None = None
    dropped: tuple[str, ...] = ()
    noted: str = ""
    measured: Mapping[str, float] = field(default_factory=dict)
    labels: Labels = NO_LABELS
    side_files: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    kind: str | None = None


class Registry:
    """Versions of models: their index and their bytes.

    Args:
        folder: The folder of `registry.json`; None finds it: `CKPT_REGISTRY`, else the
            nearest folder upwards that has one, else this folder, where the first
            version creates a new registry.
        on_use: Called with the folder before the first use of a registry that was found above
            this folder.
        on_fetch: Called with a sentence before objects are fetched from a remote.

    Attributes:
        folder: The folder.
    """

    def __init__(
        self,
        folder: Path | str | None = None,
        *,
        on_use: Callable[[Path], object] = lambda folder: None,
        on_fetch: Callable[[str], object] = lambda text: None,
    ) -> None:
        self.folder, self._is_named = locate(folder)
        self._on_use = on_use
        self.on_fetch = on_fetch

    @classmethod
    def of(cls, named: "InRegistry | None") -> "Registry":
        """The registry that somebody means: one, its folder, or the one that is found."""
        return named if isinstance(named, Registry) else Registry(named)

    @property
    def exists(self) -> bool:
        """Whether there is an index yet."""
        return (self.folder / FILE_NAME).exists()

    @cached_property
    def store(self) -> ObjectStore:
        """Its objects and manifests."""
        return ObjectStore(self._trusted, shared_store(self.folder, self._trusted))

    @cached_property
    def index_file(self) -> IndexFile:
        """Its `registry.json` and reflog."""
        return IndexFile(self.folder, self._trusted)

    @cached_property
    def _trusted(self) -> Path:
        """The folder of the store.

        Raises:
            UsageError: The registry belongs to another user, and was found, not named.
        """
        store = self.folder / ".ckpt"
        if is_listed(self.folder):
            store = store.resolve()
        elif not self._is_named:
            expect_own(self.folder)
        if not self._is_named and self.folder != Path.cwd():
            self._on_use(self.folder)
        return store

    @property
    def doubt_of_locks(self) -> str | None:
        """Why other machines may write at the same time; None if locks keep them out."""
        shared = self.store.shared if self.exists else None
        doubt = doubt_of_locks(self.folder) or (doubt_of_locks(shared.path) if shared else None)
        return None if doubt is None or self._is_local else doubt

    @property
    def _is_local(self) -> bool:
        """Whether `claim_disk` was called on this machine."""
        try:
            claimed = read_plain(self.folder / ".ckpt" / _LOCAL, most=1000)
        except (OSError, IntegrityError):
            return False
        return claimed.decode("utf-8", "replace").strip() == os.uname().nodename

    def expect_there(self, *, hint: str = "ckpt register FILE  creates one") -> None:
        """Refuse to go on without a registry.

        Raises:
            RefError: There is none.
            IndexDamageError: Its index was lost, or is damaged.
        """
        self.index()
        if not self.exists:
            raise RefError(self._absence, hint=hint)

    @property
    def _absence(self) -> str:
        return f"{self.folder}: no registry here{'' if self._is_named else ' or above'}"

    @contextmanager
    def _looking_up(self) -> Iterator[None]:
        """Tell a model that is missing from a registry that is missing."""
        try:
            yield
        except NoModelError as error:
            if self.exists:
                raise
            raise NoModelError(str(error), hint=self._absence) from error

    def claim_disk(self) -> None:
        """Remember that no other machine than this one can write to the disk of the registry.

        Raises:
            RefError: There is no registry.
        """
        self.expect_there()
        if self._is_local:
            return
        with write_whole(unlinked(self.store.root) / _LOCAL, replace=True, shared=True) as out:
            out.write(f"{os.uname().nodename}\n".encode())
        self.ignore_own_files()

    def index(self) -> Index:
        """The current index."""
        return self.index_file.read()

    def versions(self, model: str | None = None) -> list[Version]:
        """All versions, or those of one model, newest first, with their newest metrics."""
        index = self.index()
        if model is not None and model not in index.models:
            expect_no_path(model)
            _expect_no_version(model, index)
        with self._looking_up():
            models = index.models.values() if model is None else [index.model(model)]
        found = [version for model in models for version in newest_versions(model)]
        return sorted(found, key=lambda version: (version.model, -version.number))

    def version(self, ref: str | Ref) -> Version:
        """The version that `ref` names, with its newest metrics.

        Raises:
            RefError: It names none, or more than one.
        """
        index = self.index()
        with self._looking_up():
            return newest(index, index.find(ref))

    def manifest(self, version: Version) -> Manifest:
        """The manifest of `version`, verified."""
        try:
            return self.store.manifest(version.manifest)
        except IntegrityError as error:
            raise IntegrityError(f"{version.ref}: {error}", hint=error.hint) from error

    def source(self, version: Version) -> VersionSource:
        """The file of `version` as a source of bytes."""
        manifest = self.manifest(version)
        rights = self.store.rights(version.manifest)
        fetch = partial(self._fetch, version.ref, manifest)
        return VersionSource(version.ref, manifest, self.store, rights, fetch)

    def _fetch(self, ref: str, manifest: Manifest, name: str, nbytes: int, what: str) -> bool:
        """Fetch an object of a version from a remote; False if there is no remote."""
        if not (self.store.root / REMOTES).exists():
            return False
        found: bool = self._on_demand.fetch(ref, manifest, name, nbytes, what)
        return found

    @cached_property
    def _on_demand(self) -> Any:
        return import_module("ckpt.remote.on_demand").OnDemand(self)  # which knows the registry

    def add(
        self,
        model: str,
        manifest: Manifest,
        *,
        new_bytes: int,
        made_by: str,
        rights: Rights,
        labels: Labels = NO_LABELS,
    ) -> Added:
        """Add the next version of `model`; the manifest's objects must be stored already.

        Args:
            model: Its name.
            manifest: The manifest; its record has the version's metrics and message, and the time
                and author if these are not now and who runs this.
            new_bytes: Bytes of the objects that were added to the store for it.
            made_by: How it was made, a few words.
            rights: Who may read its source, and so the manifest.
            labels: Its alias and tags.

        Returns:
            The version; not new if the model has the same content already, so nothing is added.
        """
        expect_name(model)
        content = manifest.content_digest
        known = self.index().same_content(model, content)
        if known and not labels:
            self.index_file.sync()
            return Added(known, new=False)
        if known:
            return self._add_draft(known, who(), labels)
        by, tensors = who(), manifest.tensors_digest
        usual = {"created": now(), "by": by}
        record = {**usual, "model": model, **manifest.record, "made_by": made_by}
        manifest = replace(manifest, record=self._with_parent(record, model, tensors))
        created_registry = None if self.exists else self.create()
        stored = self.store.put_manifest(manifest, rights)
        new_bytes += stored.nbytes if stored.new else 0
        draft = draft_of(model, manifest, stored.digest, content, tensors, new_bytes)
        return replace(self._add_draft(draft, by, labels), created_registry=created_registry)

    def adopt(self, draft: Version, history: Iterable[Event], store: ObjectStore) -> Added:
        """Add a version of another registry, whose objects must be stored here already.

        Args:
            draft: Its line, with the bytes of the objects that are new here.
            history: Its events there, and drafts of new ones.
            store: The store of the other registry, which has the manifest.
        """
        expect_name(draft.model)
        created_registry = None if self.exists else self.create()
        stored = self.store.copy_manifest(draft.manifest, store)
        draft = replace(draft, new_bytes=draft.new_bytes + (stored.nbytes if stored.new else 0))
        added = self._add_draft(draft, who(), NO_LABELS, tuple(history))
        return replace(added, created_registry=created_registry)

    def change(
        self, operation: Callable[[Index], Model], what: Callable[[], str], *, message: str = ""
    ) -> None:
        """Put the model that `operation` makes of the current index into it, durably.

        As for `IndexFile.commit`: `operation` looks up all refs in the index that it gets.
        """

        def changed(index: Index) -> Index:
            model = operation(index)
            return index if model == index.models.get(model.name) else index.with_model(model)

        self.expect_there()
        self.index_file.commit(changed, what, message=message)

    def create(self, identity: str = "") -> Path:
        """Create the registry: first git's list of the files that belong to this machine alone.

        Args:
            identity: That of the registry whose clone it is; empty for a new one.
        """
        make_folder(unlinked(self.store.root))
        self.ignore_own_files()
        self.index_file.create(identity)
        return self.folder

    def ignore_own_files(self) -> None:
        """Have git ignore the files that belong to this machine alone; other lines stay."""
        ignored = unlinked(self.store.root) / ".gitignore"
        try:
            lines = read_plain(ignored, most=100_000).splitlines()
        except FileNotFoundError:
            lines = []
        if missing := [name for name in _OWN_FILES if name.encode() not in lines]:
            with write_whole(ignored, replace=True, shared=True) as out:
                out.write(b"".join(line + b"\n" for line in [*lines, *map(str.encode, missing)]))

    def _with_parent(self, given: Mapping[str, Any], model: str, tensors: str) -> dict[str, Any]:
        """The record with the fields of the index line, so that a lost index can be rebuilt.

        A version of the same tensors becomes the parent if the record names none.
        """
        record = read_record(given)
        twin = self.index().same_tensors(model, tensors)
        if twin and "parent" not in record:
            record["parent"] = parent_record(twin, tensors)
        return record

    def _add_draft(
        self, draft: Version, by: By, labels: Labels, history: tuple[Event, ...] = ()
    ) -> Added:
        """Commit a version under the next number, unless its content is there already."""
        added: list[Added] = []

        def with_draft(index: Index) -> Index:
            version = index.same_content(draft.model, draft.content)
            is_new = version is None
            if version is None:
                version = replace(draft, number=index.next_number(draft.model))
                index = index.with_version(version)
            added.append(Added(version, new=is_new, labels=labels))
            model = index.models[version.model]
            if history and is_new:
                past = joined(model.log, (event for event in history if event.at))
                new = (replace(e, version=version.label) for e in history if not e.at)
                index = index.with_model(model := replace(model, log=(*past, *new)))
            labelled = labels.on(model, version.number)
            return index if labelled is model else index.with_model(labelled)

        self.index_file.commit(with_draft, f"{draft.made_by} as {draft.model}", by=by)
        if added[-1].new:
            saw(self.folder, added[-1].version)
        return added[-1]


def _expect_no_version(text: str, index: Index) -> None:
    """Refuse the ref of a version where a model is expected."""
    try:
        version = index.find(text)
    except UsageError:
        return
    raise RefError(
        f"{text} is a version, expected a model: {version.model}", hint=f"ckpt show {quote(text)}"
    )


def draft_of(
    model: str, manifest: Manifest, stored: str, content: str, tensors: str, new_bytes: int
) -> Version:
    """The line of a version that has no number yet.

    Args:
        model: Its model.
        manifest: Its manifest, whose record says how it was made, and when.
        stored: The digest of that.
        content: The manifest's `content_digest`.
        tensors: Its `tensors_digest`.
        new_bytes: Bytes of the objects that were added for it.
    """
    record = manifest.record
    return Version(
        model=model,
        number=0,
        manifest=stored,
        content=content,
        file=manifest.file_digest,
        size=manifest.skeleton.size,
        keys=len(manifest.entries),
        new_bytes=new_bytes,
        made_by=record["made_by"],
        created=record["created"],
        metrics=record.get("metrics", {}),
        message=record.get("message", ""),
        tensors=tensors,
    )


InRegistry = Registry | Path | str  # a registry, or its folder


def now() -> str:
    """The time, UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
