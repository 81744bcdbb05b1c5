"""The next version of a model, made by a plan.

If only names change it is a new skeleton around the stored tensors: none is read or written.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ckpt.errors import IntegrityError
from ckpt.formats import open_checkpoint
from ckpt.formats.checkpoint import Checkpoint
from ckpt.formats.opaque import RUNS_CODE, OpaqueWord, expect_harmless
from ckpt.io.temporaries import temporary_folder
from ckpt.opened.states import OpenedVersion
from ckpt.ops.register import register
from ckpt.ops.rename.plan import RenamePlan
from ckpt.ops.rename.rule_files import tensors_document
from ckpt.ops.rename.to_file import Rest, suffix_of, write_plan
from ckpt.ops.rename.training.optimizers import optimizers_document
from ckpt.ops.rename.undo import known_parent
from ckpt.registry.adding import Added, add_manifest
from ckpt.registry.later_words import add_words
from ckpt.registry.manifest import Hole, Manifest, Skeleton
from ckpt.registry.registry import Registry
from ckpt.registry.store.new_objects import NewObjects
from ckpt.registry.store.version import VersionSource
from ckpt.rules.document import rules_document
from ckpt.tensors import FileStart, Layout, Span, TensorEntry


def plan_record(plan: RenamePlan) -> dict[str, Any]:
    """What the registry keeps of a plan, to show it, apply it again and undo it."""
    record: dict[str, Any] = {
        "rules": list(plan.rules),
        "keys": {change.old: change.new for change in plan.renamed},
        **({"aliases": dict(plan.aliases)} if plan.aliases else {}),
    }
    if plan.numbers:
        record["numbers"] = dict(plan.former)
    if plan.optimizers:
        record["optimizers"] = optimizers_document(plan.optimizers)
    if not plan.is_rename:
        record |= {
            "document": rules_document(plan.applied),
            "source": tensors_document(plan.entries),
            "tied": list(plan.tied),
            **({"undone": True} if plan.undoes else {}),
        }
    return record


def add_version(
    opened: OpenedVersion,
    plan: RenamePlan,
    registry: Registry,
    rest: Rest,
    *,
    opaque: OpaqueWord | None = None,
    message: str = "",
) -> tuple[Added, tuple[str, ...]]:
    """Add the version that a plan makes of another one, with its opaque objects if `opaque`.

    `rest` is what `rest_of` gave for it.

    Returns:
        The version, and what it does not hold of the one before. If an undo gives the parent
        again, the parent. A version that was there gets the message as a note.
    """
    added, left_out = _added(opened, plan, registry, rest, opaque, message)
    if message and not added.new:
        said = add_words(registry, added.version.ref, text=message)
        added = replace(added, noted=added.noted or said.text)
    return added, left_out


def _added(
    opened: OpenedVersion,
    plan: RenamePlan,
    registry: Registry,
    rest: Rest,
    opaque: OpaqueWord | None,
    message: str,
) -> tuple[Added, tuple[str, ...]]:
    parent = known_parent(opened, plan, registry) if plan.undoes else None
    if parent is not None:
        return Added(parent, new=False), ()
    if plan.is_rename:
        expect_harmless(opened.checkpoint, opaque)
        return _with_new_keys(opened, plan, registry, message), ()
    return _with_new_tensors(opened, plan, registry, rest, message)


def _with_new_keys(
    opened: OpenedVersion, plan: RenamePlan, registry: Registry, message: str
) -> Added:
    version = opened.version
    with registry.store.writing():
        # A version that was removed meanwhile may have lost objects; from here on it cannot.
        registry.version(version.ref)
        manifest, new_bytes = _manifest(opened, plan, registry)
        notes = {"message": message} if message else {}
        manifest = replace(manifest, record={**manifest.record, **notes})
        return add_manifest(
            registry,
            version.model,
            manifest,
            new_bytes=new_bytes,
            made_by=f"rename of {version.label}"
            + (" --keep-opaque" if RUNS_CODE in manifest.record else ""),
            rights=opened.source.rights,
        )


def _with_new_tensors(
    opened: OpenedVersion, plan: RenamePlan, registry: Registry, rest: Rest, message: str
) -> tuple[Added, tuple[str, ...]]:
    """Register a temporary file, since only that gives the new tensors their bytes."""
    version = opened.version
    with temporary_folder(registry.folder) as folder:
        stem = Path(opened.manifest.file_name).stem
        path = folder / f"{stem}{suffix_of(opened.manifest.format)}"
        written = write_plan(opened, plan, path, rest)
        added = register(
            written.ref,
            registry=registry,
            name=version.model,
            message=message,
            # Metrics describe the weights that they were measured on.
            metrics=version.metrics if plan.proof and plan.proof.complete else {},
            made_by=f"rename of {version.label}",
            record=_version_record(opened, plan),
            with_files=opened.side_files().files,
            most=sys.maxsize,
        )
    return added, written.left_out


def _version_record(opened: OpenedVersion, plan: RenamePlan) -> dict[str, Any]:
    version = opened.version
    return {
        "parent": {"version": version.ref, "manifest": version.manifest},
        "plan": plan_record(plan),
        **({"fits": plan.fitting.definition} if plan.fitting and plan.fitting.fit.fits else {}),
    }


def _manifest(opened: OpenedVersion, plan: RenamePlan, registry: Registry) -> tuple[Manifest, int]:
    """The manifest of the new version, and by how many bytes the store grew."""
    old, version = opened.manifest, opened.version
    objects = NewObjects(registry.store, opened.source.rights)
    new_keys = plan.new_keys
    entries = tuple(replace(entry, key=new_keys[entry.key]) for entry in old.entries)
    layout = opened.checkpoint.renamed({**new_keys, **plan.aliases})
    skeleton, files = _skeleton(layout, opened.source, objects)
    needed = {hole.digest for hole in skeleton.holes} | {str(entry.digest) for entry in entries}
    needed |= {file.digest for file in old.side_files}
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
            **_version_record(opened, plan),
        },
    )
    again = VersionSource(f"{version.ref}, renamed", manifest, registry.store)
    read = _expect_readable(again, entries)
    record = {**manifest.record, **expect_harmless(read, "keep")}
    manifest = replace(manifest, rest=read.rest, record=record)
    return manifest, objects.new_bytes


def _skeleton(
    layout: Layout, source: VersionSource, objects: NewObjects
) -> tuple[Skeleton, tuple[tuple[str, int], ...]]:
    """The skeleton and the files of a layout, made from pieces of a version without its tensors."""
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
    name = objects.put_skeleton(lambda: [own], len(own))
    return Skeleton(position, tuple(holes), name), tuple(files)


def _expect_readable(source: VersionSource, expected: Sequence[TensorEntry]) -> Checkpoint:
    """Read the new skeleton as every reader will, before it becomes a version."""
    again = open_checkpoint(source, inside=source.manifest.inside)
    if [(e.key, e.shape) for e in again.entries] != [(e.key, e.shape) for e in expected]:
        raise IntegrityError(f"{source.name}: does not read back as planned; no version was added")
    return again
