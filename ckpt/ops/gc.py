"""Garbage: what the store holds and nothing needs any more, found and removed.

Needed is what the index names, and what it named until lately: a version that was removed keeps its
bytes for a time, so that undo can bring it back. Needed is as well what the reflog alone tells of,
a version of another branch, say. What is young is kept. Law: nothing is removed while a version is
being written, nor unless all that is needed could be told.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from ckpt.errors import ConflictError, DiskError
from ckpt.io.files import is_temporary
from ckpt.registry.index import Index, Version
from ckpt.registry.registry import Registry
from ckpt.registry.store.objects import Held

KEEP_REMOVED = timedelta(days=30)
GRACE = timedelta(hours=1)
_SLACK = timedelta(minutes=1)  # by which two clocks may differ


@dataclass(frozen=True, slots=True)
class Garbage:
    """What nothing needs.

    Attributes:
        forgotten: Versions that were removed longer ago than they are kept.
        held: Objects and manifests, manifests first.
        temporaries: What writes that were cut off have left.
        young: Objects and manifests that nothing needs either, but which are kept as too new.
    """

    forgotten: tuple[Version, ...]
    held: tuple[Held, ...]
    temporaries: tuple[Path, ...]
    young: tuple[Held, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to remove."""
        return not (self.forgotten or self.held or self.temporaries)

    @property
    def nbytes(self) -> int:
        """Bytes of the objects and manifests that are not kept."""
        return sum(each.nbytes for each in self.held)


def find_garbage(
    *,
    keep_removed: timedelta = KEEP_REMOVED,
    grace: timedelta = GRACE,
    registry: Registry | None = None,
) -> Garbage:
    """Find what could be removed, and remove nothing.

    Args:
        keep_removed: How long the bytes of a removed version are kept.
        grace: How old anything must be.
        registry: Where; None finds it as the command line does.

    Raises:
        IntegrityError: The index, or a manifest that it names, cannot be read: it is not known
            what is needed.
        DiskError: Something is from the future: the clock cannot be trusted.
    """
    registry = registry or Registry()
    index = registry.index()
    forgotten = tuple(_forgotten(index, keep_removed))
    return _garbage(registry, _without(index, forgotten), forgotten, grace)


def gc(
    *,
    keep_removed: timedelta = KEEP_REMOVED,
    grace: timedelta = GRACE,
    dry_run: bool = False,
    registry: Registry | None = None,
) -> Garbage:
    """Remove what nothing needs, and answer what that was.

    Args:
        keep_removed: How long the bytes of a removed version are kept.
        grace: How old anything must be.
        dry_run: Remove nothing; answer what could be removed.
        registry: Where; None finds it as the command line does.

    Raises:
        ConflictError: A version is being written, for longer than a lock is waited for; or
            locks keep no other machine out.
        IntegrityError: As `find_garbage`.
        DiskError: Likewise.
    """
    registry = registry or Registry()
    if dry_run:
        return find_garbage(keep_removed=keep_removed, grace=grace, registry=registry)
    registry.index()  # before a lock makes a folder
    if registry.doubt_of_locks:
        raise ConflictError(
            f"{registry.folder}: {registry.doubt_of_locks}, so a writer elsewhere cannot be seen",
            hint="nothing was removed; run  ckpt gc  on the machine whose disk it is",
        )
    with registry.store.collecting():
        _expect_one_clock(registry)
        forgotten = find_garbage(
            keep_removed=keep_removed, grace=grace, registry=registry
        ).forgotten
        # The index first: what it does not name any more is no loss, whatever happens then.
        what = "gc " + ", ".join(version.ref for version in forgotten)
        index = registry.commit(lambda index: _without(index, forgotten), what)
        garbage = _garbage(registry, index, forgotten, grace)
        registry.store.remove(garbage.held)
        for path in garbage.temporaries:
            path.unlink(missing_ok=True)
        return garbage


def _forgotten(index: Index, kept: timedelta) -> Iterator[Version]:
    now = datetime.now().astimezone()
    for model in index.models.values():
        for version in model.removed.values():
            removed = datetime.fromisoformat(version.removed or version.created)
            if removed > now + _SLACK:
                raise _from_the_future(version.ref, "was removed", removed)
            if now - removed >= kept:
                yield version


def _without(index: Index, forgotten: tuple[Version, ...]) -> Index:
    """The index without them; one that was brought back meanwhile stays."""
    for version in forgotten:
        model = index.model(version.model)
        if model.removed.get(version.number) == version:
            index = index.with_model(model.forgotten(version.number))
    return index


def _garbage(
    registry: Registry, index: Index, forgotten: tuple[Version, ...], grace: timedelta
) -> Garbage:
    everything = list(registry.store.held())
    manifests, objects = _needed(registry, index, everything, forgotten)
    old: list[Held] = []
    young: list[Held] = []
    for each in everything:
        if each.digest not in (manifests if each.is_manifest else objects):
            (old if _is_old(each.path, each.modified, grace) else young).append(each)
    return Garbage(
        forgotten,
        # A manifest never stands without its objects, even if this is cut off.
        held=tuple(sorted(old, key=lambda each: (not each.is_manifest, each.path))),
        temporaries=tuple(_temporaries(registry, grace)),
        young=tuple(young),
    )


def _needed(
    registry: Registry, index: Index, held: Iterable[Held], forgotten: Iterable[Version]
) -> tuple[set[str], set[str]]:
    """Digests of the manifests that are needed, and of the objects that these name.

    Those that the reflog alone tells of may never have been on this machine.
    """
    versions = [
        version
        for model in index.models.values()
        for version in (*model.versions.values(), *model.removed.values())
    ]
    # The index's own first: an error names the version.
    manifests = {version.manifest: registry.manifest(version) for version in versions}
    others = {name for version in versions for name in version.also} | registry.reflog.manifests()
    others -= {name for version in forgotten for name in version.manifests} | {*manifests}
    there = {each.digest for each in held}
    manifests |= {name: registry.store.manifest(name) for name in others & there}
    return {*manifests}, {name for each in manifests.values() for name in each.objects()}


def _temporaries(registry: Registry, grace: timedelta) -> Iterator[Path]:
    """Those of the store, whose writers are gone; those beside the index once they are old."""
    yield from registry.store.temporaries()
    for path in sorted(registry.folder.iterdir()):
        if is_temporary(path.name) and _is_old(path, path.lstat().st_mtime, grace):
            yield path


def _is_old(path: Path, modified: float, grace: timedelta) -> bool:
    age = timedelta(seconds=time.time() - modified)
    if age < -_SLACK:
        raise _from_the_future(str(path), "is dated", datetime.fromtimestamp(modified).astimezone())
    return age >= grace


def _from_the_future(what: str, verb: str, when: datetime) -> DiskError:
    now = datetime.now().astimezone()
    return DiskError(
        f"{what} {verb} {when:%Y-%m-%d %H:%M}, and the clock says {now:%Y-%m-%d %H:%M}",
        hint="nothing was removed; set the clock right first",
    )


def _expect_one_clock(registry: Registry) -> None:
    """The clock by which the file system dates files must be the one by which they are judged."""
    lock = registry.store.lock  # which was opened for writing a moment ago
    apart = timedelta(seconds=round(abs(lock.stat().st_mtime - time.time())))
    if apart > _SLACK:
        raise DiskError(
            f"{lock}: the file system's clock and this machine's are {apart} apart",
            hint="nothing was removed; run  ckpt gc  where the disk is, or set the clock right",
        )
