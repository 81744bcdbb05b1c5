"""Disk usage of the versions: bytes that each one needs, and bytes that only it needs."""

from collections import Counter
from dataclasses import dataclass

from ckpt.registry.index import Version
from ckpt.registry.registry import Registry


@dataclass(frozen=True, slots=True)
class Use:
    """Bytes of one version's objects and manifest, and those that no other version needs."""

    version: Version
    needed: int
    alone: int


@dataclass(frozen=True, slots=True)
class Usage:
    """The disk usage of a registry.

    Attributes:
        uses: One for each version, newest first.
        stored: Bytes that the versions need together, each object once.
        copies: Bytes of one file for each version.
        unneeded: Bytes on the disk that no version needs.
    """

    uses: tuple[Use, ...]
    stored: int
    copies: int
    unneeded: int


def du(model: str | None = None, *, registry: Registry | None = None) -> Usage:
    """Compute the disk usage from the manifests; no object is read.

    With a model only its versions are listed, though they may share objects with any.
    """
    registry = registry or Registry()
    listed = registry.versions(model)
    needs = {version.ref: _needs(registry, version) for version in registry.versions()}
    users = Counter(name for names in needs.values() for name in names)
    uses = []
    for version in listed:
        own = needs[version.ref]
        alone = sum(nbytes for name, nbytes in own.items() if users[name] == 1)
        uses.append(Use(version, sum(own.values()), alone))
    every = {name: nbytes for names in needs.values() for name, nbytes in names.items()}
    return Usage(
        tuple(uses),
        stored=sum(every.values()),
        copies=sum(version.size for version in registry.versions()),
        unneeded=sum(
            stored.nbytes for stored in registry.store.own_objects() if stored.digest not in every
        ),
    )


def _needs(registry: Registry, version: Version) -> dict[str, int]:
    """Digest to bytes, for the manifest and every object that it names."""
    manifest = registry.manifest(version)
    objects = {name: nbytes for name, (nbytes, _) in manifest.objects().items()}
    return {**objects, version.manifest: len(manifest.to_bytes())}
