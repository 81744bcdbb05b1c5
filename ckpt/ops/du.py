"""Disk usage: bytes that each version needs, bytes that only it needs, and what holds the rest."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from ckpt.errors import IntegrityError
from ckpt.printed import Printed
from ckpt.registry.needs.lost import lost_versions
from ckpt.registry.needs.needed import GIT, REFLOG, REMOVED, VERSION, Need, needed
from ckpt.registry.registry import InRegistry, Registry
from ckpt.registry.version import Version

KINDS = (VERSION, REMOVED, GIT, REFLOG)


@dataclass(frozen=True, slots=True)
class Use:
    """Bytes of one version's objects and manifest, and those that no other version needs.

    `here` are those of them that are in the store; the others are on a remote, or missing.
    """

    version: Version
    needed: int
    alone: int
    here: int


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes on the disk, with the first reason to keep them.

    Attributes:
        by: ``version``, ``removed``, ``git``, ``reflog``, or ``nothing``: `ckpt gc` deletes them.
        nbytes: The bytes.
        until: The day from which `ckpt gc` deletes the last of them; None if there is none.
    """

    by: str
    nbytes: int
    until: datetime | None


@dataclass(frozen=True, slots=True, repr=False)
class Usage(Printed):
    """The disk usage of a registry.

    Attributes:
        uses: One for each version, newest first.
        stored: Bytes that the versions need together, each object once.
        copies: Bytes of one file for each version.
        unneeded: Bytes on the disk that no version needs.
        held: All bytes on the disk, by what holds them.
    """

    VIEW: ClassVar = "ckpt.show.du:usage_text"

    uses: tuple[Use, ...]
    stored: int
    copies: int
    unneeded: int
    held: tuple[Held, ...]


def du(model: str | None = None, *, registry: InRegistry | None = None) -> Usage:
    """Compute the disk usage from the manifests; no object is read.

    With a model only its versions are listed, though they may share objects with any.

    Raises:
        RefError: There is no registry.
        IntegrityError: The index, or a manifest that is needed, cannot be read.
    """
    registry = Registry.of(registry)
    registry.expect_there()
    listed, versions = registry.versions(model), registry.versions()
    on_disk = list(registry.store.own_objects())
    sizes = {stored.digest: stored.nbytes for stored in on_disk}
    needs = [
        (need, _objects(registry, need, sizes))
        for need in needed(registry, registry.index(), on_disk, lost_versions(registry))
    ]
    own = {need.user: names for need, names in needs if need.kind == VERSION}
    users = Counter(name for version in versions for name in own[version.ref])
    uses = []
    for version in listed:
        names = own[version.ref]
        alone = sum(nbytes for name, nbytes in names.items() if users[name] == 1)
        here = sum(nbytes for name, nbytes in names.items() if registry.store.has(name))
        here += sizes.get(version.manifest, 0)
        uses.append(Use(version, sum(names.values()), alone, here))
    every = {name: nbytes for names in own.values() for name, nbytes in names.items()}
    return Usage(
        tuple(uses),
        stored=sum(every.values()),
        copies=sum(version.size for version in versions),
        unneeded=sum(nbytes for name, nbytes in sizes.items() if name not in every),
        held=tuple(_held(needs, sizes)),
    )


def _held(needs: list[tuple[Need, dict[str, int]]], sizes: dict[str, int]) -> list[Held]:
    left, found = dict(sizes), []
    for kind in KINDS:
        nbytes, until = 0, None
        for need, names in needs:
            taken = [left.pop(name) for name in names if name in left] if need.kind == kind else []
            nbytes += sum(taken)
            if taken and need.until is not None:
                until = max(until or need.until, need.until)
        found.append(Held(kind, nbytes, until))
    found.append(Held("nothing", sum(left.values()), None))
    return [held for held in found if held.nbytes]


def _objects(registry: Registry, need: Need, sizes: Mapping[str, int]) -> dict[str, int]:
    """Digest to bytes, for the manifest and every object that it names."""
    try:
        manifest = registry.store.manifest(need.manifest)
    except IntegrityError as error:
        raise IntegrityError(f"{need.user}: {error}", hint=error.hint) from error
    objects = {name: nbytes for name, (nbytes, _) in manifest.objects().items()}
    return {**objects, need.manifest: sizes[need.manifest]}
