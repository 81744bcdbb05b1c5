"""The way of a checkpoint to a class, and the rules that take it there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from ckpt.definitions import find_definition
from ckpt.errors import FitError, UsageError
from ckpt.migrate.chain import begin, that_find
from ckpt.migrate.folder import place_of_definition
from ckpt.migrate.schema import Schema, schema_of
from ckpt.migrate.way import Way
from ckpt.opened import as_typed
from ckpt.opened.states import OpenedState, OpenedVersion
from ckpt.ops.rename.result import Renamed
from ckpt.ops.rename.rule_files import RuleFile
from ckpt.ops.rename.to_file import Output
from ckpt.printed import Printed
from ckpt.tensors import StateDict, TensorEntry

_FLOATS = ("float", "bfloat")  # how these dtypes begin


@dataclass(frozen=True, slots=True, repr=False)
class Migrated(Printed):
    """What a migration of a checkpoint did, or would do.

    Attributes:
        source: The name of the checkpoint.
        definition: The class that the result fits.
        way: The migrations.
        renamed: The rename; None if it fitted already, and nothing was asked for.
    """

    VIEW: ClassVar = "ckpt.show.migrate:migrated_text"

    source: str
    definition: str
    way: Way
    renamed: Renamed | None


def way_to(
    opened: OpenedState,
    to: str,
    arguments: Mapping[str, object] | None,
    *,
    by: str | None = None,
    enter: str | None = None,
) -> tuple[Way, StateDict]:
    """The way to a class from a checkpoint, and the class's state_dict.

    Args:
        opened: The checkpoint.
        to: The class.
        arguments: The arguments of the class.
        by: The class whose migrations are used, if not `to`.
        enter: The migration to begin with.

    Raises:
        FitError: There is none.
    """
    definition = find_definition(to, arguments)
    place = place_of_definition(find_definition(by, arguments) if by else definition)
    graph, wanted = place.graph(), definition.state()
    if enter is not None and enter not in (known := [it.name for it in graph.migrations]):
        raise UsageError(f"no migration {enter!r}", hint=f"there are {', '.join(known) or 'none'}")
    mine, theirs = schema_of(opened.state), schema_of(wanted)
    way = graph.way(mine, theirs, enter=enter)
    if way is None:
        name = as_typed(to, arguments)
        refusal = graph.refusal(mine, theirs, name=opened.name, owner=name)
        hint = f"to make the one that is missing:  ckpt migrate new {name} --from {opened.name}"
        raise FitError(f"{refusal}", hint=refusal.hint or hint)
    return way, wanted


def made_for(opened: OpenedState) -> str:
    """The class that a version was trained for, or fitted when it was renamed."""
    record = opened.manifest.record if isinstance(opened, OpenedVersion) else {}
    recipe = record.get("training", {}).get("recipe")
    trained = recipe.get("model") if isinstance(recipe, dict) else None
    named = record.get("fits", trained)
    if not isinstance(named, str):
        raise UsageError(f"{opened.name}: name the class that it should fit", hint="--to DEF")
    return named


def asks(output: Output) -> bool:
    """Whether something is to be written although the checkpoint fits."""
    return bool(output.get("out") or output.get("register_result") or output.get("in_place"))


def rules_of(way: Way, opened: OpenedState, wanted: StateDict) -> RuleFile:
    """The rules of a rename; for the way back, what an undo of them needs."""
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
