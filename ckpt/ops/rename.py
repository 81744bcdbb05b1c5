"""Rename: a checkpoint with other keys. Of a file a new file, of a version the next one.

The plan is whole, and checked against the definition if one is named, before anything is
written. No tensor is decoded: a file's tensors are copied as they are, a version's are
not even read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ckpt.errors import FitError, IntegrityError, UsageError
from ckpt.formats import format_for, is_usual, open_checkpoint
from ckpt.formats.checkpoint import Checkpoint
from ckpt.manifest import Hole, Skeleton
from ckpt.ops.blobs import Blobs
from ckpt.ops.fitting import Fitting, fitting
from ckpt.ops.opened import OpenedFile, OpenedState, OpenedVersion, open_state
from ckpt.ops.register import model_name, register
from ckpt.ops.registry import Added, Registry
from ckpt.ops.writing import Written, write_checkpoint
from ckpt.rules.plan import Plan, Rule, plan_renames
from ckpt.rules.rule import parse_rule
from ckpt.store.version import VersionSource
from ckpt.tensors import FileStart, Layout, Span, TensorEntry


@dataclass(frozen=True, slots=True)
class Renamed:
    """What a rename did, or would do.

    Attributes:
        source: The name of what was renamed.
        plan: Every key with its new name.
        fitting: The fit with the definition of `check`; it fits, where it is given.
        written: The file that was written, if one was.
        added: The version that was added, if one was.
    """

    source: str
    plan: Plan
    fitting: Fitting | None = None
    written: Written | None = None
    added: Added | None = None


def rename(
    source: str,
    rules: Sequence[str | Rule],
    *,
    registry: Registry | None = None,
    check: str | None = None,
    out: Path | None = None,
    replace_out: bool = False,
    register_result: bool = False,
    name: str | None = None,
    dry_run: bool = False,
) -> Renamed:
    """Give the keys of `source` other names, by rules.

    Args:
        source: A file, or a version.
        rules: ``conv->embed`` and the like, and key maps, applied first to last.
        registry: Where versions are looked up and added.
        check: A definition that the result must fit strictly.
        out: The file to write; of a file, by default, ``old.renamed.pt`` beside it; of a
            version only if it is given, and then no version is added.
        replace_out: Whether a file that stands there is replaced.
        register_result: Register the file that is written as the next version of a model.
        name: That model; None takes the version's, or the file's name.
        dry_run: Stop after the plan and the check.

    Raises:
        PlanError: The rules do not make a good plan for these keys.
        FitError: The result would not fit `check`.
        UsageError: There is nothing to do, or `out` stands already.
    """
    registry = registry or Registry()
    parsed = [parse_rule(rule) if isinstance(rule, str) else rule for rule in rules]
    if not parsed:
        raise UsageError("no rule is given", hint="--rule 'OLD->NEW', or --map FILE")
    with open_state(source, registry) as opened:
        plan = plan_renames([entry.key for entry in opened.entries], parsed)
        result = Renamed(opened.name, plan, _checked(opened.entries, plan, check))
        if dry_run:
            return result
        if isinstance(opened, OpenedVersion) and out is None:
            return replace(result, added=_next_version(opened, plan, registry, result.fitting))
        result = replace(result, written=_write(opened, plan, out, replace_out=replace_out))
    if not register_result:
        return result
    return replace(result, added=_registered(result, registry, name or _model(opened)))


def _checked(entries: Sequence[TensorEntry], plan: Plan, definition: str | None) -> Fitting | None:
    if definition is None:
        return None
    from ckpt.definitions import find_definition

    wanted = find_definition(definition).entries()
    found = fitting(_with_new_keys(entries, plan), definition, wanted)
    if not found.fit.fits:
        raise _misfit(found, before=fitting(entries, definition, wanted))
    return found


def _with_new_keys(entries: Sequence[TensorEntry], plan: Plan) -> list[TensorEntry]:
    new_keys = plan.new_keys
    return [replace(entry, key=new_keys[entry.key]) for entry in entries]


def _misfit(found: Fitting, *, before: Fitting) -> FitError:
    groups = {
        "missing": [entry.key for entry in found.fit.missing],
        "unexpected": [entry.key for entry in found.fit.unexpected],
        "of another shape": [mine.key for mine, _ in found.fit.reshaped],
    }
    parts = [f"{len(keys)} {what} ({_few(keys)})" for what, keys in groups.items() if keys]
    if before.fit.fits:
        hint = "it fits as it is, without any rule"
    elif before.rules:
        hint = "this would fit:  " + " ".join(f"--rule '{rule}'" for rule in before.rules)
    else:
        hint = f"ckpt diff SRC {found.definition}  shows both sides"
    return FitError(f"the result would not fit {found.definition}: {', '.join(parts)}", hint=hint)


def _few(keys: list[str]) -> str:
    return ", ".join(keys[:2]) + (", …" if len(keys) > 2 else "")


def _write(opened: OpenedState, plan: Plan, out: Path | None, *, replace_out: bool) -> Written:
    if isinstance(opened, OpenedFile):
        inside = opened.inside
        out = out or _beside(opened)
        if out.exists() and out.samefile(opened.path):
            raise UsageError(f"{out}: the input is never overwritten", hint="name another with -o")
    else:
        inside = opened.manifest.inside
    assert out is not None  # of a version only where it is given
    checkpoint = opened.checkpoint
    return write_checkpoint(
        checkpoint,
        out,
        form=None if is_usual(out, checkpoint.format) else format_for(out),
        new_keys=plan.new_keys,
        inside=inside,
        replace_out=replace_out,
    )


def _beside(opened: OpenedFile) -> Path:
    """The default output: ``old.renamed.pt`` beside the file, or a folder beside the folder."""
    path = opened.path
    if len(opened.checkpoint.source.parts) == 1:
        return path.with_name(f"{path.stem}.renamed{path.suffix}")
    folder = path if path.is_dir() else path.parent
    if folder.resolve() == Path.cwd():
        folder = Path("..") / Path.cwd().name
    return folder.with_name(f"{folder.name}.renamed")


def _model(opened: OpenedState) -> str:
    return model_name(opened.path) if isinstance(opened, OpenedFile) else opened.version.model


def _registered(result: Renamed, registry: Registry, model: str) -> Added:
    assert result.written is not None
    return register(
        result.written.ref,
        registry=registry,
        name=model,
        made_by=f"rename of {Path(result.source).name}",
        record={"plan": _plan_record(result.plan)},
    )


def _next_version(
    opened: OpenedVersion, plan: Plan, registry: Registry, fits: Fitting | None
) -> Added:
    """Add the version with the new keys: a new skeleton around the tensors as they are."""
    old, version = opened.manifest, opened.version
    blobs = Blobs(registry.store)
    entries = tuple(_with_new_keys(old.entries, plan))
    layout = opened.checkpoint.renamed(plan.new_keys)
    skeleton, files = _skeleton(layout, opened.source, blobs)
    needed = {hole.digest for hole in skeleton.holes} | {str(entry.digest) for entry in entries}
    manifest = replace(
        old,
        file_digest=None,
        skeleton=skeleton,
        files=files,
        entries=entries,
        inline={**blobs.inline, **{d: b for d, b in old.inline.items() if d in needed}},
        record={
            "model": version.model,
            "metrics": dict(version.metrics),
            "parent": {"version": version.ref, "manifest": version.manifest},
            "plan": _plan_record(plan),
            **({"fits": fits.definition} if fits else {}),
        },
    )
    again = VersionSource(f"{version.ref}, renamed", manifest, registry.store)
    manifest = replace(manifest, rest=_read_back(again, entries).rest)
    return registry.add(
        version.model,
        manifest,
        new_bytes=blobs.new_bytes,
        made_by=f"rename of {version.label}",
        metrics=version.metrics,
    )


def _skeleton(
    layout: Layout, source: VersionSource, blobs: Blobs
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
    return Skeleton(position, tuple(holes), blobs.put_skeleton([own], len(own))), tuple(files)


def _read_back(source: VersionSource, expected: Sequence[TensorEntry]) -> Checkpoint:
    """Read the new skeleton as any reader will, before a version is made of it."""
    again = open_checkpoint(source, inside=source.manifest.inside)
    if [(e.key, e.shape) for e in again.entries] != [(e.key, e.shape) for e in expected]:
        raise IntegrityError(f"{source.name}: does not read back as planned; nothing was added")
    return again


def _plan_record(plan: Plan) -> dict[str, Any]:
    return {
        "rules": list(plan.rules),
        "keys": {change.old: change.new for change in plan.renamed},
    }
