"""Verify: hash all that a registry holds again, and name what is damaged and whom it hurts."""

from collections import defaultdict
from dataclasses import dataclass

from ckpt.errors import IntegrityError
from ckpt.manifest import Manifest
from ckpt.ops.registry import Registry


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
    """Read every manifest and every object that one names, and hash them.

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
    hurts: defaultdict[str, list[str]] = defaultdict(list)
    for ref, manifest in manifests.items():
        for name, (nbytes, what) in manifest.objects().items():
            wanted[name] = (nbytes, what)
            hurts[name].append(f"{ref} {what}")
    total = 0
    for name, (nbytes, what) in wanted.items():
        try:
            total += sum(len(chunk) for chunk in registry.store.stream(name, nbytes, what))
        except IntegrityError as error:
            damages.append(Damage(str(error), tuple(hurts[name])))
    return Verified(len(wanted), len(manifests), total, tuple(damages))
