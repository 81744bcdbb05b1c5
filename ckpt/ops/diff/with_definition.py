"""Compare a state_dict with a definition: the keys, and whether torch would load it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ckpt.compare.keys import KeyDiff, compare_entries
from ckpt.errors import FormatError, PlanError
from ckpt.in_memory import STATE_DICT
from ckpt.infer.fitting import Fitting, fitting
from ckpt.loading import ask_torch
from ckpt.opened.states import (
    Opened,
    OpenedDefinition,
    OpenedFile,
    OpenedMemory,
    OpenedState,
    nesting,
)
from ckpt.ops.rename.by_migrations import explained
from ckpt.ops.rename.plan_fit import allowing
from ckpt.ops.rename.training.optimizers import (
    expect_weights,
    folder_of,
    follow,
    operates,
    optimizer_in,
    regroup,
    weights_in,
)
from ckpt.rules.plan import Plan, plan_tensors
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
    found = explained(found, state.state, definition)
    if isinstance(state, OpenedDefinition):
        return replace(found, source="OLD.pt")  # a definition cannot be renamed
    if found.rules and not _can_be_renamed(state, found.rules, definition):
        found = replace(found, options=(), rules=(), by="")
    if found.options and _leaves_behind(state):
        found = replace(found, options=(*found.options, "--all"))
    if isinstance(state, OpenedMemory) or ":" not in definition.name:
        found = _by_python(found, state, definition)
    under, loaded_by = nesting(state)
    known = found.options or found.by or found.call
    in_part_by = () if known else _in_part_by(found, state, definition)
    return replace(
        found, under=under, loaded_by=loaded_by, source=state.name, in_part_by=in_part_by
    )


def _by_python(found: Fitting, state: OpenedState, to: OpenedDefinition) -> Fitting:
    """The fit, with a call in place of the command, which cannot name one of the sides."""
    if not (found.options or found.by):
        return found
    source = STATE_DICT if isinstance(state, OpenedMemory) else repr(state.name)
    name = to.name.rpartition(":")[2]
    call = f"ckpt.rename({source}, to={name if name.isidentifier() else '…'})"
    return replace(found, options=(), by="", call=call)


def _in_part_by(found: Fitting, state: OpenedState, to: OpenedDefinition) -> tuple[str, ...]:
    """The options of a rename that allow what differs, if the file has no optimizer."""
    named = not (isinstance(state, OpenedMemory) or found.call)
    options = allowing(found) if named and optimizer_in(state) is None else ()
    return (f"--to {to.name}", *options) if options else ()


def _can_be_renamed(state: OpenedState, rules: Sequence[Rule], to: OpenedDefinition) -> bool:
    """Whether the file, with its optimizer, can follow the rules that make its state_dict fit."""
    plan = plan_tensors(state.entries, rules, aliases=tuple(state.checkpoint.aliases))
    if _leaves_out(state, plan):
        return False
    try:
        if plan.is_rename:
            state.checkpoint.renamed(plan.new_keys)  # its keys may not be texts
        if operates(plan):
            regroup(state, plan, to, None, undoes=False)
        else:
            follow(state, plan, to, saved_from=None)
    except (PlanError, FormatError):
        return False
    return True


def _leaves_out(state: OpenedState, plan: Plan) -> bool:
    """Whether the optimizer of a folder would be left out: only a pure rename gives a folder.

    A rename of the whole folder to a class is one of its weights, and drops no optimizer.
    """
    folder = folder_of(state)
    if folder is None or not folder.optimizers:
        return False
    whole = isinstance(state, OpenedFile) and weights_in(state) is not None
    kept = folder.optimizers if whole else ()
    return bool(plan.made) or any(not gone.key.startswith(kept) for gone in plan.dropped)


def _leaves_behind(state: OpenedState) -> bool:
    """Whether a rename without ``--all`` would leave the old names in the optimizer of a folder."""
    folder = folder_of(state)
    keys = {entry.key for entry in state.entries}
    places = folder.left_behind(keys) if folder is not None else ()
    return folder is not None and any(f"{place}.".startswith(folder.optimizers) for place in places)
