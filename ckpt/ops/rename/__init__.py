"""Rename: make a checkpoint with other keys, and other tensors where rules make some.

In two steps: `plan_rename` works everything out and checks it, `apply` writes.
`rename` does both. For a file it writes a new file, for a version it adds the next version.
Where only names change no tensor is decoded: a file's tensors are copied as they are, a version's
are not even read.
"""

from pathlib import Path
from typing import Unpack

from ckpt.errors import PlanError
from ckpt.opened import Named
from ckpt.ops.rename.goal import Goal, expect_known
from ckpt.ops.rename.plan import (
    RenamePlan,
    UnfitError,
    open_source,
    plan_opened,
    plan_rename,
)
from ckpt.ops.rename.result import Renamed, alone, apply, carry_out
from ckpt.ops.rename.rule_files import write_open_rules
from ckpt.ops.rename.rule_order import RuleOptions, Rules, in_order
from ckpt.ops.rename.to_file import Output, expect_output
from ckpt.registry.registry import Registry

__all__ = [
    "RenameOptions",
    "RenamePlan",
    "Renamed",
    "RuleOptions",
    "UnfitError",
    "apply",
    "plan_rename",
    "rename",
]


class RenameOptions(Goal, Output, total=False):
    """Where a rename leads, and where its result goes.

    Attributes:
        dry_run: Stop after the plan and the checks.
    """

    dry_run: bool


def rename(
    source: Named,
    rules: Rules = (),
    *,
    registry: Registry | None = None,
    **options: Unpack[RenameOptions],
) -> Renamed:
    """Rename the keys of `source` by rules: plan it, and apply the plan.

    Args:
        source: A file or a version.
        rules: ``conv->embed`` and the like, key maps and operations, applied first to last;
            or a dict of old key to new.
        registry: Where versions are looked up and added.
        **options: See `Goal`, `Output` and `RenameOptions`.

    Raises:
        PlanError: The rules do not make a valid plan for these keys.
        FitError: The result would not fit `check` or `to`.
        UsageError: There is nothing to do, or `out` already exists.
        ConflictError: Another process renames the same file in place.
    """
    expect_known(options, RenameOptions.__optional_keys__)
    expect_output(options)
    registry = registry or Registry()
    dry_run = options.get("dry_run", False)
    with (
        alone(source, options, registry, dry_run=dry_run),
        open_source(source, registry, options) as opened,
    ):
        try:
            plan = plan_opened(opened, rules, options, registry)
        except PlanError as error:
            if (path := options.get("save_rules")) is not None and not dry_run:
                raise _saved(error, rules, Path(path)) from error
            raise
        return carry_out(plan, opened, options, registry, dry_run=dry_run)


def _saved(error: PlanError, rules: Rules, path: Path) -> PlanError:
    """Save what is known of a mapping that is in part a guess; the error with where it is."""
    from ckpt.infer.find_rules import UnsettledError, known_rules, open_questions

    if not isinstance(error, UnsettledError):
        return error
    found = error.found
    known = [*in_order(rules).rules, *known_rules(found)]
    write_open_rules(path, f"rename of {found.source}", known, open_questions(found))
    hint = f"saved the known rules in {path}, with what is open as comments\n{error.hint}"
    return UnsettledError(str(error), found, hint)
