"""One definition, compared with what it must load."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ckpt.errors import UsageError
from ckpt.migrate.described import (
    Builder,
    BuildError,
    Described,
    MissingDefinitionError,
    as_called,
    name_of,
)
from ckpt.migrate.folder import Place, place_of
from ckpt.migrate.graph import Graph
from ckpt.migrate.revision import Revision
from ckpt.ops.guard.result import GuardedClass, file_of
from ckpt.ops.guard.settings import Guarded
from ckpt.ops.guard.verdicts import verdicts_on
from ckpt.ops.guard.weights import Weights, snapshots_of, versions_of
from ckpt.registry.registry import Registry

_NO_MIGRATIONS = Graph(())

Arguments = Mapping[str, object] | None


def of_weights(
    guarded: Guarded, folder: Path, arguments: Arguments, registry: Registry
) -> GuardedClass:
    """A definition, compared with its versions and snapshots.

    Migrations and snapshots are read before any code of the definition runs, if its file is known.

    Raises:
        MigrationError: One of their files is invalid.
        UsageError: There is nothing to compare it with.
    """
    ref = as_called(guarded.definition, arguments)
    file = file_of(ref, folder)
    place = place_of(file, name_of(ref)) if file else None
    graph = place.graph() if place else _NO_MIGRATIONS
    weights = [*versions_of(guarded, registry), *(snapshots_of(place, ref) if place else ())]
    found = GuardedClass(ref, file, place=place)
    with Builder(folder, seconds=guarded.seconds) as builder:
        try:
            described = builder.describe(guarded.definition, arguments)
            now = place_of(described.file, name_of(ref)) if described.file else None
            if now and now != place:  # a module's, or a class that the file imports
                weights += snapshots_of(now, ref)
                place, graph = now, now.graph()
            if not weights:
                raise _nothing(guarded, registry)
            verdicts = verdicts_on(
                weights,
                described,
                graph,
                lambda state: builder.ask(guarded.definition, state, arguments),
            )
        except BuildError as error:
            return replace(found, problem=str(error), hint=error.hint)
    return GuardedClass(ref, described.file, verdicts, place=place, described=described)


def _nothing(guarded: Guarded, registry: Registry) -> UsageError:
    name = guarded.definition
    why = "and there is no registry" if not registry.exists else "and no version was made with it"
    if guarded.models is not None:
        why = "and its models have no versions"
    return UsageError(
        f"{name}: nothing to load: it has no snapshot, {why}",
        hint=f"ckpt guard --snapshot {name}  writes a snapshot\n"
        "ckpt guard --against git:origin/main  compares it with another revision\n"
        f'guard = [{{definition = "{name}", models = ["NAME"]}}]  in pyproject.toml names models',
    )


def of_revision(
    guarded: Guarded, folder: Path, arguments: Arguments, revision: Revision
) -> GuardedClass:
    """A definition, compared with itself at another revision.

    Raises:
        MigrationError: A migration's file is invalid.
    """
    ref = as_called(guarded.definition, arguments)
    file = file_of(ref, folder)
    place = place_of(file, name_of(ref)) if file and file.is_file() else None
    graph = place.graph() if place else _NO_MIGRATIONS
    found = GuardedClass(ref, file, place=place)
    with (
        Builder(revision.folder, seconds=guarded.seconds, revision=revision) as then,
        Builder(folder, seconds=guarded.seconds) as now,
    ):
        try:
            before, after = (_described(it, guarded, arguments) for it in (then, now))
            if before is None and after is None:
                now.describe(guarded.definition, arguments)
            if after is None:
                return replace(found, remark=f"was removed since {revision.name}")
            found = GuardedClass(ref, after.file, place=place, described=after)
            if before is None:
                return replace(found, remark=f"is new since {revision.name}")
            at = place_of(after.file, name_of(ref)) if after.file else None
            if at and at != place:
                place, graph = at, at.graph()
            verdicts = verdicts_on(
                [Weights(revision.name, before.state)],
                after,
                graph,
                lambda state: now.ask(guarded.definition, state, arguments),
            )
        except BuildError as error:
            return replace(found, problem=str(error), hint=error.hint)
    return replace(found, verdicts=verdicts, place=place)


def _described(builder: Builder, guarded: Guarded, arguments: Arguments) -> Described | None:
    try:
        return builder.describe(guarded.definition, arguments)
    except MissingDefinitionError:
        return None
