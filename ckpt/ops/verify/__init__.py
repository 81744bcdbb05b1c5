"""Verify: hash all objects and manifests of a registry, and report damage and its users."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

from ckpt.errors import DiskError, IntegrityError
from ckpt.io.files import Told, untold
from ckpt.registry.lost import Lost, lost_versions
from ckpt.registry.manifest import Manifest
from ckpt.registry.registry import Registry

UNREFERENCED = "no version"


@dataclass(frozen=True, slots=True)
class Damage:
    """A damaged or missing object or manifest.

    Attributes:
        message: The damage.
        hurts: The versions and keys that need it.
        digest: The digest that it should have.
        nbytes: The size that it should have; None for a manifest.
    """

    message: str
    hurts: tuple[str, ...]
    digest: str
    nbytes: int | None


@dataclass(frozen=True, slots=True)
class Verified:
    """Numbers of hashed objects, manifests and bytes, the time, and the damage that was found.

    `lost` are versions that only git's history has.
    """

    objects: int
    manifests: int
    nbytes: int
    damages: tuple[Damage, ...]
    seconds: float
    lost: tuple[Lost, ...] = ()


def verify(*, registry: Registry | None = None, told: Told = untold) -> Verified:
    """Hash every manifest and every object, stored or named by a manifest, on all cores.

    Removed versions count as long as undo can restore them. `told` is called with the bytes done
    and the bytes in all.
    """
    registry, began = registry or Registry(), perf_counter()
    damages: list[Damage] = []
    manifests: dict[str, Manifest] = {}
    for ref, digest in _named(registry):
        try:
            manifests[ref] = registry.store.manifest(digest)
        except IntegrityError as error:
            damages.append(Damage(f"{ref}: {error}", (ref,), digest, None))
    wanted = _wanted(registry, manifests)
    results, done, total = [], 0, sum(nbytes for nbytes, _ in wanted.values())
    # hashlib and the disk work without the GIL.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        hashed = threads.map(lambda item: _hash(registry, *item), wanted.items())
        for result, (nbytes, _) in zip(hashed, wanted.values(), strict=True):
            results.append(result)
            done += nbytes
            told(done, total)
    for (name, (nbytes, _)), result in zip(wanted.items(), results, strict=True):
        if isinstance(result, str):
            damages.append(Damage(result, tuple(_hurt_by(name, manifests)), name, nbytes))
    good = sum(result for result in results if isinstance(result, int))
    seconds = perf_counter() - began
    lost = lost_versions(registry)
    return Verified(len(wanted), len(manifests), good, tuple(damages), seconds, lost)


def _named(registry: Registry) -> Iterator[tuple[str, str]]:
    """Every version by name, with its manifest's digest."""
    models = registry.index().models.values()
    for version in registry.versions():
        yield version.ref, version.manifest
    for version in (removed for model in models for removed in model.removed.values()):
        yield f"{version.ref} (removed)", version.manifest


def _wanted(registry: Registry, manifests: Mapping[str, Manifest]) -> dict[str, tuple[int, str]]:
    """Digest to bytes and name in messages, for every object that is needed or stored."""
    wanted = {
        stored.digest: (stored.nbytes, UNREFERENCED)
        for stored in registry.store.objects()
        if not stored.is_manifest
    }
    for ref, manifest in manifests.items():
        for name, (nbytes, what) in manifest.objects().items():
            if wanted.get(name, (0, UNREFERENCED))[1] == UNREFERENCED:
                wanted[name] = nbytes, f"{ref} {what}"
    return wanted


def _hash(registry: Registry, name: str, wanted: tuple[int, str]) -> int | str:
    """The size of an object that is good, or its damage."""
    nbytes, what = wanted
    try:
        return sum(len(chunk) for chunk in registry.store.stream(name, nbytes, what))
    except (IntegrityError, DiskError) as error:
        return str(error)


def _hurt_by(name: str, manifests: Mapping[str, Manifest]) -> Iterator[str]:
    """Every version and key that needs an object."""
    for ref, manifest in manifests.items():
        keys = [entry.key for entry in manifest.entries if entry.digest == name]
        if not keys and name in manifest.objects():
            keys = [manifest.objects()[name][1]]
        yield from (f"{ref} {key}" for key in keys)
