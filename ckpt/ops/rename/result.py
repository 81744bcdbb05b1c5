"""The result of a rename: apply a plan, and write a file, add a version, or both."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import fspath
from pathlib import Path
from typing import Unpack

from ckpt.errors import ConflictError, UsageError
from ckpt.formats import safetensors
from ckpt.io.journal import overwriting
from ckpt.opened import Named, OpenedFile, OpenedState, OpenedVersion, settled
from ckpt.ops.register import model_name, register
from ckpt.ops.rename.plan import RenamePlan, expect_known, open_source
from ckpt.ops.rename.rule_files import RuleFile, write_rule_file
from ckpt.ops.rename.to_file import (
    Output,
    expect_output,
    expect_proportion,
    target_of,
    write_plan,
)
from ckpt.ops.rename.to_version import add_version, plan_record
from ckpt.refs import FileRef, parse_file_ref, parse_ref
from ckpt.registry.registry import Added, Registry
from ckpt.writing.checkpoint import Written


@dataclass(frozen=True, slots=True)
class Renamed:
    """What a rename did, or would do.

    Attributes:
        left_out: What the added version does not hold of the one before, a few words for each.
        saved: The rule file that was written.
        dropped: The opaque objects of the source that the result does not hold.
    """

    plan: RenamePlan
    written: Written | None = None
    added: Added | None = None
    left_out: tuple[str, ...] = ()
    saved: Path | None = None
    dropped: tuple[str, ...] = ()


def apply(
    plan: RenamePlan,
    *,
    registry: Registry | None = None,
    **output: Unpack[Output],
) -> Renamed:
    """Do what `plan_rename` planned; the arguments are those of `rename`.

    Raises:
        ConflictError: The checkpoint has other tensors than when it was planned, or another
            process renames it in place.
        UsageError: `out` already exists.
    """
    expect_known(output, Output.__optional_keys__)
    expect_output(output)
    registry = registry or Registry()
    with alone(plan.source, output), open_source(plan.source, registry) as opened:
        if list(opened.entries) != list(plan.entries):
            raise ConflictError(f"{plan.name}: changed after it was planned", hint="plan again")
        return carry_out(plan, opened, output, registry)


def carry_out(
    plan: RenamePlan,
    source: OpenedState,
    output: Output,
    registry: Registry,
    *,
    dry_run: bool = False,
) -> Renamed:
    """Like `apply`, with the checkpoint open; a dry run stops before anything is written.

    If it fits already, only a file or version that was asked for is written.
    """
    asks = output.get("out") or output.get("register_result") or output.get("opaque") == "drop"
    if plan.found and not plan.applied and not asks:
        return Renamed(plan)
    saved, opaque = output.get("save_rules"), output.get("opaque")
    if plan.undoes and saved is not None:
        raise UsageError("--undo has no rules to save")
    path, message = target_of(source, plan, output), output.get("message", "")
    if message and path is not None and not output.get("register_result"):
        raise UsageError("-m is for a version, and none is added", hint="--register  adds one")
    expect_proportion(source, plan, output)
    opened, dropped = settled(source, opaque)
    if dry_run:
        if plan.is_rename:
            opened.checkpoint.renamed({**plan.new_keys, **plan.aliases})  # may refuse
        return Renamed(plan, dropped=tuple(dropped))
    result = Renamed(plan, dropped=tuple(dropped))
    if path is not None:
        in_place = output.get("in_place", False)
        replace_out = in_place or output.get("replace_out", False)
        written = write_plan(
            opened, plan, path, replace_out=replace_out, in_place=in_place, opaque=opaque
        )
        result = replace(result, written=written)
    elif isinstance(opened, OpenedVersion):
        if opened is not source:
            raise UsageError(
                f"{opened.name}: a rename of a version keeps its objects",
                hint=f"ckpt export {opened.name} --drop-opaque -o NEW.pt  writes one without",
            )
        added, left_out = add_version(opened, plan, registry, opaque=opaque, message=message)
        result = replace(result, added=added, left_out=left_out)
    if saved is not None:
        name = f"rename of {plan.name}"
        write_rule_file(Path(saved), RuleFile(name, plan.applied, plan.entries, plan.tied))
        result = replace(result, saved=Path(saved))
    if output.get("register_result") and result.written is not None:
        result = replace(
            result, added=_into_registry(result.written, opened, plan, output, registry)
        )
    return result


@contextmanager
def alone(source: Named, output: Output, *, dry_run: bool = False) -> Iterator[None]:
    """Keep other processes from renaming the same file in place; links are refused later."""
    ref = parse_ref(source) if isinstance(source, str) else parse_file_ref(fspath(source))
    writes = output.get("in_place") and not dry_run
    path = ref.path if writes and isinstance(ref, FileRef) else None
    if path is None or not path.is_file() or path.is_symlink():
        yield
    else:
        with overwriting(path, is_start=safetensors.is_start):
            yield


def _into_registry(
    written: Written, opened: OpenedState, plan: RenamePlan, output: Output, registry: Registry
) -> Added:
    name = output.get("name")
    if not name:
        name = model_name(opened.path) if isinstance(opened, OpenedFile) else opened.version.model
    return register(
        written.ref,
        registry=registry,
        name=name,
        made_by=f"rename of {Path(plan.name).name}",
        message=output.get("message", ""),
        record={"plan": plan_record(plan)},
        opaque=output.get("opaque"),
    )
