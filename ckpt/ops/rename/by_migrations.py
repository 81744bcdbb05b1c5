"""The migrations of a class, which are used before the rules that lead to it are inferred."""

from collections.abc import Sequence
from dataclasses import replace

from ckpt.infer.fitting import Fitting
from ckpt.infer.result import Confidence, Match
from ckpt.migrate.chain import begin, that_find
from ckpt.migrate.folder import place_of_definition
from ckpt.migrate.schema import schema_of
from ckpt.migrate.way import AmbiguousEntryError, Way
from ckpt.opened.states import Opened, OpenedDefinition
from ckpt.rules.expressions import Source
from ckpt.rules.planned import Rule
from ckpt.tensors import StateDict


def way_to(state: StateDict, target: Opened) -> Way | None:
    """How migrations turn a state_dict into one that fits a class; None if they do not, or undo.

    Raises:
        AmbiguousEntryError: There are two ways, and their results differ.
        MigrationError: A migration's file is invalid.
    """
    if not isinstance(target, OpenedDefinition) or target.definition.path is None:
        return None
    graph = place_of_definition(target.definition).graph()
    way = graph.way(schema_of(state), schema_of(target.state)) if graph.migrations else None
    return way if way is not None and way.steps and not way.back else None


def rules_of(way: Way, state: StateDict) -> Sequence[Rule]:
    """The rules of a way that change something in a state_dict."""
    return that_find(begin(schema_of(state)).planned, way.rules)


def explained(found: Fitting, state: StateDict, target: Opened) -> Fitting:
    """A fit, with the migrations that would make it one, if there are any."""
    if found.fit.fits:
        return found
    try:
        way = way_to(state, target)
    except AmbiguousEntryError:  # `ckpt migrate run` says which ones
        return found
    if way is None:
        return found
    named = {entry.key for entry in (*found.fit.unexpected, *found.fit.missing)}
    pairs = [
        Match(it.made_of.key, it.key, Confidence.CERTAIN, 1.0, evidence="a migration")
        for it in way.planned
        if isinstance(it.made_of, Source) and {it.made_of.key, it.key} & named
    ]
    return replace(
        found, options=(), rules=tuple(rules_of(way, state)), pairs=tuple(pairs), by=way.names
    )
