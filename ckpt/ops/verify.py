"""Verify: hash all that a registry holds again, and name what is damaged and whom it hurts."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from ckpt.errors import IntegrityError
from ckpt.manifest import Manifest
from ckpt.ops.registry import Registry
from ckpt.store.objects import ObjectStore


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is wrong, and the versions and keys that it hurts."""

    message: str
    hurts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verified:
    """What was hashed, in objects, manifests and bytes, and what is wrong with it."""

    objects: int
    manifests: int
    nbytes: int
    damages: tuple[Damage, ...]


def verify(*, registry: Registry | None = None) -> Verified:
    """Read every manifest and every object that one names, and hash them, on all cores.

    Raises:
        IntegrityError: The index itself cannot be read.
    """
    registry = registry or Registry()
    damages: list[Damage] = []
    manifests: dict[str, Manifest] = {}
    for version in registry.versions():
        try:
            manifests[version.ref] = registry.manifest(version)
        except IntegrityError as error:
            damages.append(Damage(str(error), (version.ref,)))
    wanted: dict[str, tuple[int, str]] = {}
    for manifest in manifests.values():
        wanted |= manifest.objects()
    # hashlib and the disk work without Python's lock.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = threads.map(partial(_hash, registry.store), wanted.items())
        results = list(zip(wanted, found, strict=True))
    for name, result in results:
        if isinstance(result, IntegrityError):
            damages.append(Damage(str(result), tuple(_hurt_by(name, manifests))))
    total = sum(result for _, result in results if isinstance(result, int))
    return Verified(len(wanted), len(manifests), total, tuple(damages))


def _hash(store: ObjectStore, wanted: tuple[str, tuple[int, str]]) -> int | IntegrityError:
    """Bytes of an object that is as its name says, or what is wrong with it."""
    name, (nbytes, what) = wanted
    try:
        return sum(len(chunk) for chunk in store.stream(name, nbytes, what))
    except IntegrityError as error:
        return error


def _hurt_by(name: str, manifests: Mapping[str, Manifest]) -> Iterator[str]:
    """Every version and key that needs an object."""
    for ref, manifest in manifests.items():
        keys = [entry.key for entry in manifest.entries if entry.digest == name]
        if not keys and name in manifest.objects():
            keys = [manifest.objects()[name][1]]
        yield from (f"{ref} {key}" for key in keys)
