"""What of a version is here, and what is only on a remote.

Law: an object is *not here*, never damaged, if a remote has it as far as this machine knows: its
version was pushed or fetched, or git's index names it and a remote keeps the objects for git.
"""

from collections.abc import Iterable

from ckpt.registry.index import Index
from ckpt.registry.manifest import Manifest
from ckpt.registry.registry import Registry
from ckpt.remote.remotes import last_seen, read_remotes


def remotes_of_manifests(registry: Registry, index: Index) -> dict[str, list[str]]:
    """The remotes that have each manifest with its objects, as far as it is known here."""
    found: dict[str, list[str]] = {}
    for remote in read_remotes(registry).values():
        known = index if remote.index == "git" else last_seen(registry, remote)
        for version in known.every_version():
            found.setdefault(version.manifest, []).append(remote.name)
    return found


def objects_elsewhere(
    registry: Registry, index: Index, manifests: Iterable[tuple[str, Manifest]]
) -> dict[str, str]:
    """The objects that a remote has: digest to the name of the first such remote.

    Args:
        registry: The registry.
        index: Its index.
        manifests: The digest of each manifest, and the manifest.
    """
    known = remotes_of_manifests(registry, index)
    return {
        name: known[digest][0]
        for digest, manifest in manifests
        if digest in known
        for name in manifest.objects()
    }


def absent_objects(registry: Registry, manifests: Iterable[Manifest]) -> dict[str, tuple[int, str]]:
    """The objects of manifests that are not in the store: digest to bytes and name in messages."""
    return {
        name: each
        for manifest in manifests
        for name, each in manifest.objects().items()
        if not registry.store.has(name)
    }
