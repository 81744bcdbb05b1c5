"""Fsck: say what is wrong with the index, and make it anew if it cannot be read.

Made of the reflog, which tells all that was done on this machine, and of the manifests. Laws: an
index that can be read is never rebuilt, and a damaged one is kept beside the new one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ckpt.errors import ConflictError, IndexDamageError, IntegrityError, UsageError
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
    """What is to be said of an index.

    Attributes:
        path: Its file.
        kind: ``fine``, ``none`` (there is no registry), or what `IndexDamageError` says.
        index: The index, if it is fine.
        message: What is wrong.
        hint: What to type.
        line: Where, from 1, if that is known.
    """

    path: Path
    kind: str
    index: Index | None = None
    message: str | None = None
    hint: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Rebuilding:
    """An index made anew, written or not.

    Attributes:
        path: Its file.
        result: The index, and what is not as it was.
        damages: What is wrong with manifests that cannot be read, and of which nothing is made.
        kept: Where the damaged index was put; None if there was none, or nothing is written yet.
    """

    path: Path
    result: Rebuilt
    damages: tuple[str, ...]
    kept: Path | None = None


def fsck(*, registry: Registry | None = None) -> Checked:
    """Read the index of a registry, and say what is wrong with it."""
    registry = registry or Registry()
    path = registry.folder / FILE_NAME
    try:
        index = registry.index()
    except IndexDamageError as error:
        return Checked(path, error.kind, None, str(error), error.hint, error.line)
    return Checked(path, FINE if registry.exists else NONE, index)


def plan_rebuild(*, registry: Registry | None = None) -> Rebuilding:
    """Work out what `rebuild_index` would write.

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
    """Write an index made of the reflog and the manifests; the damaged one keeps its bytes.

    Raises:
        UsageError: The index is fine, or there is no registry.
        IndexDamageError: The index is of a newer schema.
        ConflictError: Another process was faster.
    """
    registry = registry or Registry()
    _expect_broken(registry)
    path = registry.folder / FILE_NAME
    done: list[Rebuilding] = []

    def known() -> Index:
        if fsck(registry=registry).kind == FINE:
            raise ConflictError(f"{path}: another process has rebuilt it")
        return _known(registry)

    def operation(known: Index) -> Index:
        manifests, damages = _manifests(registry)
        result = rebuilt(known, manifests)
        done.append(Rebuilding(path, result, damages, registry.set_aside()))
        return replace(result.index)  # written even if the reflog knew all of it

    index = registry.rebuild(operation, known=known)
    return replace(done[0], result=replace(done[0].result, index=index))


def _expect_broken(registry: Registry) -> None:
    checked = fsck(registry=registry)
    if checked.kind == FINE:
        raise UsageError(
            f"{checked.path}: is fine and not rebuilt", hint="ckpt verify  hashes all that it names"
        )
    if checked.kind == NONE:
        raise UsageError(
            f"{registry.folder}: no registry here", hint="ckpt register FILE  makes one"
        )
    if checked.kind == "newer":
        registry.index()


def _known(registry: Registry) -> Index:
    """What the reflog tells; its serial is no less than any that the damaged index shows."""
    index = replayed(registry.reflog.entries())
    try:
        found = _SERIAL.findall((registry.folder / FILE_NAME).read_bytes())
    except OSError:
        found = []
    return replace(index, serial=max([index.serial, *map(int, found)]))


def _manifests(registry: Registry) -> tuple[dict[str, Manifest], tuple[str, ...]]:
    """All manifests of the store, by digest, and what is wrong with the others."""
    found: dict[str, Manifest] = {}
    damages = []
    for name in _names(registry):
        try:
            found[name] = registry.store.manifest(name)
        except IntegrityError as error:
            damages.append(f"manifest {name}: {error}")
    return found, tuple(damages)


def _names(registry: Registry) -> Sequence[str]:
    return sorted(each.digest for each in registry.store.held() if each.is_manifest)
