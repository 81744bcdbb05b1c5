"""New migration: the rules from an old form of a class to its present one, as a file beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

from ckpt.definitions import find_definition
from ckpt.errors import CkptError, FitError, UsageError
from ckpt.infer.find_rules import rules_between
from ckpt.infer.settled import FoundRules, expect_companions, expect_settled
from ckpt.migrate.chain import begin, problem_of
from ckpt.migrate.chain import ran as run_rules
from ckpt.migrate.described import USUAL_SECONDS
from ckpt.migrate.fold import COUNTER, Folded, marked, template_of
from ckpt.migrate.folder import Place, place_of_definition
from ckpt.migrate.graph import Graph
from ckpt.migrate.migration import (
    Checked,
    Migration,
    MigrationError,
    free_name,
    write_migration,
)
from ckpt.migrate.schema import NUMBER, FoldedSchema, Schema, differing, fold_all, schema_of
from ckpt.opened import opened_definition
from ckpt.opened.named import Named
from ckpt.opened.states import Opened, OpenedDefinition
from ckpt.ops.migrate.old_form import old_form
from ckpt.ops.migrate.proving import Ran, run_both
from ckpt.ops.rename.rule_order import Rules, in_order
from ckpt.printed import Printed
from ckpt.prove.specs import InputSpec
from ckpt.refs import several
from ckpt.registry.registry import InRegistry, Registry
from ckpt.rules.expressions import sources_of
from ckpt.rules.planned import Planned, Rule
from ckpt.tensors import TensorEntry


@dataclass(frozen=True, slots=True, repr=False)
class Drafted(Printed):
    """A new migration.

    Attributes:
        migration: The migration.
        found: How its rules were found; None if they were given.
        depths: Why it would fail for a class with more or fewer blocks; None if it would not.
        ran: What running both classes showed; None if that was not asked for.
        path: Its file; None if nothing was written.
    """

    VIEW: ClassVar = "ckpt.show.migrate:drafted_text"

    migration: Migration
    found: FoundRules | None
    depths: str | None
    ran: Ran | None = None
    path: Path | None = None

    def write(self, folder: Path) -> Self:
        """The same, written to a new file of a folder."""
        return replace(self, path=write_migration(folder, self.migration))


def new_migration(
    definition: str,
    old: Named,
    rules: Rules = (),
    *,
    message: str = "",
    arguments: Mapping[str, object] | None = None,
    also: str | Sequence[str] = (),
    accept_ambiguous: bool = False,
    prove: bool = True,
    inputs: str | InputSpec | Sequence[InputSpec | str] = (),
    seconds: float = USUAL_SECONDS,
    run_stored: bool = False,
    dry_run: bool = False,
    registry: InRegistry | None = None,
) -> Drafted:
    """Make the migration from an old form of a class to the class as it is now.

    Args:
        definition: The class.
        old: A checkpoint of the old form, a version, or the old class; ``git:REV`` is the class
            as a revision has it.
        rules: How the keys changed; what they do not settle is inferred.
        message: What changed; its words name the file.
        arguments: The arguments of the class.
        also: Other configurations of the class, ``net.py:Net(bias=False)``: keys that only some of
            them have are optional.
        accept_ambiguous: Accept the best guess for ambiguous keys.
        prove: Run both classes where the old one is at hand, and refuse if their outputs differ.
            That of a version is, if a commit below HEAD has its source.
        inputs: What to run them on, e.g. ``1x3x224x224``; by default derived from the old class.
        seconds: How long the old class may take to build, where another process builds it.
        run_stored: Run the source that a version stores even if no commit has it.
        dry_run: Write nothing.
        registry: Where versions are looked up.

    Raises:
        UsageError: It fits already, or migrations lead there already.
        PlanError: A key is ambiguous, or the rules do not lead to the class.
        BuildError: The old class cannot be built, or takes too long.
        DefinitionError: A class does not run on `inputs`.
    """
    new = opened_definition(definition, arguments)
    present, place = new.definition, place_of_definition(new.definition)
    registry = Registry.of(registry)
    with old_form(
        old, definition, arguments, registry, run_stored=run_stored, seconds=seconds
    ) as form:
        opened = form.opened
        given: Sequence[Rule] = in_order(rules).rules
        before, after = schema_of(opened.state), schema_of(new.state)
        _expect_needed(place.graph(), before, after, new.name, given)
        found = _found(opened, new, given, accept_ambiguous=accept_ambiguous)
        given = found.rules if found else given
        migration = drafted(
            before, after, given, place=place, message=message, on=_built(opened, new.name),
            also=[schema_of(find_definition(ref).state()) for ref in several(also)],
            taken=[it.name for it in place.migrations()], how="fitted",
        )  # fmt: skip
        ran = run_both(form, present, given, several(inputs)) if prove else None
    made = Drafted(_checked(migration, ran), found, _depths(migration), ran)
    return made if dry_run else made.write(place.folder)


def _checked(migration: Migration, ran: Ran | None) -> Migration:
    """A migration that says how it was checked."""
    if ran is None:
        return migration
    return replace(migration, checked=replace(migration.checked, how=ran.how))


def _found(
    opened: Opened, new: OpenedDefinition, given: Sequence[Rule], *, accept_ambiguous: bool
) -> FoundRules | None:
    """The rules that lead to the class, those that were given first; None if these suffice."""
    if given and _leads(schema_of(opened.state), given, schema_of(new.state)):
        return None
    found = rules_between(opened, new, given)
    expect_companions(found)
    if not accept_ambiguous:
        expect_settled(found)
    return found


def _depths(migration: Migration) -> str | None:
    """Why a migration fails for a class with two or three blocks; None if it does not."""
    whys = ((blocks, problem_of(migration, blocks)) for blocks in (2, 3))
    return next((f"with {blocks} blocks: {why}" for blocks, why in whys if why), None)


def _leads(before: Schema, rules: Sequence[Rule], after: Schema) -> bool:
    """Whether rules alone lead to a class."""
    try:
        _expect_arrival(run_rules(begin(before).planned, rules), after)
    except CkptError:
        return False
    return True


def drafted(
    before: Schema,
    after: Schema,
    rules: Sequence[Rule],
    *,
    place: Place,
    message: str,
    on: Sequence[str],
    also: Sequence[Schema] = (),
    taken: Sequence[str] = (),
    how: str = "by hand",
) -> Migration:
    """The migration between two exact schemas, after its rules were tried on them.

    Args:
        before: Of the old form.
        after: Of the class.
        rules: Lead from one to the other.
        place: The class's.
        message: What changed; without one, the first rule names the file.
        on: The definitions that it was made with.
        also: Other configurations of the class.
        taken: The names of other migrations.
        how: How the rules were checked against the class.

    Raises:
        FitError: The rules do not lead to the class; the message has the first keys.
        MigrationError: Its schema is that of the old form.
    """
    made = run_rules(begin(before).planned, rules)
    _expect_arrival(made, after)
    old, new = fold_all([before]), fold_all([after, *also])
    old = FoldedSchema(marked(old.keys, _optional(old.keys, new.keys, made)), old.number)
    if old.identity == new.identity:
        number = (after.number or 1) + 1
        raise MigrationError(
            f"{place.definition}: its keys are folded to the same as before, so that no checkpoint "
            "could tell which form it has",
            hint=f"give the class  {NUMBER} = {number}  and decorate it with ckpt.migrating",
        )
    words = message or (rules[0].text if rules else "")
    return Migration(
        free_name(words, taken), (place.definition,), message or words, tuple(rules), old, new,
        Checked(how, tuple(on)),
    )  # fmt: skip


def _expect_arrival(made: Sequence[Planned], after: Schema) -> None:
    entries = [TensorEntry(it.key, it.made_of.dtype, it.made_of.shape) for it in made]
    unexpected, missing, reshaped = differing(entries, after.entries)
    missing = [key for key in missing if not key.endswith(COUNTER)]
    kinds = ((missing, "missing"), (unexpected, "unexpected"), (reshaped, "of another shape"))
    parts = [
        f"{len(keys)} {what} ({', '.join(keys[:2])}{', …' if len(keys) > 2 else ''})"
        for keys, what in kinds
        if keys
    ]
    if parts:
        raise FitError(f"the rules do not lead to the class: {', '.join(parts)}")


def _optional(old: Folded, new: Folded, planned: Sequence[Planned]) -> set[str]:
    """The templates of `old` of whose tensors only optional ones of `new` are made."""
    optional = {template for template, leaf in new.lines() if leaf.optional}
    found: set[str | None] = set()
    needed: set[str | None] = set()
    for tensor in planned:
        sources = {template_of(old, key) for key in sources_of(tensor.made_of)}
        (found if template_of(new, tensor.key) in optional else needed).update(sources)
    return {template for template in found - needed if template}


def _expect_needed(
    graph: Graph, before: Schema, after: Schema, name: str, rules: Sequence[Rule]
) -> None:
    way = graph.way(before, after)
    if way is not None and way.steps:
        hint = f"to see what it does:  ckpt migrate show {name} {way.steps[0].name}"
        raise UsageError(f"{way.names} leads there already", hint=hint)
    if way is not None and not rules:
        raise UsageError(f"it fits {name} already; nothing to migrate")


def _built(opened: Opened, name: str) -> list[str]:
    return [opened.name, name] if isinstance(opened, OpenedDefinition) else [name]
