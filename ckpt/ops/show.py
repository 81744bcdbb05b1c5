"""Show: what one version, file or definition holds; and the lineage of a version."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckpt.ops.opened import OpenedDefinition, OpenedVersion, open_ref
from ckpt.ops.registry import Registry
from ckpt.registry.index import Version
from ckpt.tensors import TensorEntry


@dataclass(frozen=True, slots=True)
class Shown:
    """One checkpoint or definition.

    Attributes:
        name: As in messages.
        format: The container's format; None of a definition.
        size: Bytes of the file; None of a definition.
        entries: In file order.
        rest: The non-tensor part.
        version: The line of the index, of a version.
        aliases: The aliases that point to it.
        record: Where a version comes from.
    """

    name: str
    format: str | None
    size: int | None
    entries: Sequence[TensorEntry]
    rest: Mapping[str, Any]
    version: Version | None = None
    aliases: tuple[str, ...] = ()
    record: Mapping[str, Any] | None = None


def show(ref: str, *, registry: Registry | None = None) -> Shown:
    """Describe what `ref` names. Of files only the header is read, of versions the manifest."""
    registry = registry or Registry()
    with open_ref(ref, registry) as opened:
        if isinstance(opened, OpenedDefinition):
            return Shown(opened.name, None, None, opened.entries, {})
        if isinstance(opened, OpenedVersion):
            manifest, version = opened.manifest, opened.version
            aliases = registry.index().model(version.model).aliases_of(version)
            return Shown(
                opened.name,
                manifest.format,
                manifest.skeleton.size,
                manifest.entries,
                manifest.rest,
                version,
                tuple(aliases),
                manifest.record,
            )
        checkpoint = opened.checkpoint
        size = opened.source.size
        return Shown(opened.name, checkpoint.format, size, checkpoint.entries, checkpoint.rest)


@dataclass(frozen=True, slots=True)
class Step:
    """One version of a lineage, with the record of how it was made."""

    version: Version
    record: Mapping[str, Any]


def log(ref: str, *, registry: Registry | None = None) -> list[Step]:
    """The lineage of a version, from itself back to where it was first made."""
    registry = registry or Registry()
    steps: list[Step] = []
    version: Version | None = registry.version(ref)
    while version is not None:
        record = registry.manifest(version).record
        steps.append(Step(version, record))
        parent = (record.get("parent") or {}).get("version")
        version = registry.version(parent) if parent else None
    return steps
