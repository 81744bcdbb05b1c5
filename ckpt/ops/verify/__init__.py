"""Verify: hash all objects and manifests of a registry, and report damage and its users."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import ClassVar

from ckpt.errors import AbsentError, CkptError, DiskError, IntegrityError
from ckpt.io.files import Told, untold
from ckpt.io.threads import Threads
from ckpt.printed import Printed
from ckpt.registry.manifest import Manifest
from ckpt.registry.needs.lost import Lost, lost_versions
from ckpt.registry.needs.needed import needed
from ckpt.registry.registry import InRegistry, Registry
from ckpt.registry.store.listing import StoredObject
from ckpt.registry.store.verified import REPAIR
from ckpt.remote.presence import objects_elsewhere

UNREFERENCED = "no version"


@dataclass(frozen=True, slots=True)
class Damage:
    """A damaged or missing object or manifest.

    Attributes:
        message: The damage.
        hurts: The versions and keys that need it.
        digest: The digest that it should have.
        nbytes: The size that it should have; None for a manifest.
        hint: The command that helps.
    """

    message: str
    hurts: tuple[str, ...]
    digest: str
    nbytes: int | None
    hint: str = REPAIR


@dataclass(frozen=True, slots=True, repr=False)
class Verified(Printed):
    """Numbers of hashed objects, manifests and bytes, the time, and the damage that was found.

    `lost` are versions that only git's history has; `elsewhere` counts the objects that are not
    here, by the remote that has them.
    """

    VIEW: ClassVar = "ckpt.show.verify:verified_text"

    objects: int
    manifests: int
    nbytes: int
    damages: tuple[Damage, ...]
    seconds: float
    lost: tuple[Lost, ...] = ()
    elsewhere: Mapping[str, int] = field(default_factory=dict)


def verify(*, registry: InRegistry | None = None, told: Told = untold) -> Verified:
    """Hash every manifest and every object, stored or named by a manifest, on all cores.

    Needed is what `ckpt.registry.needs.needed` says. `told` is called with the bytes done
    and the bytes in all. Law: what `gc` removes meanwhile is no damage.

    Raises:
        RefError: There is no registry, so nothing was checked.

    Example:
        >>> ckpt.verify().damages
        ()
    """
    registry = Registry.of(registry)
    registry.expect_there()
    found = _verified(registry, told)
    # A store that cannot be locked because it is read-only has no gc beside this either.
    with suppress(DiskError):
        if found.damages and registry.store.root.exists():
            with registry.store.writing():
                found = _verified(registry, told)
    return found


def _verified(registry: Registry, told: Told) -> Verified:
    began = perf_counter()
    damages: list[Damage] = []
    manifests: dict[str, Manifest] = {}
    digests: dict[str, str] = {}
    stored, lost = list(registry.store.own_objects()), lost_versions(registry)
    for need in needed(registry, registry.index(), stored, lost):
        ref, digest = need.user, need.manifest
        try:
            manifests[ref] = registry.store.manifest(digest)
            digests[ref] = digest
        except IntegrityError as error:
            damages.append(Damage(f"{ref}: {error}", (ref,), digest, None, error.hint or REPAIR))
    wanted = _wanted(stored, manifests)
    results, done, total = [], 0, sum(nbytes for nbytes, _ in wanted.values())
    # hashlib and the disk work without the GIL.
    with Threads(os.cpu_count()) as threads:
        hashed = threads.map(lambda item: _hash(registry, *item), wanted.items())
        for result, (nbytes, _) in zip(hashed, wanted.values(), strict=True):
            results.append(result)
            done += nbytes
            told(done, total)
    known: Mapping[str, str] = {}
    if any(isinstance(result, AbsentError) for result in results):
        pairs = ((digests[ref], manifest) for ref, manifest in manifests.items())
        known = objects_elsewhere(registry, registry.index(), pairs)
    elsewhere: Counter[str] = Counter()
    for (name, (nbytes, _)), result in zip(wanted.items(), results, strict=True):
        if isinstance(result, AbsentError) and name in known:
            elsewhere[known[name]] += 1
        elif isinstance(result, CkptError):
            hurts, hint = tuple(_hurt_by(name, manifests)), result.hint or REPAIR
            damages.append(Damage(str(result), hurts, name, nbytes, hint))
    good = sum(result for result in results if isinstance(result, int))
    seconds = perf_counter() - began
    here = len(wanted) - elsewhere.total()
    return Verified(here, len(manifests), good, tuple(damages), seconds, lost, elsewhere)


def _wanted(
    stored: Iterable[StoredObject], manifests: Mapping[str, Manifest]
) -> dict[str, tuple[int, str]]:
    """Digest to bytes and name in messages, for every object that is needed or stored."""
    wanted = {each.digest: (each.nbytes, UNREFERENCED) for each in stored if not each.is_manifest}
    for ref, manifest in manifests.items():
        for name, (nbytes, what) in manifest.objects().items():
            if wanted.get(name, (0, UNREFERENCED))[1] == UNREFERENCED:
                wanted[name] = nbytes, f"{ref} {what}"
    return wanted


def _hash(registry: Registry, name: str, wanted: tuple[int, str]) -> int | CkptError:
    """The size of an object that is good, or its damage."""
    nbytes, what = wanted
    try:
        return sum(len(chunk) for chunk in registry.store.stream(name, nbytes, what))
    except (IntegrityError, DiskError) as error:
        return error


def _hurt_by(name: str, manifests: Mapping[str, Manifest]) -> Iterator[str]:
    """Every version and key that needs an object."""
    for ref, manifest in manifests.items():
        keys = [entry.key for entry in manifest.entries if entry.digest == name]
        if not keys and name in manifest.objects():
            keys = [manifest.objects()[name][1]]
        yield from (f"{ref} {key}" for key in keys)
