"""The plan of a rename: what becomes of every tensor of one checkpoint, before it is written."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from os import fspath
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from ckpt.errors import AmbiguousStateError, UsageError
from ckpt.formats import ALL, COPIES
from ckpt.infer.fitting import Fitting
from ckpt.opened import (
    Named,
    Opened,
    OpenedDefinition,
    OpenedFile,
    OpenedState,
    nesting,
    open_ref,
    open_state,
    opened_definition,
    with_copies,
)
from ckpt.ops.rename.optimizers import MovedOptimizer, expect_weights, follow, keep_their_order
from ckpt.ops.rename.plan_fit import expect_fit
from ckpt.ops.rename.rule_files import RuleFile
from ckpt.ops.rename.rule_order import Rules, in_order
from ckpt.ops.rename.undo import plan_undo, undone_optimizers
from ckpt.registry.registry import Registry
from ckpt.registry.store.version import VersionSource
from ckpt.rules.plan import Plan, plan_tensors
from ckpt.rules.planned import Rule
from ckpt.tensors import StateDict, TensorEntry
from ckpt.writing.outcome import followers

if TYPE_CHECKING:
    from ckpt.infer.find_rules import FoundRules
    from ckpt.ops.rename.proof import Proof


class Goal(TypedDict, total=False):
    """Where a rename leads, beyond its rules.

    Attributes:
        to: A definition, file or version that the result must fit strictly; the rules that lead
            there are found, and follow those that were given.
        accept_likely: Accept the best guess for ambiguous keys.
        check: A definition that the result must fit strictly.
        arguments: The arguments of the definitions.
        prove_from: The definition that the source fits; it and the new one, of `to` or `check`,
            are run and must give the same output.
        prove_input: The shape of their input; None derives it.
        undo: Give the old keys back: for a version those of its own rename, for a file those
            of the rules, a rule file that `save_rules` wrote.
        saved_from: The definition that the source was saved from: the order in which its
            optimizer has the parameters, if the order of the keys does not tell.
        drop_optimizer: Leave the file's optimizers out.
        copies: Rename all copies of the state_dict in the file, even if the ref names one.
    """

    to: Named | None
    accept_likely: bool
    check: str | None
    arguments: Mapping[str, object] | None
    prove_from: str | None
    prove_input: Sequence[int] | None
    undo: bool
    saved_from: str | None
    drop_optimizer: bool
    copies: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RenamePlan(Plan):
    """A plan for one checkpoint. It applies as long as that has the same tensors.

    Attributes:
        source: The ref that opens it again.
        tied: Its names of tied tensors that are stored under another key, and its keys that
            hold no tensor.
        others: The latter.
        applied: The rules, first to last; none for an undo.
        undoes: Whether it undoes a rename.
        fitting: The fit with the definition that was named, if one was; it fits.
        found: The mapping that was inferred, if one was asked for.
        proof: That the old and the new model give the same output, if that was asked for.
        copies: Whether all copies of the state_dict are renamed, although the ref names one.
        optimizers: Those whose state gets the new class's order of parameters.
        in_old_order: Paths of optimizers whose order was not compared with that of a new class.
        drops_optimizer: Whether optimizers are left out.
    """

    name: str
    source: Named
    entries: Sequence[TensorEntry]
    tied: Sequence[str]
    others: Sequence[str] = ()
    applied: Sequence[Rule] = ()
    undoes: bool = False
    fitting: Fitting | None = None
    found: "FoundRules | None" = None
    proof: "Proof | None" = None
    optimizers: Sequence[MovedOptimizer] = ()
    in_old_order: Sequence[str] = ()
    drops_optimizer: bool = False
    copies: bool = False


def plan_rename(
    source: Named,
    rules: Rules = (),
    *,
    registry: Registry | None = None,
    **goal: Unpack[Goal],
) -> RenamePlan:
    """Work out what `rules` do to a checkpoint; write nothing. The arguments are those of `rename`.

    Raises:
        PlanError: The rules do not make a valid plan for these keys.
        FitError: The result would not fit `check` or `to`.
        UsageError: There is nothing to do.
    """
    expect_known(goal, Goal.__optional_keys__)
    registry = registry or Registry()
    with open_source(source, registry, copies=goal.get("copies", False)) as opened:
        return plan_opened(opened, rules, goal, registry)


def plan_opened(opened: OpenedState, rules: Rules, goal: Goal, registry: Registry) -> RenamePlan:
    """Like `plan_rename`, with the checkpoint open."""
    to, check, undo = goal.get("to"), goal.get("check"), goal.get("undo", False)
    arguments = goal.get("arguments")
    given = in_order(rules)
    _expect_sound(goal, given)
    expect_weights(opened)
    found, target = None, None
    if to is not None:
        found, target = _rules_to(opened, to, given.rules, goal, registry)
    state = opened.state
    applied = given.rules if found is None else found.rules
    tied = (*opened.checkpoint.aliases, *followers(state))
    if not undo:
        plan = plan_tensors(opened.entries, applied, aliases=tied)
    else:
        applied, plan = (), plan_undo(opened, given)
    goals = [it for it in (check and opened_definition(check, arguments), target) if it]
    fitting = None
    for wanted in goals:
        fitting = _fit_of(state, plan, wanted)
    if fitting is not None and plan.is_rename:
        fitting = replace(fitting, under=nesting(opened)[0])
    optimizers = undone_optimizers(opened, given) if undo else ()
    in_old_order: Sequence[str] = ()
    if not (undo or goal.get("drop_optimizer")):
        new = next((it for it in reversed(goals) if isinstance(it, OpenedDefinition)), None)
        optimizers = follow(opened, plan, new, saved_from=_saved_from(goal))
        in_old_order = () if new else keep_their_order(opened, plan, applied)
    return RenamePlan(
        plan.rules,
        plan.tensors,
        plan.dropped,
        plan.aliases,
        _apart([*goals, target]),
        name=opened.name,
        source=opened.ref,
        entries=opened.entries,
        tied=tied,
        others=state.others,
        applied=applied,
        undoes=undo,
        fitting=fitting,
        found=found,
        proof=_proof(opened, plan, goal, registry),
        optimizers=optimizers,
        in_old_order=in_old_order,
        copies=goal.get("copies", False),
        drops_optimizer=goal.get("drop_optimizer", False),
    )


def _apart(goals: Sequence[Opened | None]) -> frozenset[str]:
    """The keys that a definition does not tie."""
    states = [goal.state for goal in goals if isinstance(goal, OpenedDefinition)]
    tied = {key for state in states for pair in state.tied.items() for key in pair}
    return frozenset(entry.key for state in states for entry in state.entries) - tied


def _proof(opened: OpenedState, plan: Plan, goal: Goal, registry: Registry) -> "Proof | None":
    old, new = goal.get("prove_from"), goal.get("to") or goal.get("check")
    if old is None:
        return None
    from ckpt.ops.rename.proof import prove

    arguments, shape = goal.get("arguments"), goal.get("prove_input")
    return prove(plan, opened.ref, old, new, arguments, shape, registry)


def expect_known(options: Mapping[str, object], known: frozenset[str]) -> None:
    """Refuse keyword arguments of other names."""
    for name in options.keys() - known:
        raise TypeError(f"unexpected keyword argument {name!r}")


def _expect_sound(goal: Goal, given: RuleFile) -> None:
    to, undo = goal.get("to"), goal.get("undo", False)
    if to is None and goal.get("accept_likely"):
        raise UsageError("--accept-likely needs --to")
    if to is not None and undo:
        raise UsageError("--undo and --to exclude each other")
    if not given.rules and to is None and not undo:
        raise UsageError(
            "no rules given",
            hint="--rule 'OLD->NEW', --rules FILE, --map FILE or --unwrap; --to DEF  finds them",
        )


@contextmanager
def open_source(
    source: Named, registry: Registry, *, copies: bool = False
) -> Iterator[OpenedState]:
    """Like `open_state`, but open all state_dicts of a file together if they are copies.

    Args:
        source: A file or a version.
        registry: Where versions are looked up.
        copies: Whether a ref to one state_dict stands for all of its copies.
    """
    text = fspath(source)
    with ExitStack() as stack:
        if copies and "::" in text:
            named = stack.enter_context(_opened_as(source, text + COPIES, registry))
            yield replace(named, name=text)
            return
        try:
            opened = stack.enter_context(open_state(source, registry))
        except AmbiguousStateError as ambiguous:
            try:
                opened = stack.enter_context(_opened_as(source, f"{text}::{ALL}", registry))
            except AmbiguousStateError:
                raise ambiguous from None
        if isinstance(opened, OpenedFile) and isinstance(opened.checkpoint.source, VersionSource):
            raise UsageError(
                f"{opened.name} is a part of a version; a rename takes the whole version or a file",
                hint=f"ckpt export {opened.name} -o NEW.pt  makes a file of it",
            )
        yield with_copies(opened) if copies else opened


def _opened_as(source: Named, text: str, registry: Registry) -> AbstractContextManager[OpenedState]:
    """Open a longer form of a ref, which stays a path if it was one."""
    return open_state(text if isinstance(source, str) else Path(text), registry)


def _fit_of(state: StateDict, plan: Plan, target: Opened) -> Fitting:
    """The fit of the result with another state_dict, or by torch's verdict with a definition."""
    if not isinstance(target, OpenedDefinition):
        return expect_fit(state, plan, target.name, target.state)
    from ckpt.loading import ask_torch

    ask = partial(ask_torch, target.definition)
    return expect_fit(state, plan, target.name, target.state, ask)


def _saved_from(goal: Goal) -> OpenedDefinition | None:
    old = goal.get("saved_from") or goal.get("prove_from")
    return opened_definition(old, goal.get("arguments")) if old else None


def _rules_to(
    opened: OpenedState, to: Named, first: Sequence[Rule], goal: Goal, registry: Registry
) -> "tuple[FoundRules, Opened]":
    """The rules that lead to another state_dict, if none of them is a guess; and that one."""
    from ckpt.infer.find_rules import expect_companions, expect_settled, rules_between

    with open_ref(to, registry, goal.get("arguments")) as target:
        found = rules_between(opened, target, first)
    expect_companions(found)
    if not goal.get("accept_likely"):
        expect_settled(found)
    return found, target
