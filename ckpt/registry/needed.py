"""What a registry needs: one notion for `verify` and `gc`.

Needed are the manifests of all versions, of the removed ones that `undo` can restore, those that a
merge found to hold the same bytes, those that only the reflog names, and all objects of these.
"""

from collections.abc import Iterable, Iterator

from ckpt.io import digest
from ckpt.registry.index import Index, Version
from ckpt.registry.registry import Registry
from ckpt.registry.store.objects import StoredObject


def needed_manifests(
    registry: Registry,
    index: Index,
    stored: Iterable[StoredObject],
    forgotten: Iterable[Version] = (),
) -> Iterator[tuple[str, str]]:
    """The digest of every needed manifest, after its user; those of versions come first.

    Args:
        registry: The registry.
        index: Its index.
        stored: What is in its store: a manifest that no version of the index has as its own may
            never have been on this machine.
        forgotten: Versions whose manifests are not needed, although the reflog names them.
    """
    own = set()
    for model in index.models.values():
        for version in model.every_version():
            own.add(version.manifest)
            gone = " (removed)" if version.number in model.removed else ""
            yield version.ref + gone, version.manifest
    others = {
        name: f"{version.ref} (merged)"
        for version in index.every_version()
        for name in version.also
    }
    for name in sorted(registry.index_file.reflog.manifests()):
        others.setdefault(name, f"version {digest.short(name)} of the reflog")
    present = {each.digest for each in stored if each.is_manifest}
    present -= own | {name for version in forgotten for name in version.manifests}
    yield from ((user, name) for name, user in others.items() if name in present)
