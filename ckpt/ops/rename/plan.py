"""The plan of a rename: what becomes of every tensor of one checkpoint, before it is written."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from os import fspath
from pathlib import Path
from typing import TYPE_CHECKING

from ckpt.errors import AmbiguousStateError, UsageError
from ckpt.formats import ALL
from ckpt.infer.fitting import Fitting
from ckpt.opened import Named, OpenedFile, OpenedState, OpenedVersion, open_ref, open_state
from ckpt.ops.rename.plan_fit import expect_definition, expect_fit
from ckpt.ops.rename.rule_order import Rules, in_order
from ckpt.ops.rename.undo import plan_undo
from ckpt.registry.registry import Registry
from ckpt.rules.plan import Plan, plan_tensors
from ckpt.rules.planned import Rule
from ckpt.tensors import TensorEntry

if TYPE_CHECKING:
    from ckpt.infer.find_rules import FoundRules
    from ckpt.ops.rename.proof import Proof


@dataclass(frozen=True, slots=True, kw_only=True)
class RenamePlan(Plan):
    """A plan for one checkpoint. It applies as long as that has the same tensors.

    Attributes:
        name: What to call the checkpoint.
        source: The ref that opens it again.
        entries: Its tensors.
        tied: Its names of tied tensors that are stored under another key.
        applied: The rules, first to last; none for an undo.
        undoes: Whether it undoes a rename.
        fitting: The fit with the definition that was named, if one was; it fits.
        found: The mapping that was inferred, if one was asked for.
        proof: That the old and the new model give the same output, if that was asked for.
    """

    name: str
    source: Named
    entries: Sequence[TensorEntry]
    tied: Sequence[str]
    applied: Sequence[Rule] = ()
    undoes: bool = False
    fitting: Fitting | None = None
    found: "FoundRules | None" = None
    proof: "Proof | None" = None


def plan_rename(
    source: Named | OpenedState,
    rules: Rules = (),
    *,
    to: Named | None = None,
    accept_likely: bool = False,
    check: str | None = None,
    arguments: Mapping[str, object] | None = None,
    undo: bool = False,
    registry: Registry | None = None,
) -> RenamePlan:
    """Work out what `rules` do to a checkpoint; write nothing. The arguments are those of `rename`.

    Raises:
        PlanError: The rules do not make a valid plan for these keys.
        FitError: The result would not fit `check` or `to`.
        UsageError: There is nothing to do.
    """
    if to is not None and undo:
        raise UsageError("--undo and --to exclude each other")
    registry = registry or Registry()
    given = in_order(rules)
    if not given.rules and to is None and not undo:
        raise UsageError(
            "no rules given",
            hint="--rule 'OLD->NEW', --rules FILE, --map FILE or --unwrap; --to DEF  finds them",
        )
    with open_source(source, registry) as opened:
        found, applied, tied = None, given.rules, opened.checkpoint.aliases
        if to is not None:
            found = _found(opened, to, applied, registry, arguments, accept_likely=accept_likely)
            applied = found.rules
        if undo:
            plan = plan_undo(opened, given)
        else:
            plan = plan_tensors(opened.entries, applied, aliases=tied)
        fitting = expect_definition(opened.entries, plan, check, arguments)
        if found is not None:
            fitting = expect_fit(opened.entries, plan, found.target, found.wanted)
        return RenamePlan(
            plan.rules,
            plan.tensors,
            plan.dropped,
            plan.aliases,
            name=opened.name,
            source=opened.ref,
            entries=opened.entries,
            tied=tied,
            applied=() if undo else applied,
            undoes=undo,
            fitting=fitting,
            found=found,
        )


@contextmanager
def open_source(source: Named | OpenedState, registry: Registry) -> Iterator[OpenedState]:
    """Like `open_state`, but open all state_dicts of a file together if they have the same keys.

    A checkpoint that is open already stays open.
    """
    if isinstance(source, OpenedFile | OpenedVersion):
        yield source
        return
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(open_state(source, registry))
        except AmbiguousStateError as ambiguous:
            text = f"{fspath(source)}::{ALL}"
            every = text if isinstance(source, str) else Path(text)
            try:
                opened = stack.enter_context(open_state(every, registry))
            except AmbiguousStateError:
                raise ambiguous from None
        yield opened


def _found(
    opened: OpenedState,
    to: Named,
    first: Sequence[Rule],
    registry: Registry,
    arguments: Mapping[str, object] | None,
    *,
    accept_likely: bool,
) -> "FoundRules":
    """The rules that lead to another state_dict, if none of them is a guess."""
    from ckpt.infer.find_rules import expect_settled, rules_between

    with open_ref(to, registry, arguments) as target:
        found = rules_between(opened, target, first)
    if not accept_likely:
        expect_settled(found)
    if not found.rules:
        raise UsageError(f"{found.source} already fits {found.target}; nothing to rename")
    return found
