"""Migrate a checkpoint: a rename by the rules of all migrations on the way to a class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Unpack

from ckpt.definitions import find_definition
from ckpt.errors import FitError, UsageError
from ckpt.migrate.chain import begin, that_find
from ckpt.migrate.folder import Place
from ckpt.migrate.graph import Way
from ckpt.migrate.schema import Schema, schema_of
from ckpt.opened import Named, OpenedState, OpenedVersion, as_typed
from ckpt.ops.migrate.new import place_of_definition
from ckpt.ops.rename.plan import Goal, expect_known, open_source, plan_opened
from ckpt.ops.rename.result import Renamed, alone, carry_out
from ckpt.ops.rename.rule_files import RuleFile
from ckpt.ops.rename.to_file import Output, expect_output
from ckpt.registry.registry import Registry
from ckpt.tensors import StateDict, TensorEntry

_FLOATS = ("float", "bfloat")  # how these dtypes begin


@dataclass(frozen=True, slots=True)
class Migrated:
    """What a migration of a checkpoint did, or would do.

    Attributes:
        source: The name of the checkpoint.
        definition: The class that the result fits.
        way: The migrations.
        renamed: The rename; None if it fitted already, and nothing was asked for.
    """

    source: str
    definition: str
    way: Way
    renamed: Renamed | None


def migrate(
    source: Named,
    to: str | None = None,
    *,
    arguments: Mapping[str, object] | None = None,
    by: str | None = None,
    enter: str | None = None,
    drop_optimizer: bool = False,
    dry_run: bool = False,
    registry: Registry | None = None,
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
    registry = registry or Registry()
    goal: Goal = {"drop_optimizer": drop_optimizer, "arguments": arguments, "check": to}
    with (
        alone(source, output, registry, dry_run=dry_run),
        open_source(source, registry, goal) as opened,
    ):
        text = to or _made_for(opened)
        definition = find_definition(text, arguments)
        name, wanted = as_typed(text, arguments), definition.state()
        place = place_of_definition(find_definition(by, arguments) if by else definition)
        way = way_to(opened, wanted, place, name=name, enter=enter)
        if not way.steps and not way.unwraps and not _asks(output):
            return Migrated(opened.name, name, way, None)
        rules = _rules(way, opened, wanted)
        goal["check"], goal["undo"] = text, way.back
        if not rules.rules:  # it fits, and a copy was asked for
            goal["to"] = text
        plan = plan_opened(opened, rules, goal, registry)
        done = carry_out(plan, opened, output, registry, dry_run=dry_run)
        return Migrated(opened.name, name, way, done)


def way_to(
    opened: OpenedState,
    wanted: StateDict,
    place: Place,
    *,
    name: str,
    enter: str | None = None,
) -> Way:
    """The way to a class from a checkpoint.

    Args:
        opened: The checkpoint.
        wanted: The class's state_dict.
        place: Where the migrations are.
        name: The class's name in messages.
        enter: The migration to begin with.

    Raises:
        FitError: There is none.
    """
    graph = place.graph()
    if enter is not None and enter not in (known := [it.name for it in graph.migrations]):
        raise UsageError(f"no migration {enter!r}", hint=f"there are {', '.join(known) or 'none'}")
    way = graph.way(schema_of(opened.state), schema_of(wanted), enter=enter)
    if way is None:
        there = f"{len(graph.migrations)} migrations in {place.folder}"
        raise FitError(
            f"{opened.name} does not fit {name}, and no way leads there by the {there}",
            hint=f"ckpt migrate new {name} --from {opened.name}  makes the one that is missing",
        )
    return way


def _made_for(opened: OpenedState) -> str:
    """The class that a version was trained for, or fitted when it was renamed."""
    record = opened.manifest.record if isinstance(opened, OpenedVersion) else {}
    recipe = record.get("training", {}).get("recipe")
    trained = recipe.get("model") if isinstance(recipe, dict) else None
    named = record.get("fits", trained)
    if not isinstance(named, str):
        raise UsageError(f"{opened.name}: name the class that it should fit", hint="--to DEF")
    return named


def _asks(output: Output) -> bool:
    return bool(output.get("out") or output.get("register_result") or output.get("in_place"))


def _rules(way: Way, opened: OpenedState, wanted: StateDict) -> RuleFile:
    """The rules of a rename, or what an undo of them needs."""
    if not way.back:
        start = begin(schema_of(opened.state))
        return RuleFile("", that_find(start.planned, way.rules))
    before = _in_dtype_of(opened, wanted.named)
    there = begin(Schema(tuple(before)))
    stored = {entry.key for entry in wanted.entries}
    tied = tuple(entry.key for entry in before if entry.key not in stored)
    source = [entry for entry in before if entry.key in stored]
    return RuleFile("", that_find(there.planned, way.rules), source, (*tied, *wanted.others))


def _in_dtype_of(opened: OpenedState, entries: Sequence[TensorEntry]) -> list[TensorEntry]:
    """Entries of a class, in the one floating dtype of a checkpoint, if it has just one."""
    floats = {it.dtype for it in opened.entries if it.dtype.startswith(_FLOATS)}
    if len(floats) != 1:
        return list(entries)
    (dtype,) = floats
    return [replace(it, dtype=dtype) if it.dtype.startswith(_FLOATS) else it for it in entries]
