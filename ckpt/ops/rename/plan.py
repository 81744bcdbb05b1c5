"""The plan of a rename: what becomes of every tensor of one checkpoint, before it is written."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from ckpt.altered import numbered, with_copies
from ckpt.compare.allowed import Allowed, allowed
from ckpt.errors import AmbiguousStateError, CkptError, FitError, PlanError, UsageError
from ckpt.formats import ALL, COPIES
from ckpt.formats.opaque import holds_more
from ckpt.infer.fitting import Fitting
from ckpt.migrate.schema import other_numbers
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
    parse_named,
)
from ckpt.ops.rename.by_migrations import rules_of, way_to
from ckpt.ops.rename.plan_fit import fit_after, leave_reshaped_out, misfit
from ckpt.ops.rename.rule_files import RuleFile
from ckpt.ops.rename.rule_order import Rules, in_order, places_in
from ckpt.ops.rename.training.followed import followed, lists_stuck
from ckpt.ops.rename.training.optimizers import MovedOptimizer, expect_weights, operates, weights_in
from ckpt.ops.rename.training.trainer_files import OptimizerFiles
from ckpt.ops.rename.undo import plan_undo, undone_optimizers
from ckpt.refs import DefinitionRef
from ckpt.registry.registry import Registry
from ckpt.registry.store.version import VersionSource
from ckpt.rules.plan import Plan, plan_tensors
from ckpt.rules.planned import Rule
from ckpt.tensors import TensorEntry
from ckpt.writing.outcome import followers, outcome

if TYPE_CHECKING:
    from ckpt.infer.find_rules import FoundRules
    from ckpt.migrate.way import Way
    from ckpt.prove.inputs import Given
    from ckpt.prove.result import Proof
    from ckpt.writing.moments import RegroupedOptimizer


class Goal(TypedDict, total=False):
    """Where a rename leads, beyond its rules.

    Attributes:
        to: A definition, file or version that the result must fit strictly; the rules that lead
            there are found, and follow those that were given.
        accept_likely: Accept the best guess for ambiguous keys.
        check: A definition that the result must fit strictly.
        allow_missing: Expressions for keys that `to` and `check` may have and the result lacks.
        allow_unexpected: Expressions for keys that the result may have and they lack.
        allow_shape: Expressions for keys that may have another shape in them; the result does not
            hold these tensors, as torch cannot load them.
        arguments: The arguments of the definitions.
        prove: Run `saved_from` and the new class, of `to` or `check`; their outputs must agree.
        prove_input: Their input: a shape, texts like ``ids=1x16:int64<1000``, tensors by place or
            by name, or a `Path` of a file that holds these; None derives it.
        undo: Give the old keys back: for a version those of its own rename, for a file those
            of the rules, a rule file that `save_rules` wrote.
        saved_from: The definition that the source was saved from: for `prove`, and for the order
            in which its optimizer has the parameters, if that of the keys does not tell.
        drop_optimizer: Leave the file's optimizers out.
        copies: Rename all copies of the state_dict in the file, even if the ref names one.
    """

    to: Named | None
    accept_likely: bool
    check: str | None
    allow_missing: str | Sequence[str]
    allow_unexpected: str | Sequence[str]
    allow_shape: str | Sequence[str]
    arguments: Mapping[str, object] | None
    prove: bool
    prove_input: "Given | PathLike[str]"
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
        fitting: The fit with the definition that was named, if one was; it fits, at least in
            part.
        found: The mapping that was inferred, if one was asked for and no migrations lead there.
        way: The migrations that lead there.
        numbers: What they give to the root module in `_metadata`.
        proof: What running the old and the new class proved, if that was asked for.
        copies: Whether all copies of the state_dict are renamed, although the ref names one.
        optimizers: Those whose state gets the new class's order of parameters.
        regrouped: Those whose parameters an operation splits, joins or moves.
        in_old_order: Paths of optimizers whose order was not compared with that of a new class.
        stuck: Why the optimizers cannot follow, or cannot be left out; raised if the result is of
            the container that holds them.
        optimizer_files: The optimizers beside the weights of a folder that follow into a new one.
        files_stuck: Why they do not.
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
    way: "Way | None" = None
    numbers: Mapping[str, int | None] = field(default_factory=dict)
    proof: "Proof | None" = None
    optimizers: Sequence[MovedOptimizer] = ()
    regrouped: Sequence["RegroupedOptimizer"] = ()
    in_old_order: Sequence[str] = ()
    stuck: PlanError | None = None
    optimizer_files: OptimizerFiles = field(default_factory=dict)
    files_stuck: CkptError | None = None
    drops_optimizer: bool = False
    copies: bool = False


class UnfitError(FitError):
    """The result of a `plan` would not fit."""

    def __init__(self, refusal: FitError, plan: RenamePlan) -> None:
        super().__init__(str(refusal), hint=refusal.hint)
        self.plan = plan


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
    with open_source(source, registry, goal) as opened:
        return plan_opened(opened, rules, goal, registry)


def plan_opened(opened: OpenedState, rules: Rules, goal: Goal, registry: Registry) -> RenamePlan:
    """Like `plan_rename`, with the checkpoint open."""
    to, check = goal.get("to"), goal.get("check")
    given, may_differ = in_order(rules), _allowed(goal)
    _expect_sound(goal, given, may_differ)
    expect_weights(opened)
    found, target, way, numbers = None, None, None, dict[str, int | None]()
    if to is not None:
        with open_ref(to, registry, goal.get("arguments")) as target:
            given, way = _migrated(opened, given, target)
            if way is None:
                found = _rules_to(opened, target, given.rules, goal, may_differ)
            else:
                numbers = other_numbers(opened.state.versions, target.state.versions)
                opened = numbered(opened, numbers)
    goals = [it for it in (check and opened_definition(check, goal.get("arguments")), target) if it]
    plan = replace(
        _planned(opened, given, goal, found, goals, may_differ), way=way, numbers=numbers
    )
    for wanted in goals:
        fitting = fit_after(plan, plan.applied, opened.state, wanted, may_differ)
        if plan.keeps_tensors or holds_more(opened.checkpoint):
            fitting = replace(fitting, under=nesting(opened)[0])
        plan = replace(plan, fitting=fitting)
        if not fitting.accepted:
            raise UnfitError(misfit(fitting, opened.state, wanted), plan)
    if plan.undoes and not operates(plan):
        plan = replace(plan, optimizers=undone_optimizers(opened, given))
    else:
        plan = _followed(opened, plan, goal, goals)
    return replace(plan, proof=_proof(opened, plan, rules, goal, registry))


def _planned(
    opened: OpenedState,
    given: RuleFile,
    goal: Goal,
    found: "FoundRules | None",
    goals: Sequence[Opened],
    may_differ: Allowed,
) -> RenamePlan:
    """The plan, before it is compared with the goals."""
    undo = goal.get("undo", False)
    tied = (*opened.checkpoint.aliases, *followers(opened.state))
    applied = given.rules if found is None else found.rules
    if undo:
        applied, plan = (), plan_undo(opened, given)
    else:
        plan = plan_tensors(opened.entries, applied, aliases=tied)
        for wanted in goals if may_differ.shape else ():
            if more := leave_reshaped_out(plan, opened.state, wanted, may_differ):
                applied = [*applied, *more]
                plan = plan_tensors(opened.entries, applied, aliases=tied)
    return RenamePlan(
        plan.rules,
        plan.tensors,
        plan.dropped,
        plan.aliases,
        _apart(goals),
        name=opened.name,
        source=opened.ref,
        entries=opened.entries,
        tied=tied,
        others=opened.state.others,
        applied=applied,
        undoes=undo,
        found=found,
        copies=goal.get("copies", False) or (opened.inside or "").endswith(COPIES),
        drops_optimizer=goal.get("drop_optimizer", False),
    )


def _followed(
    opened: OpenedState, plan: RenamePlan, goal: Goal, goals: Sequence[Opened]
) -> RenamePlan:
    """The plan, with how the optimizers follow."""
    new = next((it for it in reversed(goals) if isinstance(it, OpenedDefinition)), None)
    old = _saved_from(goal)
    if plan.drops_optimizer:
        return replace(plan, stuck=lists_stuck(opened, plan, new, old))
    in_part = plan.fitting is not None and plan.fitting.in_part
    it = followed(opened, plan, plan.applied, new, old, in_part=in_part, undoes=plan.undoes)
    return replace(
        plan,
        optimizers=it.optimizers,
        regrouped=it.regrouped,
        in_old_order=it.in_old_order,
        stuck=it.stuck,
        optimizer_files=it.optimizer_files,
        files_stuck=it.files_stuck,
    )


def _allowed(goal: Goal) -> Allowed:
    return allowed(
        goal.get("allow_missing", ()), goal.get("allow_unexpected", ()), goal.get("allow_shape", ())
    )


def _apart(goals: Sequence[Opened]) -> frozenset[str]:
    """The keys that a definition does not tie."""
    states = [goal.state for goal in goals if isinstance(goal, OpenedDefinition)]
    tied = {key for state in states for pair in state.tied.items() for key in pair}
    return frozenset(entry.key for state in states for entry in state.entries) - tied


def _proof(
    opened: OpenedState, plan: Plan, rules: Rules, goal: Goal, registry: Registry
) -> "Proof | None":
    if not goal.get("prove"):
        return None
    from ckpt.ops.rename.proof import both_definitions, proved

    def replan(listed: Sequence[Rule]) -> Plan:
        return plan_opened(opened, listed, {**goal, "prove": False}, registry)

    new = goal.get("to") or goal.get("check")
    both = both_definitions(goal.get("saved_from"), new, goal.get("arguments"))
    return proved(plan, opened, both, goal.get("prove_input"), places_in(rules), replan, registry)


def expect_known(options: Mapping[str, object], known: frozenset[str]) -> None:
    """Refuse keyword arguments of other names."""
    for name in options.keys() - known:
        raise TypeError(f"unexpected keyword argument {name!r}")


def _expect_sound(goal: Goal, given: RuleFile, may_differ: Allowed) -> None:
    to, undo = goal.get("to"), goal.get("undo", False)
    if may_differ:
        if to is None and not goal.get("check"):
            raise UsageError(
                "--allow-missing, --allow-unexpected and --allow-shape need --to or --check"
            )
        if undo or goal.get("prove"):
            raise UsageError(
                f"--{'undo' if undo else 'prove'} and a partial fit exclude each other",
                hint="leave --allow-missing, --allow-unexpected and --allow-shape out",
            )
    if to is None and goal.get("accept_likely"):
        raise UsageError("--accept-likely needs --to")
    if to is not None and undo:
        raise UsageError("--undo and --to exclude each other")
    if not (given.rules or to or undo or goal.get("prove")):
        raise UsageError(
            "no rules given",
            hint="--rule 'OLD->NEW', --rules FILE, --map FILE or --unwrap; --to DEF  finds them",
        )


@contextmanager
def open_source(source: Named, registry: Registry, goal: Goal) -> Iterator[OpenedState]:
    """Like `open_state`, but open all state_dicts of a file together if they are copies.

    Args:
        source: A file or a version.
        registry: Where versions are looked up.
        goal: Whether a ref to one state_dict stands for all of its copies; and a definition, which
            a folder with an optimizer cannot fit as a whole: its weights stand for it.
    """
    text, copies = fspath(source), goal.get("copies", False)
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
        if (name := weights_in(opened)) and _names_class(goal, registry):
            if not isinstance(opened, OpenedFile):
                raise PlanError(
                    f"{opened.name}: the version of a whole folder, whose optimizer no class has",
                    hint=f"ckpt export {opened.name} -o DIR  and rename DIR::{name} --all",
                )
            text = f"{text}::{name}"
            named = stack.enter_context(_opened_as(source, text + COPIES, registry))
            yield replace(named, name=text)
            return
        yield with_copies(opened) if copies else opened


def _names_class(goal: Goal, registry: Registry) -> bool:
    to = goal.get("to")
    return bool(goal.get("check")) or (
        to is not None and isinstance(parse_named(to, registry), DefinitionRef)
    )


def _opened_as(source: Named, text: str, registry: Registry) -> AbstractContextManager[OpenedState]:
    """Open a longer form of a ref, which stays a path if it was one."""
    return open_state(text if isinstance(source, str) else Path(text), registry)


def _saved_from(goal: Goal) -> OpenedDefinition | None:
    old = goal.get("saved_from")
    return opened_definition(old, goal.get("arguments")) if old else None


def _migrated(
    opened: OpenedState, given: RuleFile, target: Opened
) -> "tuple[RuleFile, Way | None]":
    """The rules, with those of migrations if they lead from them to a class."""
    if not isinstance(target, OpenedDefinition):
        return given, None
    from ckpt.migrate.way import AmbiguousEntryError

    state = opened.state
    if given.rules:
        aliases = (*opened.checkpoint.aliases, *followers(state))
        state = outcome(plan_tensors(opened.entries, given.rules, aliases=aliases), state)
    try:
        way = way_to(state, target)
    except AmbiguousEntryError as error:
        run = f"ckpt migrate run {opened.name} --to {target.name}"
        raise AmbiguousEntryError(str(error), hint=f"{run} {error.hint}") from error
    if way is None:
        return given, None
    return replace(given, rules=[*given.rules, *rules_of(way, state)]), way


def _rules_to(
    opened: OpenedState,
    target: Opened,
    first: Sequence[Rule],
    goal: Goal,
    may_differ: Allowed,
) -> "FoundRules":
    """The rules that lead to another state_dict, if none of them is a guess."""
    from ckpt.infer.find_rules import expect_companions, expect_settled, rules_between

    found = rules_between(opened, target, first, allowed=may_differ)
    expect_companions(found)
    if not goal.get("accept_likely"):
        expect_settled(found)
    return found
