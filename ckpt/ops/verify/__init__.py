"""Verify: hash all that a registry holds again, and name what is damaged and whom it hurts."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ckpt.errors import DiskError, IntegrityError
from ckpt.io.files import Told, untold
from ckpt.registry.manifest import Manifest
from ckpt.registry.registry import Registry

NOBODY = "no version"


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is wrong.

    Attributes:
        message: What is wrong with it.
        hurts: The versions and keys that need it; none where nothing does.
        digest: What its bytes should be.
        nbytes: How many these should be; None of a manifest.
    """

    message: str
    hurts: tuple[str, ...]
    digest: str
    nbytes: int | None


@dataclass(frozen=True, slots=True)
class Verified:
    """What was hashed, in objects, manifests and bytes, and what is wrong with it."""

    objects: int
    manifests: int
    nbytes: int
    damages: tuple[Damage, ...]


def verify(*, registry: Registry | None = None, told: Told = untold) -> Verified:
    """Read every manifest, and every object that one names or that is there, on all cores.

    Versions that were removed count, as long as undo can bring them back.

    Args:
        registry: Which; None finds it as the command line does.
        told: Told how far it is.

    Raises:
        IntegrityError: The index itself cannot be read.
    """
    registry = registry or Registry()
    damages: list[Damage] = []
    manifests: dict[str, Manifest] = {}
    for ref, digest in _named(registry):
        try:
            manifests[ref] = registry.store.manifest(digest)
        except IntegrityError as error:
            damages.append(Damage(f"{ref}: {error}", (ref,), digest, None))
    wanted = _wanted(registry, manifests)
    results, done, total = [], 0, sum(nbytes for nbytes, _ in wanted.values())
    # hashlib and the disk work without Python's lock.
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
    return Verified(len(wanted), len(manifests), good, tuple(damages))


def _named(registry: Registry) -> Iterator[tuple[str, str]]:
    """Every version by name, with its manifest's digest."""
    models = registry.index().models.values()
    for version in registry.versions():
        yield version.ref, version.manifest
    for version in (each for model in models for each in model.removed.values()):
        yield f"{version.ref} (removed)", version.manifest


def _wanted(registry: Registry, manifests: Mapping[str, Manifest]) -> dict[str, tuple[int, str]]:
    """Digest to bytes, and what it is, of every object that is needed or merely there."""
    there = (each for each in registry.store.held() if not each.is_manifest)
    wanted = {each.digest: (each.nbytes, NOBODY) for each in there}
    for ref, manifest in manifests.items():
        for name, (nbytes, what) in manifest.objects().items():
            if wanted.get(name, (0, NOBODY))[1] == NOBODY:
                wanted[name] = nbytes, f"{ref} {what}"
    return wanted


def _hash(registry: Registry, name: str, wanted: tuple[int, str]) -> int | str:
    """Bytes of an object that is as its name says, or what is wrong with it."""
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
