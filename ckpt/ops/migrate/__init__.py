"""Migrate: make migrations, try them, and rename a checkpoint through them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Unpack

from ckpt.migrate.schema import other_numbers
from ckpt.migrate.way import Way
from ckpt.opened import as_typed
from ckpt.opened.altered import numbered
from ckpt.opened.named import Named
from ckpt.opened.states import OpenedState
from ckpt.ops.migrate.check import Finding, Listed, check_migrations, list_migrations
from ckpt.ops.migrate.export import Exported, export_migrations
from ckpt.ops.migrate.new import Drafted, new_migration
from ckpt.ops.migrate.run import Migrated, asks, made_for, rules_of, way_to
from ckpt.ops.rename.goal import Goal, expect_known
from ckpt.ops.rename.opening import open_source
from ckpt.ops.rename.plan import RenamePlan, plan_opened
from ckpt.ops.rename.result import alone, carry_out
from ckpt.ops.rename.to_file import Output, expect_output
from ckpt.registry.registry import InRegistry, Registry
from ckpt.tensors import StateDict

__all__ = [
    "Drafted",
    "Exported",
    "Finding",
    "Listed",
    "Migrated",
    "check_migrations",
    "export_migrations",
    "list_migrations",
    "migrate",
    "new_migration",
]


def migrate(
    source: Named,
    to: str | None = None,
    *,
    arguments: Mapping[str, object] | None = None,
    by: str | None = None,
    enter: str | None = None,
    drop_optimizer: bool = False,
    dry_run: bool = False,
    registry: InRegistry | None = None,
    **output: Unpack[Output],
) -> Migrated:
    """Make a checkpoint that fits a class, by the migrations of the class.

    For a file it writes a new file, for a version it adds the next version, as `rename` does.

    Args:
        source: A file or a version.
        to: The class; for a version, by default, the one that it was made for.
        arguments: The arguments of the class.
        by: The class whose migrations are used, if not `to`: for an older form of it elsewhere.
        enter: The migration to begin with, where the keys do not tell.
        drop_optimizer: Leave the file's optimizers out.
        dry_run: Stop after the plan and the checks.
        registry: Where versions are looked up and added.
        **output: See `Output`.

    Raises:
        FitError: No migrations lead to the class.
        AmbiguousEntryError: Two ways lead there.
        MigrationError: A migration's file is invalid.
    """
    expect_known(output, Output.__optional_keys__)
    expect_output(output)
    registry = Registry.of(registry)
    goal: Goal = {"drop_optimizer": drop_optimizer, "arguments": arguments, "check": to}
    with (
        alone(source, output, registry, dry_run=dry_run),
        open_source(source, registry, goal) as opened,
    ):
        text = to or made_for(opened)
        way, wanted = way_to(opened, text, arguments, by=by, enter=enter)
        done = Migrated(opened.name, as_typed(text, arguments), way, None)
        if not way.steps and not way.unwraps and not asks(output):
            return done
        goal["check"], goal["undo"] = text, way.back
        plan, opened = _planned(opened, way, wanted, goal, registry)
        return replace(done, renamed=carry_out(plan, opened, output, registry, dry_run=dry_run))


def _planned(
    opened: OpenedState, way: Way, wanted: StateDict, goal: Goal, registry: Registry
) -> tuple[RenamePlan, OpenedState]:
    """The rename that a way is, and the checkpoint with the numbers of the class."""
    rules = rules_of(way, opened, wanted)
    versions = opened.state.versions
    numbers = other_numbers(versions, wanted.versions) if way.steps else {}
    former = other_numbers(wanted.versions, versions) if numbers else {}
    opened = numbered(opened, numbers)
    if not rules.rules:  # it fits, and a copy was asked for
        goal["to"] = goal["check"]
    plan = plan_opened(opened, rules, goal, registry)
    return replace(plan, numbers=numbers, former=former), opened
