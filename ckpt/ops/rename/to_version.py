"""The next version of a model, which differs from its parent in names alone.

A new skeleton around the tensors as they are: no tensor is read or written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ckpt.errors import IntegrityError
from ckpt.formats import open_checkpoint
from ckpt.formats.checkpoint import Checkpoint
from ckpt.opened import OpenedVersion
from ckpt.ops.rename.rule_files import tensors_document
from ckpt.registry.manifest import Hole, Manifest, Skeleton
from ckpt.registry.registry import Added, Registry
from ckpt.registry.store.new_objects import NewObjects
from ckpt.registry.store.version import VersionSource
from ckpt.rules.document import rules_document
from ckpt.rules.plan import Plan
from ckpt.rules.planned import Rule
from ckpt.tensors import FileStart, Layout, Span, TensorEntry


def plan_record(plan: Plan, rules: Sequence[Rule], source: Sequence[TensorEntry]) -> dict[str, Any]:
    """What is kept of a plan, so that it can be read, applied again, and undone."""
    record: dict[str, Any] = {
        "rules": list(plan.rules),
        "keys": {change.old: change.new for change in plan.renamed},
        **({"aliases": dict(plan.aliases)} if plan.aliases else {}),
    }
    if not plan.is_rename:
        record |= {"document": rules_document(rules), "source": tensors_document(source)}
    return record


def next_version(
    opened: OpenedVersion,
    plan: Plan,
    record: Mapping[str, Any],
    registry: Registry,
    *,
    definition: str | None,
) -> Added:
    """Add the version with the new keys.

    Args:
        opened: The parent.
        plan: Names alone.
        record: What to keep of it.
        registry: Where it is added.
        definition: The definition that the result was found to fit.
    """
    version = opened.version
    with registry.store.writing():
        # Removed meanwhile, its objects might be gone; while this block runs they are not.
        registry.version(version.ref)
        manifest, new_bytes = _manifest(opened, plan, record, registry, definition)
        return registry.add(
            version.model,
            manifest,
            new_bytes=new_bytes,
            made_by=f"rename of {version.label}",
        )


def _manifest(
    opened: OpenedVersion,
    plan: Plan,
    record: Mapping[str, Any],
    registry: Registry,
    definition: str | None,
) -> tuple[Manifest, int]:
    """The new version's manifest, and the bytes by which the store grew."""
    old, version = opened.manifest, opened.version
    objects = NewObjects(registry.store)
    new_keys = plan.new_keys
    entries = tuple(replace(entry, key=new_keys[entry.key]) for entry in old.entries)
    layout = opened.checkpoint.renamed({**new_keys, **plan.aliases})
    skeleton, files = _skeleton(layout, opened.source, objects)
    needed = {hole.digest for hole in skeleton.holes} | {str(entry.digest) for entry in entries}
    manifest = replace(
        old,
        file_digest=None,
        skeleton=skeleton,
        files=files,
        entries=entries,
        inline={**objects.inline, **{d: b for d, b in old.inline.items() if d in needed}},
        record={
            "model": version.model,
            "metrics": dict(version.metrics),
            "parent": {"version": version.ref, "manifest": version.manifest},
            "plan": dict(record),
            **({"fits": definition} if definition else {}),
        },
    )
    again = VersionSource(f"{version.ref}, renamed", manifest, registry.store)
    manifest = replace(manifest, rest=_read_back(again, entries).rest)
    return manifest, objects.new_bytes


def _skeleton(
    layout: Layout, source: VersionSource, objects: NewObjects
) -> tuple[Skeleton, tuple[tuple[str, int], ...]]:
    """The skeleton, and the files, laid out of pieces of a version, no tensor being read."""
    position, holes, parts = 0, list[Hole](), list[bytes]()
    begins: list[tuple[str, int]] = []
    for piece in layout:
        if isinstance(piece, FileStart):
            begins.append((piece.name, position))
            continue
        if isinstance(piece, bytes):
            parts.append(piece)
            position += len(piece)
            continue
        assert isinstance(piece, Span)  # renaming a container copies its tensors as they are
        for part, hole in source.pieces(piece):
            if hole is None:
                parts.append(source.own(part))
            else:
                assert part.nbytes == hole.nbytes  # tensors move whole
                holes.append(Hole(position, part.nbytes, hole.digest))
            position += part.nbytes
    own = b"".join(parts)
    ends = [*(begin for _, begin in begins[1:]), position]
    files = ((name, end - begin) for (name, begin), end in zip(begins, ends, strict=False))
    return Skeleton(position, tuple(holes), objects.put_skeleton([own], len(own))), tuple(files)


def _read_back(source: VersionSource, expected: Sequence[TensorEntry]) -> Checkpoint:
    """Read the new skeleton as any reader will, before a version is made of it."""
    again = open_checkpoint(source, inside=source.manifest.inside)
    if [(e.key, e.shape) for e in again.entries] != [(e.key, e.shape) for e in expected]:
        raise IntegrityError(f"{source.name}: does not read back as planned; nothing was added")
    return again
