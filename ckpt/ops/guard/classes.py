"""One definition, compared with what it must load."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote

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
from ckpt.ops.guard.earlier import broken_ways, likely_former
from ckpt.ops.guard.result import GuardedClass, file_of
from ckpt.ops.guard.settings import Guarded, settings_for
from ckpt.ops.guard.verdicts import Ask, Verdict, verdicts_on
from ckpt.ops.guard.weights import Weights, snapshots_of, versions_of
from ckpt.registry.registry import Registry
from ckpt.rules.document import rules_document

Arguments = Mapping[str, object] | None
_PROGRAM = "ckpt.ops.guard.child"  # not imported: a module that is run should not be
_PROOF_SECONDS = 1200.0  # both classes run some thirty times


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
    for former in guarded.formerly or ():
        if was := file_of(former, folder):
            weights += snapshots_of(place_of(was, name_of(former)), former)
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
    proved: Callable[[Verdict], Verdict] = lambda verdict: verdict,
) -> GuardedClass:
    """The verdicts on a class, after the migrations that it lacks were written if `fix` says so.

    The newest form first: migrations that are there may lead to it from older ones. A draft is
    `proved` before it is written.
    """
    written: list[Path] = []
    before = len(weights) + 1
    while True:
        graph = graph or (place.graph() if place else Graph(()))
        verdicts = verdicts_on(weights, described, place, graph, ask)
        if fix:
            verdicts = tuple(proved(it) if it.draft else it for it in verdicts)
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


def _proved(verdict: Verdict, guarded: Guarded, arguments: Arguments, builder: Builder) -> Verdict:
    """A verdict whose draft says how running both classes checked it; without one if they differ.

    Raises:
        BuildError: The classes crash, or take too long.
    """
    definition, draft, weights = guarded.definition, verdict.draft, verdict.weights[0]
    assert draft is not None
    answer = builder.answer(
        "prove", definition, arguments, seconds=_PROOF_SECONDS, old_seconds=guarded.seconds,
        old=weights.source, rules=rules_document(draft.rules),
    )  # fmt: skip
    if "differs" in answer:
        command = f"ckpt migrate new {as_called(definition, arguments)} --from {weights.source}"
        reason = f"{answer['differs']}; to write it all the same:  {command} --no-prove"
        return replace(verdict, draft=None, undrafted=reason)
    return replace(verdict, draft=replace(draft, checked=replace(draft.checked, how=answer["how"])))


def _nothing(guarded: Guarded, registry: Registry) -> UsageError:
    name, listed = guarded.definition, guarded.models is not None
    why = "and no version was made with it" if registry.exists else "and there is no registry"
    if listed:
        why = "and its models have no versions"
    models = [] if listed else [*registry.index().models.values()]
    steps = [
        *settings_for(name, [model.name for model in models if model.versions]),
        "to keep loading the keys that it has now:",
        f"ckpt guard --snapshot {quote(name)}",
        "to compare it with another revision:",
        f"ckpt guard {quote(name)} --against git:origin/main",
    ]
    return UsageError(f"{name}: nothing to load: it has no snapshot, {why}", hint="\n".join(steps))


def of_revision(
    guarded: Guarded,
    folder: Path,
    arguments: Arguments,
    revision: Revision,
    gone: Sequence[str],
    *,
    fix: bool,
) -> GuardedClass:
    """A definition, compared with itself at another revision, or with what it was called there.

    Args:
        guarded: The definition.
        folder: Where its path begins.
        arguments: Its arguments.
        revision: The revision.
        gone: Definitions that were guarded there, and are not any more.
        fix: Write the migration that it lacks.

    Raises:
        MigrationError: A migration's file is invalid.
    """
    ref = as_called(guarded.definition, arguments)
    file = file_of(ref, folder)
    if file and file.is_file():
        place_of(file, name_of(ref)).graph()  # an invalid file is an error before anything runs
    with (
        Builder(revision.folder, seconds=guarded.seconds, revision=revision) as then,
        Builder(folder, seconds=guarded.seconds, program=_PROGRAM) as now,
    ):
        before: Described | None = None
        now.begin()
        try:
            before, former = _at_revision(guarded, arguments, then, now, gone)
            after = now.describe(guarded.definition, arguments)
        except MissingDefinitionError as error:
            hint = error.hint
            if before is not None:
                hint = f"it was there at {revision.name}: guard its new name, or remove it here too"
            return GuardedClass(ref, file, problem=str(error), hint=hint)
        except BuildError as error:
            return GuardedClass(ref, file, problem=str(error), hint=error.hint)
        if before is None:
            return GuardedClass(ref, after.file, remark=f"is new since {revision.name}")
        place = place_of(after.file, name_of(ref)) if after.file else None
        found = _judged(
            [_weights_of(before, former, revision)], after, place,
            ask=lambda state: now.ask(guarded.definition, state, arguments), fix=fix,
            proved=lambda verdict: _proved(verdict, guarded, arguments, now),
        )  # fmt: skip
        lost = _lost(before, after, place, revision)
        return replace(found, verdicts=(*found.verdicts, *lost), former=former)


def _lost(
    before: Described, after: Described, place: Place | None, revision: Revision
) -> tuple[Verdict, ...]:
    """The verdicts on what loaded through migrations at the revision, and no longer does."""
    if place is None or before.file is None:
        return ()
    return tuple(broken_ways(before, place_of(before.file, before.name), after, place, revision))


def _weights_of(before: Described, former: str | None, revision: Revision) -> Weights:
    """The state_dict of a class as a revision has it."""
    source = f"{PREFIX}{revision.name}"
    if former is None:
        return Weights(revision.name, before.state, source=source)
    return Weights(f"{former} at {revision.name}", before.state, source=f"{source}:{former}")


def _at_revision(
    guarded: Guarded, arguments: Arguments, then: Builder, now: Builder, gone: Sequence[str]
) -> tuple[Described | None, str | None]:
    """A definition as a revision has it, and the name that it has there if that is another one.

    Raises:
        BuildError: It may be any of several.
    """
    before = _described(then, guarded.definition, arguments)
    if before is not None:
        return before, None
    if guarded.formerly is not None:
        likely = [it for it in guarded.formerly if _described(then, it, arguments)]
    else:
        absent = [it for it in gone if _described(now, it, arguments) is None]
        likely = likely_former(guarded.definition, absent)
    if len(likely) > 1:
        raise BuildError(
            f"{guarded.definition}: new, and may be {' or '.join(likely)}, which are gone",
            hint=f'guard = [{{definition = "{guarded.definition}", formerly = ["{likely[0]}"]}}]  '
            "says which one it was; formerly = []  says that it was none",
        )
    return (_described(then, likely[0], arguments), likely[0]) if likely else (None, None)


def _described(builder: Builder, definition: str, arguments: Arguments) -> Described | None:
    try:
        return builder.describe(definition, arguments)
    except MissingDefinitionError:
        return None
