"""Fsck: check the index, and rebuild it if it cannot be read.

It is rebuilt from the reflog, which has every write on this machine, and from the manifests. Laws:
an index that can be read is never rebuilt, and a damaged one is kept beside the new one.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from ckpt.errors import ConflictError, IndexDamageError, IntegrityError, RefError, UsageError
from ckpt.io.files import read_plain
from ckpt.printed import Printed
from ckpt.registry.history.rebuild import Rebuilt, rebuilt
from ckpt.registry.history.replay import replayed
from ckpt.registry.index import Index
from ckpt.registry.index_file import MOST_BYTES
from ckpt.registry.manifest import Manifest
from ckpt.registry.needs.lost import Lost, lost_versions
from ckpt.registry.needs.needed import REFLOG, Need, needed
from ckpt.registry.numbers import readded
from ckpt.registry.places import FILE_NAME
from ckpt.registry.registry import InRegistry, Registry, now
from ckpt.registry.version import Version

FINE, NONE = "fine", "none"
_SERIAL = re.compile(rb'"serial": ?(\d{1,18})')


@dataclass(frozen=True, slots=True, repr=False)
class Checked(Printed):
    """The result of a check of the index.

    Attributes:
        kind: ``fine``, ``none`` (there is no registry), or the kind of the `IndexDamageError`,
            whose message, hint and line follow.
        index: The index, if it is fine.
        lost: Versions that only git's history has.
        logged: Versions that only the reflog has, and `gc` still keeps.
    """

    VIEW: ClassVar = "ckpt.show.fsck:checked_text"

    path: Path
    kind: str
    index: Index | None = None
    message: str | None = None
    hint: str | None = None
    line: int | None = None
    lost: tuple[Lost, ...] = ()
    logged: tuple[Need, ...] = ()


@dataclass(frozen=True, slots=True)
class Recovered:
    """The version that has a lost manifest again, and whether it was added for that."""

    version: Version
    new: bool = True


@dataclass(frozen=True, slots=True, repr=False)
class Rebuilding(Printed):
    """A rebuilt index.

    Attributes:
        result: The index, and its differences from the lost one.
        damages: Errors of unreadable manifests, whose versions are not in it.
        written: Whether it was written, not only planned.
        kept: The damaged index; None if there was none, or nothing is written yet.
    """

    VIEW: ClassVar = "ckpt.show.fsck:rebuilding_text"

    path: Path
    result: Rebuilt
    damages: tuple[str, ...]
    written: bool = False
    kept: Path | None = None


def fsck(*, registry: InRegistry | None = None) -> Checked:
    """Check whether the index of a registry can be read, and what it lacks of what is needed."""
    registry = Registry.of(registry)
    path = registry.folder / FILE_NAME
    try:
        index = registry.index()
    except IndexDamageError as error:
        return Checked(path, error.kind, None, str(error), error.hint, error.line)
    if not registry.exists:
        return Checked(path, NONE, index)
    lost = lost_versions(registry)
    needs = needed(registry, index, registry.store.manifests(), lost)
    logged = tuple(need for need in needs if need.kind == REFLOG)
    return Checked(path, FINE, index, lost=lost, logged=logged)


def recover(prefix: str, *, registry: InRegistry | None = None) -> Recovered:
    """Add a version that only git's history has; it gets its number back if that is free.

    If the model has a version of the same bytes, the manifest becomes another one of that version,
    as after a merge.

    Args:
        prefix: The beginning of the digest of its manifest.
        registry: The registry.

    Raises:
        RefError: No version, or more than one, has such a manifest.
    """
    registry = Registry.of(registry)
    found = [
        lost.version for lost in lost_versions(registry) if lost.version.manifest.startswith(prefix)
    ]
    if len(found) != 1:
        names = ", ".join(version.ref for version in found)
        raise RefError(
            f"{prefix} names {names or 'no version that only git has'}",
            hint="to list them:  ckpt fsck",
        )
    registry.manifest(found[0])
    done: list[Recovered] = []

    def with_lost(index: Index) -> Index:
        version = found[0]
        for known in index.every_version():
            if version.manifest in known.manifests:  # another process was faster
                done.append(Recovered(known))
                return index
        if twin := index.same_content(version.model, version.content):
            also = {*twin.also, *version.manifests} - {twin.manifest}
            twin = replace(twin, also=tuple(sorted(also)))
            done.append(Recovered(twin, new=False))
            model = index.models[twin.model]
            versions = {**model.versions, twin.number: twin}
            return index.with_model(replace(model, versions=versions))
        index, version = readded(index, version, at=now())
        done.append(Recovered(version))
        return index

    registry.index_file.commit(with_lost, f"recover {found[0].ref}")
    return done[0]


def rebuild_index(*, dry_run: bool = False, registry: InRegistry | None = None) -> Rebuilding:
    """Write an index rebuilt from the reflog and the manifests; the damaged one is kept.

    A dry run writes nothing.

    Raises:
        UsageError: The index is fine, or there is no registry.
        IndexDamageError: The index is of a newer schema.
        ConflictError: Another process was faster.
    """
    registry = Registry.of(registry)
    _expect_broken(registry)
    path = registry.folder / FILE_NAME
    if dry_run:
        return Rebuilding(path, *_rebuilt(registry, _known(registry)))
    done: list[Rebuilding] = []

    def read() -> Index:
        if fsck(registry=registry).kind == FINE:
            raise ConflictError(f"{path}: another process has rebuilt it")
        return _known(registry)

    def rebuild(known: Index) -> Index:
        result, damages = _rebuilt(registry, known)
        kept = registry.index_file.keep_damaged()
        done.append(Rebuilding(path, result, damages, written=True, kept=kept))
        return replace(result.index)  # another value, so that it is written in any case

    index = registry.index_file.commit(rebuild, "fsck --rebuild-index", read=read)
    return replace(done[0], result=replace(done[0].result, index=index))


def _expect_broken(registry: Registry) -> None:
    checked = fsck(registry=registry)
    if checked.kind == FINE:
        raise UsageError(
            f"{checked.path}: fine, so it is not rebuilt", hint="to check its objects:  ckpt verify"
        )
    if checked.kind == NONE:
        registry.expect_there()
    if checked.kind == "newer":
        registry.index()


def _known(registry: Registry) -> Index:
    """The index of the reflog; its serial is at least the highest one in the damaged index."""
    index = replayed(registry.index_file.reflog.entries())
    try:
        found = _SERIAL.findall(read_plain(registry.folder / FILE_NAME, most=MOST_BYTES))
    except (OSError, IntegrityError):
        found = []
    return replace(index, serial=max([index.serial, *map(int, found)]))


def _rebuilt(registry: Registry, known: Index) -> tuple[Rebuilt, tuple[str, ...]]:
    """The index from all readable manifests of the store, and the errors of the others."""
    found: dict[str, Manifest] = {}
    damages = []
    sizes = {each.digest: each.nbytes for each in registry.store.manifests()}
    for name in sorted(sizes):
        try:
            found[name] = registry.store.manifest(name)
        except IntegrityError as error:
            damages.append(f"manifest {name}: {error}")
    return rebuilt(known, found, sizes), tuple(damages)
