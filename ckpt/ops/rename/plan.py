"""The plan of a rename: what becomes of every tensor of one checkpoint, before it is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from shlex import quote
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from ckpt.compare.allowed import Allowed
from ckpt.errors import CkptError, FitError, PlanError
from ckpt.formats import COPIES
from ckpt.formats.opaque import holds_more
from ckpt.opened import as_typed, opened_definition
from ckpt.opened.altered import numbered
from ckpt.opened.named import Weights
from ckpt.opened.states import Opened, OpenedDefinition, OpenedState, nesting
from ckpt.ops.rename.goal import Goal, allowed_by, expect_known, expect_sound
from ckpt.ops.rename.opening import open_source, open_target
from ckpt.ops.rename.rule_files import RuleFile
from ckpt.ops.rename.rule_order import Rules, in_order, places_in
from ckpt.ops.rename.training.followed import followed, lists_stuck
from ckpt.ops.rename.training.optimizers import MovedOptimizer, expect_weights, operates
from ckpt.ops.rename.training.trainer_files import OptimizerFiles
from ckpt.ops.rename.undo import former_numbers, plan_undo, undone_optimizers
from ckpt.printed import Printed
from ckpt.registry.registry import InRegistry, Registry
from ckpt.rules.plan import Plan, plan_tensors
from ckpt.rules.planned import Rule
from ckpt.tensors import TensorEntry
from ckpt.writing.outcome import followers, outcome

if TYPE_CHECKING:
    from ckpt.infer.fitting import Fitting
    from ckpt.infer.settled import FoundRules
    from ckpt.migrate.way import Way
    from ckpt.prove.result import Proof
    from ckpt.writing.moments import RegroupedOptimizer


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RenamePlan(Printed, Plan):
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
        former: What that said before.
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

    VIEW: ClassVar = "ckpt.show.rename:plan_text"

    name: str
    source: Weights
    entries: Sequence[TensorEntry]
    tied: Sequence[str]
    others: Sequence[str] = ()
    applied: Sequence[Rule] = ()
    undoes: bool = False
    fitting: "Fitting | None" = None
    found: "FoundRules | None" = None
    way: "Way | None" = None
    numbers: Mapping[str, int | None] = field(default_factory=dict)
    former: Mapping[str, int | None] = field(default_factory=dict)
    proof: "Proof | None" = None
    optimizers: Sequence[MovedOptimizer] = ()
    regrouped: Sequence["RegroupedOptimizer"] = ()
    in_old_order: Sequence[str] = ()
    stuck: PlanError | None = None
    optimizer_files: OptimizerFiles = field(default_factory=dict)
    files_stuck: CkptError | None = None
    drops_optimizer: bool = False
    copies: bool = False

    def _brief(self) -> str:
        return self.brief

    @property
    def brief(self) -> str:
        """What it does, in a few words."""
        numbers = {"renamed": self.renamed, "made": self.made, "dropped": self.dropped}
        words = [f"{len(which):,} {how}" for how, which in numbers.items() if which]
        return f"{self.name}: {', '.join(words) or 'nothing to rename'}"


class UnfitError(FitError):
    """The result of a `plan` would not fit."""

    def __init__(self, refusal: FitError, plan: RenamePlan) -> None:
        super().__init__(str(refusal), hint=refusal.hint)
        self.plan = plan


def plan_rename(
    source: Weights,
    rules: Rules = (),
    *,
    registry: InRegistry | None = None,
    **goal: Unpack[Goal],
) -> RenamePlan:
    """Work out what `rules` do to a checkpoint; write nothing. The arguments are those of `rename`.

    Raises:
        PlanError: The rules do not make a valid plan for these keys.
        FitError: The result would not fit `check` or `to`.
        UsageError: There is nothing to do.

    Example:
        >>> plan = ckpt.plan_rename("old.pt", to=Net)
        >>> [(change.old, change.new) for change in plan.renamed]
        [('conv1.weight', 'embed1.weight'), ('conv1.bias', 'embed1.bias')]
    """
    expect_known(goal, Goal.__optional_keys__)
    registry = Registry.of(registry)
    with open_source(source, registry, goal) as opened:
        return plan_opened(opened, rules, goal, registry)


def plan_opened(opened: OpenedState, rules: Rules, goal: Goal, registry: Registry) -> RenamePlan:
    """Like `plan_rename`, with the checkpoint open."""
    to, check = goal.get("to"), goal.get("check")
    given, may_differ = in_order(rules), allowed_by(goal)
    expect_sound(goal, given, may_differ)
    expect_weights(opened)
    versions = opened.state.versions
    found, target, way, numbers = None, None, None, dict[str, int | None]()
    if goal.get("undo"):
        numbers = former_numbers(opened, given)
    if to is not None:
        with open_target(to, registry, goal.get("arguments")) as target:
            given, way = _migrated(opened, given, target)
            if way is None:
                found = _rules_to(opened, target, given.rules, goal, may_differ)
            else:
                numbers = _other_numbers(versions, target.state.versions)
    opened = numbered(opened, numbers)
    checked = None if check is None else opened_definition(check, goal.get("arguments"))
    goals = [it for it in (checked, target) if it is not None]
    plan = replace(
        _planned(opened, given, goal, found, goals, may_differ), way=way, numbers=numbers,
        former=_other_numbers(opened.state.versions, versions) if numbers else {},
    )  # fmt: skip
    for wanted in goals:
        plan = _fitted(opened, plan, wanted, goal, may_differ)
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
            from ckpt.ops.rename.plan_fit import leave_reshaped_out

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


def _fitted(
    opened: OpenedState, plan: RenamePlan, wanted: Opened, goal: Goal, may_differ: Allowed
) -> RenamePlan:
    """The plan, with how its result fits a goal.

    Raises:
        UnfitError: It does not.
    """
    from ckpt.ops.rename.plan_fit import fit_after, misfit

    fitting = fit_after(plan, plan.applied, opened.state, wanted, may_differ)
    if plan.keeps_tensors or holds_more(opened.checkpoint):
        fitting = replace(fitting, under=nesting(opened)[0])
    plan = replace(plan, fitting=fitting)
    if not fitting.accepted:
        _expect_settled(plan.found, goal)
        raise UnfitError(misfit(fitting, opened.state, wanted), plan)
    return plan


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


def _apart(goals: Sequence[Opened]) -> frozenset[str]:
    """The keys that a definition does not tie."""
    states = [goal.state for goal in goals if isinstance(goal, OpenedDefinition)]
    tied = {key for state in states for pair in state.tied.items() for key in pair}
    return frozenset(entry.key for state in states for entry in state.entries) - tied


def _proof(
    opened: OpenedState, plan: RenamePlan, rules: Rules, goal: Goal, registry: Registry
) -> "Proof | None":
    if not goal.get("prove"):
        return None
    from ckpt.infer.settled import expect_decided
    from ckpt.ops.rename.proof import NO_ANSWER, Asked, both_definitions, proved

    def replan(listed: Sequence[Rule]) -> Plan:
        return plan_opened(opened, listed, {**goal, "prove": False}, registry)

    new = goal.get("to") or goal.get("check")
    both = both_definitions(goal.get("saved_from"), new, goal.get("arguments"))
    refs = f"--from {quote(both[0].ref)} --check {quote(both[1].ref)}"
    typed = as_typed(f"ckpt rename {quote(opened.name)} {refs}", goal.get("arguments"))
    asked = Asked(places_in(rules), plan.applied, replan, f"{typed} --prove")
    try:
        proof = proved(plan, opened, both, goal.get("prove_input"), asked, registry)
    except PlanError as error:
        if error.hint == NO_ANSWER:
            _expect_settled(plan.found, goal)
        raise
    if plan.found is not None and not goal.get("accept_ambiguous"):
        expect_decided(plan.found, proof.influential)
    return proof


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
    from ckpt.ops.rename.by_migrations import rules_of, way_to

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


def _other_numbers(
    found: Mapping[str, Any] | None, wanted: Mapping[str, Any] | None
) -> dict[str, int | None]:
    """As of a schema; few renames change numbers, so few import what migrations need."""
    from ckpt.migrate.schema import other_numbers

    return other_numbers(found, wanted)


def _rules_to(
    opened: OpenedState,
    target: Opened,
    first: Sequence[Rule],
    goal: Goal,
    may_differ: Allowed,
) -> "FoundRules":
    """The rules that lead to another state_dict, if none of them is a guess, or a proof follows."""
    from ckpt.infer.find_rules import rules_between
    from ckpt.infer.settled import expect_companions

    found = rules_between(opened, target, first, allowed=may_differ)
    provable = isinstance(target, OpenedDefinition) and not (goal.get("prove") or may_differ)
    found = replace(found, provable=provable)
    expect_companions(found)
    if not goal.get("prove"):  # a proof may decide
        _expect_settled(found, goal)
    return found


def _expect_settled(found: "FoundRules | None", goal: Goal) -> None:
    if found is not None and not goal.get("accept_ambiguous"):
        from ckpt.infer.settled import expect_settled

        expect_settled(found)
