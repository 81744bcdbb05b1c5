"""Site: what a registry's pages tell: every version, how it came to be, and what it changed.

Only the index, manifests and, for keys without tensors, small parts of files are read.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ckpt.io.rights import Rights
from ckpt.opened.states import OpenedVersion
from ckpt.ops.alias import AliasHistory, alias_history
from ckpt.ops.diff import RefDiff, compared_entries, diff
from ckpt.ops.diff.records import recorded_facts
from ckpt.ops.log import Step
from ckpt.ops.plot import Curves, own_curves
from ckpt.ops.show import Shown, shown_version
from ckpt.registry.index import Index
from ckpt.registry.registry import Registry
from ckpt.registry.version import Version
from ckpt.tensors import TensorEntry


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a version comes from.

    Attributes:
        version: The version, with its newest metrics.
        kind: ``trained``, ``renamed``, … as in `Step.kind`.
        named: The ref by which its record names its parent; empty if it names none.
        parent: The ref that the parent has now, if the registry knows that version.
        removed: Whether it was removed since.
    """

    version: Version
    kind: str
    named: str
    parent: str | None
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Described:
    """One version in full.

    Attributes:
        origin: Where it comes from.
        shown: What `ckpt show` tells.
        curves: Of its training, or of the version that it was renamed from.
        changes: What changed since its parent, and since the version before it.
        entries: Its keys as they are compared, those without tensors included.
        made: The fields of its record that are compared, by path.
        held: Likewise what its file holds besides tensors.
        inside: Its state_dict of that file, as after ``FILE::``.
    """

    origin: Origin
    shown: Shown
    curves: Curves | None
    changes: tuple[RefDiff, ...]
    entries: tuple[TensorEntry, ...]
    made: Mapping[str, Any]
    held: Mapping[str, Any]
    inside: str | None


@dataclass(frozen=True, slots=True)
class Site:
    """A registry as its pages show it.

    Attributes:
        name: Of its folder.
        index: Its index.
        origins: Of every version, by its ref, newest first in each model; and of removed ones
            from which others were made.
        aliases: What aliases point to, and pointed to.
        rights: Who may read all that it tells.
        described: Describes the versions one by one, in this order; can be used once.
    """

    name: str
    index: Index
    origins: Mapping[str, Origin]
    aliases: AliasHistory
    rights: Rights
    described: Iterator[Described]


def site(*, registry: Registry | None = None) -> Site:
    """What the pages of a registry tell.

    Args:
        registry: The registry; None finds it as the command line does.

    Raises:
        RefError: There is no registry.
        IntegrityError: A manifest is missing or damaged.
    """
    registry = registry or Registry()
    registry.expect_there()
    index = registry.index()
    curves: dict[str, Curves] = {}
    origins = _origins(index, registry, curves)
    described = (
        _described(origin, origins, _curves(origin, origins, curves), index, registry)
        for origin in origins.values()
        if not origin.removed
    )
    name = registry.folder.resolve().name or "registry"
    aliases = alias_history(registry=registry)
    return Site(name, index, origins, aliases, _rights(index, registry), described)


def _rights(index: Index, registry: Registry) -> Rights:
    """Who may read the index and all manifests that it names."""
    status = registry.index_file.path.stat()
    rights = Rights(status.st_mode, status.st_gid)
    for model in index.models.values():
        for version in model.versions.values():
            rights &= registry.store.rights(version.manifest)
    return rights


def _origins(index: Index, registry: Registry, curves: dict[str, Curves]) -> dict[str, Origin]:
    """The origin of each version; `curves` gets what was recorded, by ref."""
    versions = {version.ref: version for version in registry.versions()}
    removed = {v.ref: v for m in index.models.values() for v in m.removed.values()}
    known = {**removed, **versions}
    refs = {name: ref for ref, version in known.items() for name in version.manifests}
    found: dict[str, Origin] = {}
    for ref, version in versions.items():
        record = registry.manifest(version).record
        named = record.get("parent") or {"version": "", "manifest": ""}
        parent = refs.get(named["manifest"])
        kind = Step(version, record).kind
        found[ref] = Origin(version, kind, named["version"], parent)
        if own := own_curves(version, record):
            curves[ref] = own
    for parent in [origin.parent for origin in found.values()]:
        if parent is not None and parent not in found:
            found[parent] = Origin(removed[parent], "removed", "", None, removed=True)
    return found


def _described(
    origin: Origin,
    origins: Mapping[str, Origin],
    curves: Curves | None,
    index: Index,
    registry: Registry,
) -> Described:
    version = origin.version
    opened = OpenedVersion(version.ref, version, registry.source(version), registry)
    before = [origin.parent] if origin.parent and not origins[origin.parent].removed else []
    previous = index.before(version)
    if previous is not None and previous.ref != origin.parent:
        before.append(previous.ref)
    made, held = recorded_facts(opened)
    return Described(
        origin,
        shown_version(opened),
        curves,
        tuple(diff(ref, version.ref, registry=registry, values=False) for ref in before),
        tuple(compared_entries(opened)),
        made,
        held,
        opened.inside,
    )


def _curves(
    origin: Origin, origins: Mapping[str, Origin], curves: Mapping[str, Curves]
) -> Curves | None:
    """The curves of a version, or of the nearest one that it was made from."""
    for ref in lineage(origin.version.ref, origins):
        if own := curves.get(ref):
            return replace(own, version=origin.version.ref)
    return None


def lineage(ref: str, origins: Mapping[str, Origin]) -> Iterator[str]:
    """A version, its parent, and so on, as far as the registry knows them."""
    seen: set[str] = set()
    found: str | None = ref
    while found is not None and found not in seen:
        seen.add(found)
        yield found
        found = origins[found].parent
