"""Rename: make a checkpoint with other keys, and other tensors where rules make some.

In two steps: `plan_rename` works everything out and checks it, `apply` writes.
`rename` does both. For a file it writes a new file, for a version it adds the next version.
Where only names change no tensor is decoded: a file's tensors are copied as they are, a version's
are not even read.
"""

from typing import Unpack

from ckpt.opened import Named
from ckpt.ops.rename.plan import (
    Goal,
    RenamePlan,
    UnfitError,
    expect_known,
    open_source,
    plan_opened,
    plan_rename,
)
from ckpt.ops.rename.result import Renamed, alone, apply, carry_out
from ckpt.ops.rename.rule_order import RuleOptions, Rules
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
        plan = plan_opened(opened, rules, options, registry)
        return carry_out(plan, opened, options, registry, dry_run=dry_run)
