"""A registry: the index and the object store of one folder."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ckpt.errors import IntegrityError, RefError
from ckpt.io.files import make_folder, write_whole
from ckpt.io.mounts import doubt_of_locks
from ckpt.refs import DefinitionRef, DigestRef, Ref, VersionRef, expect_name, parse_ref
from ckpt.registry.index import Index, Model, Version
from ckpt.registry.index_file import FILE_NAME, IndexFile, find_registry
from ckpt.registry.manifest import Manifest
from ckpt.registry.store.objects import ObjectStore
from ckpt.registry.store.version import VersionSource


@dataclass(frozen=True, slots=True)
class Added:
    """The result of adding a version.

    Attributes:
        version: The version that holds the bytes.
        new: Whether it was added; false if the model held the same bytes already.
        created_registry: The folder of the registry that was created for it, if one was.
        dropped: The opaque objects of the file that it does not hold.
    """

    version: Version
    new: bool
    created_registry: Path | None = None
    dropped: tuple[str, ...] = ()


class Registry:
    """Versions of models: their index and their bytes.

    Args:
        folder: The folder of `registry.json`; None finds it: `CKPT_REGISTRY`, else the
            nearest folder upwards that has one, else this folder, where the first
            version creates a new registry.

    Attributes:
        folder: The folder.
        store: Its objects and manifests.
        index_file: Its `registry.json` and reflog.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        self.folder = _locate(folder)
        self.store = ObjectStore(self.folder / ".ckpt")
        self.index_file = IndexFile(self.folder)

    @property
    def exists(self) -> bool:
        """Whether there is an index yet."""
        return self.index_file.path.exists()

    @property
    def doubt_of_locks(self) -> str | None:
        """Why other machines may write at the same time; None if locks keep them out."""
        return doubt_of_locks(self.folder)

    def index(self) -> Index:
        """The current index."""
        return self.index_file.read()

    def versions(self, model: str | None = None) -> list[Version]:
        """All versions, or those of one model, newest first."""
        index = self.index()
        models = index.models.values() if model is None else [index.model(model)]
        found = [version for model in models for version in model.versions.values()]
        return sorted(found, key=lambda version: (version.model, -version.number))

    def version(self, ref: str | Ref) -> Version:
        """The version that `ref` names.

        Raises:
            RefError: It names none, or more than one.
        """
        parsed = parse_ref(ref) if isinstance(ref, str) else ref
        match parsed:
            case VersionRef():
                return self.index().version(parsed)
            case DigestRef():
                return self._by_digest(parsed.prefix)
            case DefinitionRef(version=VersionRef() as version):
                return self.index().version(version)
        raise RefError(f"{ref} names no version", hint="e.g. v3, mnist-cnn:v3, mnist-cnn@prod")

    def parent(self, record: Mapping[str, Any]) -> Version | None:
        """The version that a record names as its parent; it may have been removed since.

        It is found by its manifest, since a merge may have given it another number. None if the
        record names none, or if gc has deleted it.
        """
        parent = record.get("parent")
        if not isinstance(parent, dict):
            return None
        versions = self.index().every_version()
        return next(
            (version for version in versions if parent.get("manifest") in version.manifests), None
        )

    def manifest(self, version: Version) -> Manifest:
        """The manifest of `version`, verified."""
        try:
            return self.store.manifest(version.manifest)
        except IntegrityError as error:
            raise IntegrityError(f"{version.ref}: {error}", hint=error.hint) from error

    def source(self, version: Version) -> VersionSource:
        """The file of `version` as a source of bytes."""
        return VersionSource(version.ref, self.manifest(version), self.store)

    def add(self, model: str, manifest: Manifest, *, new_bytes: int, made_by: str) -> Added:
        """Add the next version of `model`; the manifest's objects must be stored already.

        Its metrics and its message are those of the manifest's record. If the model has the same
        content already, nothing is added and that version is returned.
        """
        expect_name(model)
        content = manifest.content_digest
        if known := self.index().same_content(model, content):
            self.index_file.sync()
            return Added(known, new=False)
        created_registry = None if self.exists else self._create()
        created, tensors = now(), manifest.tensors_digest
        record = self._record(model, manifest, tensors, made_by=made_by, created=created)
        manifest = replace(manifest, record=record)
        draft = Version(
            model=model,
            number=0,
            manifest=self.store.put_manifest(manifest).digest,
            content=content,
            file=manifest.file_digest,
            size=manifest.skeleton.size,
            keys=len(manifest.entries),
            new_bytes=new_bytes,
            made_by=made_by,
            created=created,
            metrics=record.get("metrics", {}),
            message=record.get("message", ""),
            tensors=tensors,
        )
        return replace(self._add_draft(draft), created_registry=created_registry)

    def change(self, model: str, operation: Callable[[Model], Model], what: str) -> Model:
        """Apply `operation` to a model under the index's lock, and make the result durable.

        Raises:
            RefError: There is no such model.
        """

        def changed(index: Index) -> Index:
            before = index.model(model)
            after = operation(before)
            return index if after == before else index.with_model(after)

        return self.index_file.commit(changed, what).model(model)

    def _create(self) -> Path:
        """Create the registry: first git's list of the files that belong to this machine alone."""
        ignored = self.folder / ".ckpt" / ".gitignore"
        make_folder(ignored.parent)
        with write_whole(ignored, replace=True) as out:
            out.write(b"lock\nreflog\ntmp/\nwriting\n")
        self.index_file.create()
        return self.folder

    def _record(
        self, model: str, manifest: Manifest, tensors: str, *, made_by: str, created: str
    ) -> dict[str, Any]:
        """The record with the fields of the index line, so that a lost index can be rebuilt.

        A version of the same tensors becomes the parent if the record names none.
        """
        record = {"model": model, **manifest.record, "made_by": made_by, "created": created}
        twin = self.index().same_tensors(model, tensors)
        if twin and "parent" not in record:
            record["parent"] = parent_record(twin, tensors)
        return record

    def _add_draft(self, draft: Version) -> Added:
        """Commit a version under the next number, unless another process has added its content."""
        added: list[Added] = []

        def with_draft(index: Index) -> Index:
            if twin := index.same_content(draft.model, draft.content):
                added.append(Added(twin, new=False))
                return index
            version = replace(draft, number=index.next_number(draft.model))
            added.append(Added(version, new=True))
            return index.with_version(version)

        self.index_file.commit(with_draft, f"{draft.made_by} as {draft.model}")
        return added[-1]

    def _by_digest(self, prefix: str) -> Version:
        found = [
            version
            for version in self.versions()
            if version.manifest.startswith(prefix) or (version.file or "").startswith(prefix)
        ]
        if len(found) == 1:
            return found[0]
        names = ", ".join(version.ref for version in found)
        raise RefError(f"{prefix} names {names or 'no version'}")


def parent_record(parent: Version, tensors: str) -> dict[str, Any]:
    """How the record of a version names its parent.

    Args:
        parent: The parent.
        tensors: The `tensors_digest` of the new version.
    """
    same = {"same_tensors": True} if parent.tensors == tensors else {}
    return {"version": parent.ref, "manifest": parent.manifest, **same}


def now() -> str:
    """The time, UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _locate(folder: Path | str | None) -> Path:
    chosen = folder or os.environ.get("CKPT_REGISTRY")
    if chosen is None:
        here = Path.cwd()
        return find_registry(here) or here
    path = Path(chosen)
    if path.name == FILE_NAME:
        path = path.parent
    if not path.is_dir():
        raise RefError(f"{path}: no such folder", hint="--registry takes a registry's folder")
    return path
