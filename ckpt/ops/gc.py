"""Garbage collection: remove unreferenced objects and leftovers of interrupted writes.

What is needed, and until when, says `ckpt.registry.needs.needed`; recent objects are kept, too.
Law: nothing is removed while a version is being written, nor unless every reference could be read.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import ClassVar

from ckpt.errors import ConflictError, DiskError, IntegrityError, RefError
from ckpt.io.files import disk_errors
from ckpt.io.temporaries import Leftover, leftovers, sweep, temporary_file
from ckpt.printed import Printed
from ckpt.registry.index import Index
from ckpt.registry.manifest import Manifest
from ckpt.registry.needs.forgotten import SLACK, forgotten, from_the_future, without
from ckpt.registry.needs.lost import Lost, lost_versions
from ckpt.registry.needs.needed import KEEP_REFLOG, KEEP_REMOVED, REMOVED, needed, removed_at
from ckpt.registry.needs.others import needed_of_shared
from ckpt.registry.registry import InRegistry, Registry
from ckpt.registry.store.listing import StoredObject
from ckpt.registry.version import Version
from ckpt.remote import collecting
from ckpt.remote.remotes import find_remote

GRACE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Restorable:
    """Removed versions that `ckpt restore` can bring back.

    Attributes:
        versions: The versions.
        nbytes: Bytes in the store that only they need.
        since: When the first of them was removed; it is kept for `keep_removed` from then on.
    """

    versions: tuple[Version, ...] = ()
    nbytes: int = 0
    since: datetime | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Garbage(Printed):
    """Unreferenced files of a registry.

    Attributes:
        forgotten: Versions that were removed longer ago than they are kept.
        objects: Unreferenced objects and manifests, manifests first.
        temporaries: Leftovers of interrupted writes.
        lost: Versions that only git's history has; their objects are kept.
        young: Unreferenced objects and manifests that are kept since they are recent.
        restorable: Versions that were removed not so long ago; none for a remote.
        keep_removed: How long removed versions are kept.
        keep_reflog: How long manifests are kept that only the reflog names.
        grace: How long unreferenced files are kept.
        removed: Whether it was removed, not only found.
    """

    VIEW: ClassVar = "ckpt.show.gc:garbage_text"

    forgotten: tuple[Version, ...]
    objects: tuple[StoredObject, ...] = ()
    temporaries: tuple[Path, ...] = ()
    lost: tuple[Lost, ...] = ()
    young: tuple[StoredObject, ...] = ()
    restorable: Restorable = Restorable()
    keep_removed: timedelta = KEEP_REMOVED
    keep_reflog: timedelta = KEEP_REFLOG
    grace: timedelta = GRACE
    removed: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to remove."""
        return not (self.forgotten or self.objects or self.temporaries)

    @property
    def nbytes(self) -> int:
        """Bytes of the unreferenced objects and manifests, without the recent ones."""
        return sum(stored.nbytes for stored in self.objects)


def gc(
    *,
    keep_removed: timedelta = KEEP_REMOVED,
    keep_reflog: timedelta = KEEP_REFLOG,
    grace: timedelta = GRACE,
    local: bool = False,
    dry_run: bool = False,
    registry: InRegistry | None = None,
) -> Garbage:
    """Remove unreferenced files, and return them.

    Args:
        keep_removed: How long removed versions can still be restored.
        keep_reflog: How long the data of versions is kept that only the reflog names, since an
            older `registry.json` was put in place.
        grace: The least age of a file that is removed.
        local: Remember that no other machine can write to the disk, whatever its file system.
        dry_run: Return the unreferenced files, and remove nothing.
        registry: The registry; None finds it as the command line does.

    Raises:
        RefError: There is no registry.
        ConflictError: A version is being written for longer than the lock's timeout, or locks do
            not keep other machines out.
        IntegrityError: The index, or a manifest that it names, cannot be read, so the referenced
            objects are unknown; or the store is another registry's.
        DiskError: A file or a removal is dated in the future: the clock cannot be trusted.
    """
    registry = Registry.of(registry)
    registry.expect_there()  # before the lock creates a folder
    if local:
        registry.claim_disk()
    asked = Garbage((), keep_removed=keep_removed, keep_reflog=keep_reflog, grace=grace)
    if dry_run:
        return _find(registry, asked)
    if registry.doubt_of_locks:
        raise ConflictError(
            f"{registry.folder}: {registry.doubt_of_locks}, so other writers cannot be seen",
            hint="nothing was removed; run  ckpt gc  on the machine with the disk, or, if no other "
            "machine can write to it,  ckpt gc --local",
        )
    return _collected(registry, asked)


def _collected(registry: Registry, asked: Garbage) -> Garbage:
    with registry.store.collecting():
        _expect_one_clock(registry)
        found = _find(registry, asked)
        # The index first: objects that it no longer names are no loss if this is interrupted.
        what = "gc " + ", ".join(version.ref for version in found.forgotten)
        index = registry.index_file.commit(lambda index: without(index, found.forgotten), what)
        garbage = replace(_garbage(registry, index, found), removed=True)
        registry.store.remove(garbage.objects)
        for path in registry.store.temporaries():
            path.unlink(missing_ok=True)
        for folder in _written_beside(registry):
            sweep(folder, local=registry.doubt_of_locks is None)
        # The commit may have removed some already.
        return replace(garbage, temporaries=found.temporaries)


def gc_remote(
    remote: str | None = None,
    *,
    keep_removed: timedelta = KEEP_REMOVED,
    grace: timedelta = collecting.GRACE,
    dry_run: bool = False,
    registry: InRegistry | None = None,
) -> Garbage:
    """Remove objects and manifests of a remote that no version there needs, and return them.

    Others may push meanwhile.

    Args:
        remote: Its name; None for ``origin``, or the only one.
        keep_removed: How long removed versions can still be restored.
        grace: The least age of what is removed, by the clock of the remote.
        dry_run: Return what no version needs, and remove nothing.
        registry: The registry; None finds it as the command line does.

    Raises:
        UsageError: Git keeps the index of the remote.
        ConflictError: Another process collects there.
        IntegrityError: A manifest that its index names is missing or damaged.
        RemoteError: It refuses a request or cannot be reached.
    """
    registry = Registry.of(registry)
    found = collecting.collect(
        registry, find_remote(registry, remote), kept=keep_removed, grace=grace, dry_run=dry_run
    )
    return Garbage(
        found.forgotten,
        found.old,
        young=found.young,
        keep_removed=keep_removed,
        grace=grace,
        removed=not dry_run,
    )


def gc_files(folder: Path | str, *, dry_run: bool = False) -> tuple[Leftover, ...]:
    """Remove leftovers of killed writers from a folder of files, and return what was found.

    Those that are `kept` stay: another user's, those of running writers, and those on file systems
    that do not tell. Every command that writes to a folder removes the others, too.

    Raises:
        RefError: There is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RefError(f"{folder}: no such folder")
    with disk_errors(folder):
        return tuple(leftovers(folder, remove=not dry_run))


def _find(registry: Registry, asked: Garbage) -> Garbage:
    index = registry.index()
    _expect_own_store(registry, index)
    gone = tuple(forgotten(index, asked.keep_removed, datetime.now().astimezone()))
    found = replace(asked, forgotten=gone, lost=lost_versions(registry))
    return _garbage(registry, without(index, gone), found)


def _expect_own_store(registry: Registry, index: Index) -> None:
    """Refuse a store that belongs to another index, by a link, a mount or a copy."""
    found = registry.index_file.store_id()
    if found and found != index.id:
        raise IntegrityError(
            f"{registry.store.root}: the store of another registry: its id is {found[:8]}, "
            f"that of registry.json is {index.id[:8] or 'missing'}",
            hint=f"nothing was removed; if they belong together, remove {registry.store.root}/id",
        )


def _garbage(registry: Registry, index: Index, found: Garbage) -> Garbage:
    """The same, with the files that `index` does not reference."""
    everything = list(registry.store.objects())
    manifests, objects, only_removed = _needed(registry, index, everything, found)
    old: list[StoredObject] = []
    young: list[StoredObject] = []
    for stored in everything:
        if stored.digest not in (manifests if stored.is_manifest else objects):
            is_old = _is_old(stored.path, stored.modified, found.grace)
            (old if is_old else young).append(stored)
    return replace(
        found,
        # Manifests first: none is left without its objects if this is interrupted.
        objects=tuple(sorted(old, key=lambda stored: (not stored.is_manifest, stored.path))),
        temporaries=tuple(_temporaries(registry)),
        young=tuple(young),
        restorable=_restorable(index, [it for it in everything if it.digest in only_removed]),
    )


def _restorable(index: Index, alone: Iterable[StoredObject]) -> Restorable:
    removed = tuple(each for model in index.models.values() for each in model.removed.values())
    since = min(map(removed_at, removed), default=None)
    return Restorable(removed, sum(stored.nbytes for stored in alone), since)


def _needed(
    registry: Registry,
    index: Index,
    everything: Iterable[StoredObject],
    found: Garbage,
) -> tuple[set[str], set[str], set[str]]:
    """Digests of the needed manifests, of their objects, and of what only removed versions need."""
    manifests: dict[str, Manifest] = {}
    kept: set[str] = set()  # manifests that not only removed versions need
    for need in needed(
        registry,
        index,
        everything,
        found.lost,
        keep_reflog=found.keep_reflog,
        forgotten=found.forgotten,
    ):
        try:
            manifests[need.manifest] = registry.store.manifest(need.manifest)
        except IntegrityError as error:
            raise IntegrityError(f"{need.user}: {error}", hint=error.hint) from error
        kept |= set() if need.kind == REMOVED else {need.manifest}
    objects = {name for each in manifests.values() for name in each.objects()}
    others = kept | {name for manifest in kept for name in manifests[manifest].objects()}
    if (shared := registry.store.shared) is not None:
        of_others = needed_of_shared(registry, shared)
        objects, others = objects | of_others, others | of_others
    return {*manifests}, objects, {*manifests, *objects} - others


def _temporaries(registry: Registry) -> Iterator[Path]:
    yield from registry.store.temporaries()
    for folder in _written_beside(registry):
        found = leftovers(folder, local=registry.doubt_of_locks is None)
        yield from (left.path for left in found if not left.kept)


def _written_beside(registry: Registry) -> list[Path]:
    """The folders of files that are written without the lock that `collecting` excludes."""
    root = registry.store.root
    folders = registry.folder, root, root / "objects", root / "manifests"
    return [folder for folder in folders if folder.is_dir()]


def _is_old(path: Path, modified: float, grace: timedelta) -> bool:
    age = timedelta(seconds=time.time() - modified)
    if age < -SLACK:
        dated, now = datetime.fromtimestamp(modified).astimezone(), datetime.now().astimezone()
        raise from_the_future(str(path), "is dated", dated, now)
    return age >= grace


def _expect_one_clock(registry: Registry) -> None:
    """Refuse if the file system dates files by another clock than this machine's."""
    lock = registry.store.lock  # opened for writing a moment ago
    apart = _apart(lock)
    if apart > SLACK:  # or it dates files only when they are made, as fusefat does
        with temporary_file(registry.folder) as (new, _):
            apart = _apart(new)
    if apart > SLACK:
        raise DiskError(
            f"{lock}: the file system's clock and this machine's are {apart} apart",
            hint="nothing was removed; run  ckpt gc  where the disk is, or correct the clock",
        )


def _apart(path: Path) -> timedelta:
    return timedelta(seconds=round(abs(path.stat().st_mtime - time.time())))
