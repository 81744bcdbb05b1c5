"""A registry: the index and the store of one folder, joined."""

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
from ckpt.registry.history.reflog import Reflog
from ckpt.registry.index import Index, Model, Version
from ckpt.registry.index_file import FILE_NAME, IndexFile, find_registry
from ckpt.registry.manifest import Manifest
from ckpt.registry.store.objects import ObjectStore
from ckpt.registry.store.version import VersionSource


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a version that was to be added.

    Attributes:
        version: The version that now holds the bytes.
        new: Whether it was added; false if the model held the same bytes already.
        created_registry: The folder in which a registry was begun for it, if one was.
    """

    version: Version
    new: bool
    created_registry: Path | None = None


class Registry:
    """Versions of models: their index and their bytes.

    Args:
        folder: The folder of `registry.json`; None finds it: `CKPT_REGISTRY`, else the
            nearest folder upwards that has one, else this folder, where the first
            version begins a new registry.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        self.folder = _locate(folder)
        self.store = ObjectStore(self.folder / ".ckpt")
        self._file = IndexFile(self.folder)

    @property
    def exists(self) -> bool:
        """Whether there is an index yet."""
        return self._file.path.exists()

    @property
    def doubt_of_locks(self) -> str | None:
        """Why other machines may write at the same time; None where locks keep them out."""
        return doubt_of_locks(self.folder)

    def index(self) -> Index:
        """The index as it stands now."""
        return self._file.read()

    def versions(self, model: str | None = None) -> list[Version]:
        """All versions, or those of one model, newest first."""
        index = self.index()
        models = index.models.values() if model is None else [index.model(model)]
        found = [version for each in models for version in each.versions.values()]
        return sorted(found, key=lambda v: (v.model, -v.number))

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
        """The version of which a record says that it was made; it may have been removed since.

        It is found by its manifest, since a merge may have given it another number. None where the
        record names none, or where it has gone for good.
        """
        made_of = record.get("parent")
        if not isinstance(made_of, dict):
            return None
        for model in self.index().models.values():
            for version in (*model.versions.values(), *model.removed.values()):
                if made_of.get("manifest") in version.manifests:
                    return version
        return None

    def manifest(self, version: Version) -> Manifest:
        """The manifest of `version`, verified."""
        try:
            return self.store.manifest(version.manifest)
        except IntegrityError as error:
            raise IntegrityError(f"{version.ref}: {error}", hint=error.hint) from error

    def source(self, version: Version) -> VersionSource:
        """The file of `version` as a source of bytes."""
        return VersionSource(version.ref, self.manifest(version), self.store)

    def add(
        self,
        model: str,
        manifest: Manifest,
        *,
        new_bytes: int,
        made_by: str,
        metrics: Mapping[str, float] | None = None,
        message: str = "",
    ) -> Added:
        """Add the next version of `model`; the manifest's objects must be stored already.

        The same content again answers the version that holds it, and adds nothing.
        """
        expect_name(model)
        content = manifest.content_digest
        known = self.index().same_content(model, content)
        if known:
            self._file.settle()
            return Added(known, new=False)
        begun = None if self.exists else self._begin()
        created = now()
        # What the index says of it, so that an index that is lost can be made anew.
        record = {"model": model, **manifest.record, "made_by": made_by, "created": created}
        tensors = manifest.tensors_digest
        twin = self.index().same_tensors(model, tensors)
        if twin and "parent" not in record:
            record["parent"] = parent_record(twin, tensors)
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
            metrics=dict(metrics or {}),
            message=message,
            tensors=tensors,
        )
        is_new = False

        def with_draft(index: Index) -> Index:
            nonlocal is_new
            if index.same_content(model, content):  # another process was faster
                return index
            is_new = True
            return index.with_version(replace(draft, number=index.next_number(model)))

        committed = self._file.commit(with_draft, f"{made_by} as {model}")
        version = committed.same_content(model, content)
        assert version is not None
        return Added(version, is_new, begun)

    @property
    def reflog(self) -> Reflog:
        """What was done to the index on this machine."""
        return self._file.reflog

    def commit(
        self, operation: Callable[[Index], Index], what: str, *, undoes: str | None = None
    ) -> Index:
        """See `IndexFile.commit`."""
        return self._file.commit(operation, what, undoes=undoes)

    def change(self, model: str, operation: Callable[[Model], Model], what: str) -> Model:
        """Apply `operation` to a model as it stands at that moment, and have it on the disk.

        Raises:
            RefError: There is no such model.
        """

        def changed(index: Index) -> Index:
            before = index.model(model)
            after = operation(before)
            return index if after == before else index.with_model(after)

        return self._file.commit(changed, what).model(model)

    def _begin(self) -> Path:
        """Keep what only this machine needs out of git, before there is anything else."""
        ignored = self.folder / ".ckpt" / ".gitignore"
        make_folder(ignored.parent)
        with write_whole(ignored, replace=True) as out:
            out.write(b"lock\nreflog\ntmp/\nwriting\n")
        self._file.begin()
        return self.folder

    def rebuild(self, operation: Callable[[Index], Index], *, known: Callable[[], Index]) -> Index:
        """Write an index in place of one that cannot be read; see `IndexFile.commit`."""
        return self._file.commit(operation, "fsck --rebuild-index", known=known)

    def set_aside(self) -> Path | None:
        """See `IndexFile.set_aside`."""
        return self._file.set_aside()

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
    """How a version names the one that it was made of.

    Args:
        parent: That one.
        tensors: The `tensors_digest` of the new one.
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
