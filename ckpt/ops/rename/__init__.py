"""Rename: make a checkpoint with other keys, and other tensors where rules make some.

In two steps: `plan_rename` works everything out and checks it, `apply` writes.
`rename` does both. For a file it writes a new file, for a version it adds the next version.
Where only names change no tensor is decoded: a file's tensors are copied as they are, a version's
are not even read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ckpt.errors import UsageError
from ckpt.formats.opaque import OpaqueWord
from ckpt.opened import Named
from ckpt.ops.rename.plan import RenamePlan, open_source, plan_rename
from ckpt.ops.rename.result import Renamed, alone, apply, carry_out
from ckpt.ops.rename.rule_order import RuleOptions, Rules
from ckpt.ops.rename.to_file import Output
from ckpt.registry.registry import Registry

__all__ = ["RenamePlan", "Renamed", "RuleOptions", "apply", "plan_rename", "rename"]


def rename(
    source: Named,
    rules: Rules = (),
    *,
    registry: Registry | None = None,
    check: str | None = None,
    arguments: Mapping[str, object] | None = None,
    to: Named | None = None,
    accept_likely: bool = False,
    prove_from: str | None = None,
    prove_input: Sequence[int] | None = None,
    out: Path | str | None = None,
    replace_out: bool = False,
    in_place: bool = False,
    undo: bool = False,
    save_rules: Path | str | None = None,
    register_result: bool = False,
    name: str | None = None,
    opaque: OpaqueWord | None = None,
    dry_run: bool = False,
) -> Renamed:
    """Rename the keys of `source` by rules: plan it, and apply the plan.

    Args:
        source: A file or a version.
        rules: ``conv->embed`` and the like, key maps and operations, applied first to last;
            or a dict of old key to new.
        registry: Where versions are looked up and added.
        check: A definition that the result must fit strictly.
        arguments: The arguments of that definition.
        to: A definition, file or version that the result must fit strictly; the rules that lead
            there are found, and follow `rules`.
        accept_likely: Accept the best guess for ambiguous keys.
        prove_from: The definition that `source` fits; it and the new one, of `to` or `check`, are
            run and must give the same output.
        prove_input: The shape of their input; None derives it.
        out: The file to write; for a file, by default, ``old.renamed.pt`` beside it; for a
            version only if given, and then no version is added.
        replace_out: Whether to replace `out` if it exists.
        in_place: Replace the file itself, atomically.
        undo: Give the old keys back: for a version those of its own rename, for a file those
            of `rules`, a rule file that `save_rules` wrote.
        save_rules: A rule file to write, which can be applied again and undone.
        register_result: Register the file that is written as the next version of a model.
        name: That model; None takes the version's, or the file's name.
        opaque: What becomes of objects of unknown classes; see `ckpt.ops.register`.
        dry_run: Stop after the plan and the checks.

    Raises:
        PlanError: The rules do not make a valid plan for these keys.
        FitError: The result would not fit `check` or `to`.
        UsageError: There is nothing to do, or `out` already exists.
        ConflictError: Another process renames the same file in place.
    """
    if save_rules is not None and undo:
        raise UsageError("--undo has no rules to save")
    registry = registry or Registry()
    output = Output(
        None if out is None else Path(out),
        replace_out,
        in_place,
        None if save_rules is None else Path(save_rules),
        register_result,
        name,
        opaque,
    )
    with alone(source, output), open_source(source, registry) as opened:
        plan = plan_rename(
            opened,
            rules,
            to=to,
            accept_likely=accept_likely,
            check=check,
            arguments=arguments,
            undo=undo,
            registry=registry,
        )
        if prove_from is not None:
            from ckpt.ops.rename.proof import prove

            new = check if to is None else to
            proof = prove(
                plan,
                source,
                prove_from,
                new,
                arguments=arguments,
                shape=prove_input,
                registry=registry,
            )
            plan = replace(plan, proof=proof)
        return carry_out(plan, opened, output, registry, dry_run=dry_run)
