"""One definition, compared with what it must load."""

from collections.abc import Mapping, Sequence
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
from ckpt.migrate.migration import write_migration
from ckpt.migrate.revision import PREFIX, Revision
from ckpt.ops.guard.result import GuardedClass, file_of
from ckpt.ops.guard.settings import Guarded
from ckpt.ops.guard.verdicts import Ask, verdicts_on
from ckpt.ops.guard.weights import Weights, snapshots_of, versions_of
from ckpt.registry.registry import Registry

Arguments = Mapping[str, object] | None


def of_weights(
    guarded: Guarded, folder: Path, arguments: Arguments, registry: Registry, *, fix: bool
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
    graph = place.graph() if place else None
    weights = [*versions_of(guarded, registry), *(snapshots_of(place, ref) if place else ())]
    with Builder(folder, seconds=guarded.seconds) as builder:
        try:
            described = builder.describe(guarded.definition, arguments)
            now = place_of(described.file, name_of(ref)) if described.file else None
            if now and now != place:  # a module's, or that of a class which the file imports
                weights += snapshots_of(now, ref)
                graph = None
            if not weights:
                raise _nothing(guarded, registry)
            return _judged(
                weights, described, now, graph, fix=fix,
                ask=lambda state: builder.ask(guarded.definition, state, arguments),
            )  # fmt: skip
        except BuildError as error:
            return GuardedClass(ref, file, problem=str(error), hint=error.hint)


def _judged(
    weights: Sequence[Weights],
    described: Described,
    place: Place | None,
    graph: Graph | None = None,
    *,
    ask: Ask,
    fix: bool,
) -> GuardedClass:
    """The verdicts on a class, after the migrations that it lacks were written if `fix` says so.

    The newest form first: migrations that are there may lead to it from older ones.
    """
    written: list[Path] = []
    before = len(weights) + 1
    while True:
        graph = graph or (place.graph() if place else Graph(()))
        verdicts = verdicts_on(weights, described, place, graph, ask)
        drafts = [it.draft for it in verdicts if it.draft]
        broken = sum(it.broken for it in verdicts)
        if not fix or place is None or not drafts or broken >= before:
            return GuardedClass(
                described.ref,
                described.file,
                verdicts,
                migrations=place.folder if place else None,
                written=tuple(written),
            )
        written.append(write_migration(place.folder, drafts[-1]))
        before, graph = broken, None


def _nothing(guarded: Guarded, registry: Registry) -> UsageError:
    name = guarded.definition
    why = "and no version was made with it" if registry.exists else "and there is no registry"
    if guarded.models is not None:
        why = "and its models have no versions"
    return UsageError(
        f"{name}: nothing to load: it has no snapshot, {why}",
        hint=f"ckpt guard --snapshot {name}  writes a snapshot\n"
        "ckpt guard --against git:origin/main  compares it with another revision\n"
        f'guard = [{{definition = "{name}", models = ["NAME"]}}]  in pyproject.toml names models',
    )


def of_revision(
    guarded: Guarded, folder: Path, arguments: Arguments, revision: Revision, *, fix: bool
) -> GuardedClass:
    """A definition, compared with itself at another revision.

    Raises:
        MigrationError: A migration's file is invalid.
    """
    ref = as_called(guarded.definition, arguments)
    file = file_of(ref, folder)
    if file and file.is_file():
        place_of(file, name_of(ref)).graph()  # an invalid file is an error before anything runs
    with (
        Builder(revision.folder, seconds=guarded.seconds, revision=revision) as then,
        Builder(folder, seconds=guarded.seconds) as now,
    ):
        try:
            before, after = (_described(it, guarded, arguments) for it in (then, now))
            if before is None:
                after = after or now.describe(guarded.definition, arguments)
                return GuardedClass(ref, after.file, remark=f"is new since {revision.name}")
            if after is None:
                return GuardedClass(ref, file, remark=f"was removed since {revision.name}")
            return _judged(
                [Weights(revision.name, before.state, source=f"{PREFIX}{revision.name}")],
                after,
                place_of(after.file, name_of(ref)) if after.file else None,
                ask=lambda state: now.ask(guarded.definition, state, arguments),
                fix=fix,
            )
        except BuildError as error:
            return GuardedClass(ref, file, problem=str(error), hint=error.hint)


def _described(builder: Builder, guarded: Guarded, arguments: Arguments) -> Described | None:
    try:
        return builder.describe(guarded.definition, arguments)
    except MissingDefinitionError:
        return None
