"""Check whether the result of a plan would fit, before anything is written."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from shlex import quote

from ckpt.compare.allowed import Allowed, other_shapes
from ckpt.compare.keys import Pair, fit
from ckpt.errors import CkptError, FitError
from ckpt.infer.fitting import Ask, Fitting, fitting, fitting_in_part, unasked
from ckpt.infer.rules.covering import patterns_for
from ckpt.opened.states import Opened, OpenedDefinition
from ckpt.ops.rename.by_migrations import explained
from ckpt.rules.choice import drop
from ckpt.rules.expressions import Source
from ckpt.rules.plan import Plan
from ckpt.rules.planned import Planned, Renaming, Rule
from ckpt.rules.prefixes import Unwrap
from ckpt.tensors import StateDict
from ckpt.writing.outcome import outcome

_SHAPES = "of another shape"
_MOST_MODULES = 3  # in a suggested expression


def fit_after(
    plan: Plan, rules: Sequence[Rule], state: StateDict, target: Opened, allowed: Allowed
) -> Fitting:
    """The fit of the result of a plan, by torch's verdict if the target is a definition.

    Args:
        plan: What the rules do to the state_dict.
        rules: The rules.
        state: The state_dict before them.
        target: A definition, file or version.
        allowed: Where the result may differ from it.
    """
    after, ask = outcome(plan, state), _ask_of(target)
    found = fitting(after, target.name, target.state, ask)
    if found.fit.fits:
        return found
    names = _new_names(state, rules)
    dropped = {dropped.key for dropped in plan.dropped}
    gone = [e for e in state.named if dropped & {e.key, state.tied.get(e.key)}]
    reshaped = other_shapes(gone, found.fit.missing, names)
    if allowed:
        part = fitting_in_part(after, target.name, target.state, ask, allowed, reshaped)
        if part is not None:
            return part
    return replace(found, reshaped=reshaped)


def leave_reshaped_out(
    plan: Plan, state: StateDict, target: Opened, allowed: Allowed
) -> list[Rule]:
    """Rules that drop what may have another shape in the target, and has.

    torch loads no tensor of another shape, strictly or not.
    """
    named = outcome(plan, state).loaded_into(target.state)
    found = fit(named, target.state, _ask_of(target)(named))
    stored = [tensor.key for tensor in plan.tensors]
    gone = {a.key for a, _ in found.reshaped if allowed.other_shape(a.key)}.intersection(stored)
    wanted = [key for key in stored if key in gone]
    return [*map(drop, patterns_for(wanted, [key for key in stored if key not in gone]))]


def _ask_of(target: Opened) -> Ask:
    if not isinstance(target, OpenedDefinition):
        return unasked
    from ckpt.loading import ask_torch

    return partial(ask_torch, target.definition)


def _new_names(state: StateDict, rules: Sequence[Rule]) -> dict[str, str]:
    """Old key to the key that the rules on names alone give, of dropped tensors too."""
    tensors = [Planned(e.key, Source(e.key, e.dtype, e.shape)) for e in state.named]
    after = tensors
    try:
        for rule in rules:
            after = rule.run(after) if isinstance(rule, Renaming | Unwrap) else after
    except CkptError:  # a rule needs what an operation makes
        return {}
    return {old.key: new.key for old, new in zip(tensors, after, strict=True)}


def misfit(found: Fitting, state: StateDict, target: Opened) -> FitError:
    """The refusal of a result that would not fit; its hint shows how to make it fit.

    Args:
        found: The fit of the result.
        state: The state_dict before the plan.
        target: What the result should fit.
    """
    before = fitting(state, target.name, target.state, _ask_of(target))
    before = explained(before, state, target)
    # Inference drops what has no place, such as a key that is there in another shape.
    groups = {
        "missing": _missing(found),
        "unexpected": [entry.key for entry in found.fit.unexpected],
        _SHAPES: list(map(_shapes, (*found.reshaped, *found.fit.reshaped))),
    }
    parts = [f"{len(keys)} {what} ({_few(keys, what)})" for what, keys in groups.items() if keys]
    parts += found.fit.complaints[:1]
    if before.fit.fits:
        hint = "it already fits, without any rules"
    elif before.by:
        hint = f"ckpt migrate run SRC --to {found.definition}  makes it fit, by {before.by}"
    elif before.options:
        hint = f"this would fit:  {' '.join(before.options)}"
    elif options := allowing(found):
        hint = f"leave them new:  {' '.join(options)}"
    else:
        hint = _near(groups["unexpected"], groups["missing"])
        hint += f"ckpt diff SRC {found.definition}  shows both sides"
    return FitError(f"the result would not fit {found.definition}: {', '.join(parts)}", hint=hint)


def _missing(found: Fitting) -> list[str]:
    """The keys that are missing, and not just there in another shape."""
    there = {theirs.key for _, theirs in found.reshaped}
    return [entry.key for entry in found.fit.missing if entry.key not in there]


def allowing(found: Fitting) -> tuple[str, ...]:
    """The options that allow a few modules to stay new; none if it fits or more differs."""
    if found.fit.unexpected or found.fit.complaints:
        return ()
    reshaped = (other.key for _, other in (*found.reshaped, *found.fit.reshaped))
    options = [f"--allow-shape {quote(expression)}" for expression in _expressions(reshaped)]
    missing = _expressions(_missing(found))
    options += [f"--allow-missing {quote(expression)}" for expression in missing]
    return tuple(options) if len(options) <= _MOST_MODULES else ()


def _expressions(keys: Iterable[str]) -> list[str]:
    """An expression for the module of every key; for the key itself if it has none."""
    split = [(key, key.rpartition(".")[0]) for key in keys]
    return list(
        dict.fromkeys(
            f"^{re.escape(module)}\\." if module else f"^{re.escape(key)}$" for key, module in split
        )
    )


def _shapes(pair: Pair) -> str:
    mine, theirs = (" ".join(map(str, entry.shape)) or "()" for entry in pair)
    return f"{pair[1].key}: {mine}, expected {theirs}"


def _near(unexpected: list[str], missing: list[str]) -> str:
    """The keys that the first unexpected keys resemble, one line each."""
    from difflib import get_close_matches

    found = ((key, get_close_matches(key, missing, n=1)) for key in unexpected[:3])
    return "".join(f"{key}: did you mean {near[0]}?\n" for key, near in found if near)


def _few(texts: list[str], what: str) -> str:
    mark = "; " if what == _SHAPES else ", "
    return mark.join([*texts[:2], *(["…"] if len(texts) > 2 else [])])
