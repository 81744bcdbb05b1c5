"""Fsck: check the index, and rebuild it if it cannot be read.

It is rebuilt from the reflog, which has every write on this machine, and from the manifests. Laws:
an index that can be read is never rebuilt, and a damaged one is kept beside the new one.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from ckpt.errors import ConflictError, IndexDamageError, IntegrityError, UsageError
from ckpt.io.files import read_plain
from ckpt.registry.history.rebuild import Rebuilt, rebuilt
from ckpt.registry.history.replay import replayed
from ckpt.registry.index import Index
from ckpt.registry.index_file import FILE_NAME
from ckpt.registry.manifest import Manifest
from ckpt.registry.registry import Registry

FINE, NONE = "fine", "none"
_SERIAL = re.compile(rb'"serial": ?(\d{1,18})')


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of a check of the index.

    Attributes:
        path: Its file.
        kind: ``fine``, ``none`` (there is no registry), or the kind of the `IndexDamageError`.
        index: The index, if it is fine.
        message: The damage.
        hint: The commands that help.
        line: The line of the damage, from 1, if it is known.
    """

    path: Path
    kind: str
    index: Index | None = None
    message: str | None = None
    hint: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Rebuilding:
    """A rebuilt index, written or only planned.

    Attributes:
        path: Its file.
        result: The index, and its differences from the lost one.
        damages: Errors of unreadable manifests, whose versions are not in it.
        kept: The damaged index; None if there was none, or nothing is written yet.
    """

    path: Path
    result: Rebuilt
    damages: tuple[str, ...]
    kept: Path | None = None


def fsck(*, registry: Registry | None = None) -> Checked:
    """Check whether the index of a registry can be read."""
    registry = registry or Registry()
    path = registry.folder / FILE_NAME
    try:
        index = registry.index()
    except IndexDamageError as error:
        return Checked(path, error.kind, None, str(error), error.hint, error.line)
    return Checked(path, FINE if registry.exists else NONE, index)


def plan_rebuild(*, registry: Registry | None = None) -> Rebuilding:
    """The index that `rebuild_index` would write.

    Raises:
        UsageError: The index is fine, or there is no registry.
        IndexDamageError: The index is of a newer schema.
    """
    registry = registry or Registry()
    _expect_broken(registry)
    manifests, damages = _manifests(registry)
    result = rebuilt(_known(registry), manifests)
    return Rebuilding(registry.folder / FILE_NAME, result, damages)


def rebuild_index(*, registry: Registry | None = None) -> Rebuilding:
    """Write an index rebuilt from the reflog and the manifests; the damaged one is kept.

    Raises:
        UsageError: The index is fine, or there is no registry.
        IndexDamageError: The index is of a newer schema.
        ConflictError: Another process was faster.
    """
    registry = registry or Registry()
    _expect_broken(registry)
    path = registry.folder / FILE_NAME
    done: list[Rebuilding] = []

    def read() -> Index:
        if fsck(registry=registry).kind == FINE:
            raise ConflictError(f"{path}: another process has rebuilt it")
        return _known(registry)

    def rebuild(known: Index) -> Index:
        manifests, damages = _manifests(registry)
        result = rebuilt(known, manifests)
        done.append(Rebuilding(path, result, damages, registry.index_file.keep_damaged()))
        return replace(result.index)  # another value, so that it is written in any case

    index = registry.index_file.commit(rebuild, "fsck --rebuild-index", read=read)
    return replace(done[0], result=replace(done[0].result, index=index))


def _expect_broken(registry: Registry) -> None:
    checked = fsck(registry=registry)
    if checked.kind == FINE:
        raise UsageError(
            f"{checked.path}: fine, so it is not rebuilt", hint="ckpt verify  checks its objects"
        )
    if checked.kind == NONE:
        raise UsageError(
            f"{registry.folder}: no registry here", hint="ckpt register FILE  creates one"
        )
    if checked.kind == "newer":
        registry.index()


def _known(registry: Registry) -> Index:
    """The index of the reflog; its serial is at least the highest one in the damaged index."""
    index = replayed(registry.index_file.reflog.entries())
    try:
        found = _SERIAL.findall(read_plain(registry.folder / FILE_NAME))
    except (OSError, IntegrityError):
        found = []
    return replace(index, serial=max([index.serial, *map(int, found)]))


def _manifests(registry: Registry) -> tuple[dict[str, Manifest], tuple[str, ...]]:
    """All readable manifests of the store, by digest, and the errors of the others."""
    found: dict[str, Manifest] = {}
    damages = []
    for name in sorted(each.digest for each in registry.store.objects() if each.is_manifest):
        try:
            found[name] = registry.store.manifest(name)
        except IntegrityError as error:
            damages.append(f"manifest {name}: {error}")
    return found, tuple(damages)
