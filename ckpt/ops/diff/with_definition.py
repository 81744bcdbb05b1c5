"""Compare a state_dict with a definition: the keys, and whether torch would load it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ckpt.compare.keys import KeyDiff, compare_entries
from ckpt.errors import FormatError, PlanError
from ckpt.infer.fitting import Fitting, fitting
from ckpt.loading import ask_torch
from ckpt.opened import Opened, OpenedDefinition, OpenedState, nesting
from ckpt.ops.rename.optimizers import expect_no_optimizer, expect_weights, follow
from ckpt.ops.rename.plan_fit import allowing
from ckpt.rules.plan import plan_tensors
from ckpt.rules.planned import Rule


def compared(a: Opened, b: Opened) -> tuple[KeyDiff, Fitting]:
    """The keys of two sides, of which one is a definition, and how the other fits it.

    Raises:
        PlanError: The other one is an optimizer's state alone.
    """
    one, other = a.state.loaded_into(b.state), b.state.loaded_into(a.state)
    return compare_entries(one.entries, other.entries), _fitting(a, b)


def _fitting(a: Opened, b: Opened) -> Fitting:
    state, definition = (a, b) if isinstance(b, OpenedDefinition) else (b, a)
    assert isinstance(definition, OpenedDefinition)
    if not isinstance(state, OpenedDefinition):
        expect_weights(state)
    ask = partial(ask_torch, definition.definition)
    found = fitting(state.state, definition.name, definition.state, ask)
    if isinstance(state, OpenedDefinition):
        return replace(found, source="OLD.pt")  # a definition cannot be renamed
    if found.rules and not _can_be_renamed(state, found.rules, definition):
        found = replace(found, options=(), rules=())
    under, loaded_by = nesting(state)
    in_part_by = () if found.options else _in_part_by(found, state, definition)
    return replace(
        found, under=under, loaded_by=loaded_by, source=state.name, in_part_by=in_part_by
    )


def _in_part_by(found: Fitting, state: OpenedState, to: OpenedDefinition) -> tuple[str, ...]:
    """The options of a rename that allow what differs, if the file keeps its optimizer."""
    options = allowing(found)
    try:
        expect_no_optimizer(state)
    except PlanError:
        return ()
    return (f"--to {to.name}", *options) if options else ()


def _can_be_renamed(state: OpenedState, rules: Sequence[Rule], to: OpenedDefinition) -> bool:
    """Whether the file, with its optimizer, can follow the rules that make its state_dict fit."""
    plan = plan_tensors(state.entries, rules, aliases=tuple(state.checkpoint.aliases))
    try:
        if plan.is_rename:
            state.checkpoint.renamed(plan.new_keys)  # its keys may not be texts
        else:  # its file would hold the tensors alone
            expect_no_optimizer(state)
        follow(state, plan, to, saved_from=None)
    except (PlanError, FormatError):
        return False
    return True
