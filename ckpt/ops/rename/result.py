"""The result of a rename: apply a plan, and write a file, add a version, or both."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import fspath
from pathlib import Path

from ckpt.errors import ConflictError, UsageError
from ckpt.formats.opaque import OpaqueWord
from ckpt.io.journal import overwriting
from ckpt.opened import Named, OpenedFile, OpenedState, OpenedVersion, settled
from ckpt.ops.register import model_name, register
from ckpt.ops.rename.plan import RenamePlan, open_source
from ckpt.ops.rename.rule_files import RuleFile, write_rule_file
from ckpt.ops.rename.to_file import Output, target_of, write_plan
from ckpt.ops.rename.to_version import add_version, plan_record
from ckpt.refs import FileRef, parse_file_ref, parse_ref
from ckpt.registry.registry import Added, Registry
from ckpt.writing.checkpoint import Written


@dataclass(frozen=True, slots=True)
class Renamed:
    """What a rename did, or would do.

    Attributes:
        plan: What becomes of every tensor.
        written: The file that was written, if one was.
        added: The version that was added, if one was.
        left_out: What that version does not hold of the one before, a few words for each.
        saved: The rule file that was written, if one was.
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
    out: Path | str | None = None,
    replace_out: bool = False,
    in_place: bool = False,
    save_rules: Path | str | None = None,
    register_result: bool = False,
    name: str | None = None,
    opaque: OpaqueWord | None = None,
    registry: Registry | None = None,
) -> Renamed:
    """Do what `plan_rename` planned; the arguments are those of `rename`.

    Raises:
        ConflictError: The checkpoint has other tensors than when it was planned, or another
            process renames it in place.
        UsageError: `out` already exists.
    """
    output = Output(
        None if out is None else Path(out),
        replace_out,
        in_place,
        None if save_rules is None else Path(save_rules),
        register_result,
        name,
        opaque,
    )
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
    """Like `apply`, with the checkpoint open; a dry run stops before anything is written."""
    path = target_of(source, plan, output)
    opened, dropped = settled(source, output.opaque)
    if dry_run:
        if plan.is_rename:
            opened.checkpoint.renamed({**plan.new_keys, **plan.aliases})  # may refuse
        return Renamed(plan, dropped=tuple(dropped))
    result = Renamed(plan, dropped=tuple(dropped))
    if path is not None:
        replace_out = output.replace_out or output.in_place
        written = write_plan(
            opened,
            plan,
            path,
            replace_out=replace_out,
            in_place=output.in_place,
            opaque=output.opaque,
        )
        result = replace(result, written=written)
    elif isinstance(opened, OpenedVersion):
        if opened is not source:
            raise UsageError(
                f"{opened.name}: a rename of a version keeps its objects",
                hint=f"ckpt export {opened.name} --drop-opaque -o NEW.pt  writes one without",
            )
        added, left_out = add_version(opened, plan, registry, opaque=output.opaque)
        result = replace(result, added=added, left_out=left_out)
    if output.save_rules is not None:
        name = f"rename of {plan.name}"
        write_rule_file(output.save_rules, RuleFile(name, plan.applied, plan.entries, plan.tied))
        result = replace(result, saved=output.save_rules)
    if output.register_result and result.written is not None:
        result = replace(result, added=_registered(result.written, opened, plan, output, registry))
    return result


@contextmanager
def alone(source: Named, output: Output) -> Iterator[None]:
    """Keep other processes from renaming the same file in place; links are refused later."""
    ref = parse_ref(source) if isinstance(source, str) else parse_file_ref(fspath(source))
    path = ref.path if output.in_place and isinstance(ref, FileRef) else None
    if path is None or not path.is_file() or path.is_symlink():
        yield
    else:
        with overwriting(path):
            yield


def _registered(
    written: Written, opened: OpenedState, plan: RenamePlan, output: Output, registry: Registry
) -> Added:
    own = model_name(opened.path) if isinstance(opened, OpenedFile) else opened.version.model
    return register(
        written.ref,
        registry=registry,
        name=output.name or own,
        made_by=f"rename of {Path(plan.name).name}",
        record={"plan": plan_record(plan)},
        opaque=output.opaque,
    )
