"""Evict: free the disk space of versions that a remote surely has.

Law: an object is removed only if a remote has just said that it has it, in its size, and names its
version, so that no gc there removes it; and none that a version that stays needs.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ckpt.errors import ConflictError, UsageError
from ckpt.registry.needs.in_git import tracked
from ckpt.registry.registry import Registry
from ckpt.registry.version import Version
from ckpt.remote.bucket import Bucket
from ckpt.remote.merging import read_theirs
from ckpt.remote.objects.parallel import in_parallel
from ckpt.remote.objects.parcels import Parcel, alone, parcels_of
from ckpt.remote.objects.sending import absent_manifests, is_there
from ckpt.remote.remotes import Remote, find_remote


@dataclass(frozen=True, slots=True)
class Evicted:
    """What was freed.

    Attributes:
        remote: The name of the remote that has it.
        versions: The versions that were asked for.
        objects: The number of objects that were removed.
        nbytes: Their bytes.
        kept: What the remote does not have, by its name in messages.
        removed: Whether they were removed, not only found.
        tracked: The number of them that git tracks, so that it shows a deletion.
    """

    remote: str
    versions: tuple[Version, ...]
    objects: int
    nbytes: int
    kept: tuple[str, ...]
    removed: bool = True
    tracked: int = 0


def evict(
    *refs: str,
    remote: str | None = None,
    dry_run: bool = False,
    registry: Registry | None = None,
) -> Evicted:
    """Remove the objects of versions from this disk that a remote has; manifests stay.

    Commands that need them fetch them again. Objects that other versions need stay, too.

    Args:
        *refs: The versions.
        remote: The remote; None for ``origin``, or the only one.
        dry_run: Only find out what would be removed.
        registry: The registry.

    Raises:
        ConflictError: A version is being written, or other machines may write unseen.
        UsageError: The objects are in a store that several registries share.
    """
    registry = registry or Registry()
    found, versions = find_remote(registry, remote), [registry.version(ref) for ref in refs]
    if registry.store.shared is not None:
        raise UsageError(f"{registry.store.shared.path}: other registries use these objects, too")
    if registry.doubt_of_locks:
        raise ConflictError(
            f"{registry.folder}: {registry.doubt_of_locks}, so other writers cannot be seen",
            hint="nothing was removed; run it on the machine with the disk",
        )
    bucket = found.bucket()
    with registry.store.collecting():
        sizes = _alone(registry, versions)
        stored = [each for each in registry.store.objects() if each.digest in sizes]
        named = _named(found, bucket, versions)
        names = {each.digest for each in stored} & _alone(registry, named).keys()
        there = _there(registry, bucket, named, names)
        gone = [each for each in stored if each.digest in there]
        in_git = tracked(registry, (each.path for each in gone))
        if not dry_run:
            registry.store.remove(gone)
    kept = tuple(sizes[each.digest] for each in stored if each.digest not in there)
    nbytes = sum(each.nbytes for each in gone)
    return Evicted(found.name, tuple(versions), len(gone), nbytes, kept, not dry_run, len(in_git))


def _alone(registry: Registry, versions: list[Version]) -> dict[str, str]:
    """The objects that no other version needs: digest to name in messages."""
    wanted = {each.manifest for each in versions}
    others = {
        name
        for each in _every(registry)
        if each.manifest not in wanted
        for name in registry.manifest(each).objects()
    }
    return {
        name: f"{version.ref}: {what}"
        for version in versions
        for name, (_, what) in registry.manifest(version).objects().items()
        if name not in others
    }


def _named(remote: Remote, bucket: Bucket, versions: list[Version]) -> list[Version]:
    """The versions that a remote names."""
    if remote.index == "git":
        absent = absent_manifests(bucket, [each.manifest for each in versions])
        return [each for each in versions if each.manifest not in absent]
    theirs = read_theirs(remote, bucket)
    named = {each.manifest for each in theirs[0].every_version()} if theirs else set()
    return [each for each in versions if each.manifest in named]


def _every(registry: Registry) -> Iterator[Version]:
    return registry.index().every_version()


def _there(
    registry: Registry, bucket: Bucket, versions: list[Version], names: set[str]
) -> set[str]:
    """Which of these objects of versions a bucket has in their size, in packs or alone."""
    parcels = {
        parcel.path: parcel
        for version in versions
        for parcel in parcels_of(registry.manifest(version).objects())
        if not names.isdisjoint(parcel.objects)
    }
    found = _objects_there(bucket, parcels)
    singly = [
        alone(name, *each)
        for parcel in parcels.values()
        for name, each in parcel.objects.items()
        if name in names - found
    ]
    return names & (found | _objects_there(bucket, {each.path: each for each in singly}))


def _objects_there(bucket: Bucket, parcels: dict[str, Parcel]) -> set[str]:
    there = in_parallel(lambda path: is_there(bucket, parcels[path]), parcels)
    return {name for path, has in there.items() if has for name in parcels[path].objects}
