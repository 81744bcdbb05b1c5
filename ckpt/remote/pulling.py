"""Fetch and pull: the index and manifests of a remote, then the objects of versions.

Law: only what is not here travels, and an object that is here was verified when it came.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ckpt.errors import IntegrityError, RefError
from ckpt.io.files import Told, untold
from ckpt.registry.manifest import Manifest
from ckpt.registry.registry import Registry
from ckpt.registry.version import Version
from ckpt.remote.merging import Fetched, Side, merge_theirs, read_theirs
from ckpt.remote.objects.parcels import Parcel, parcels_of
from ckpt.remote.objects.receiving import receive_manifests, receive_objects
from ckpt.remote.remotes import Remote, last_seen


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull added here.

    Attributes:
        remote: The name of the remote.
        versions: The versions whose objects are here now.
        objects: The number of objects that were new here.
        nbytes: Their bytes.
        fetched: What the fetch before it changed.
    """

    remote: str
    versions: tuple[Version, ...]
    objects: int
    nbytes: int
    fetched: Fetched


def fetch_index(registry: Registry, remote: Remote, *, side: Side | None = None) -> Fetched:
    """Merge the index of a remote into ours, with its manifests; of git's index, the manifests.

    Raises:
        RefError: There is no registry on the remote.
        ConflictError: Both sides moved an alias, and `side` is None.
        IntegrityError: The index there is damaged or older than before.
    """
    bucket = remote.bucket()
    if remote.index == "git":
        versions = registry.index().every_version()
        receive_manifests(
            registry, bucket, {each.manifest: each.ref for each in versions}, remote.name
        )
        return Fetched(remote.name)
    seen = last_seen(registry, remote)
    found = read_theirs(remote, bucket)
    if found is None and seen.write_id:
        raise IntegrityError(
            f"{remote.name}: {remote.url}: had a registry.json, which is gone now",
            hint=f"ckpt remote rm {remote.name}  and  ckpt remote add  begin again",
        )
    if found is None:
        raise RefError(
            f"{remote.name}: {remote.url}: no registry there yet",
            hint=f"to add the versions of this one:  ckpt push --remote {remote.name}",
        )
    return merge_theirs(registry, remote, bucket, found[0], seen, side=side)


def receive_versions(
    registry: Registry,
    remote: Remote,
    versions: Iterable[Version],
    wants: Callable[[str], bool] | None = None,
    told: Told = untold,
) -> dict[str, int]:
    """Put the objects of versions into the store; digest to bytes of those that were new.

    Args:
        registry: The registry.
        remote: The remote.
        versions: The versions, whose manifests are here.
        wants: Whether a key's tensor is wanted; None for all objects.
        told: Called with the bytes received and in all.
    """
    parcels: list[Parcel] = []
    wanted: set[str] | None = None if wants is None else set()
    for version in versions:
        manifest = registry.manifest(version)
        parcels += parcels_of(manifest.objects(f"{version.ref}: "))
        if wanted is not None and wants is not None:
            wanted |= _wanted(manifest, wants)
    with registry.store.writing():
        return receive_objects(registry, remote.bucket(), parcels, remote.name, told, wanted=wanted)


def _wanted(manifest: Manifest, wants: Callable[[str], bool]) -> set[str]:
    """The skeleton, and the tensors whose keys are wanted."""
    tensors = {str(entry.digest) for entry in manifest.entries if wants(entry.key)}
    return {*tensors, manifest.skeleton.digest}
