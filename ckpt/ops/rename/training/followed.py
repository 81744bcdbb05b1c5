"""What becomes of the optimizers of a checkpoint, those beside its weights included."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ckpt.errors import CkptError, PlanError
from ckpt.formats.folders import optimizers_in
from ckpt.opened.states import OpenedDefinition, OpenedFile, OpenedState
from ckpt.ops.rename.training.listed import expect_no_lists
from ckpt.ops.rename.training.optimizers import (
    MovedOptimizer,
    folder_of,
    follow,
    keep_their_order,
    operates,
    regroup,
)
from ckpt.ops.rename.training.trainer_files import OptimizerFiles, moved_files
from ckpt.rules.plan import Plan
from ckpt.rules.planned import Rule

if TYPE_CHECKING:
    from ckpt.writing.moments import RegroupedOptimizer


@dataclass(frozen=True, slots=True)
class Followed:
    """How optimizers follow a plan; the attributes are those of a `RenamePlan`."""

    optimizers: Sequence[MovedOptimizer] = ()
    regrouped: Sequence["RegroupedOptimizer"] = ()
    in_old_order: Sequence[str] = ()
    stuck: PlanError | None = None
    optimizer_files: OptimizerFiles = field(default_factory=dict)
    files_stuck: CkptError | None = None


def followed(
    opened: OpenedState,
    plan: Plan,
    applied: Sequence[Rule],
    new: OpenedDefinition | None,
    old: OpenedDefinition | None,
    *,
    in_part: bool,
    undoes: bool = False,
) -> Followed:
    """Work out how the optimizers follow, or why not if that is to be told later.

    Args:
        opened: The checkpoint.
        plan: The plan.
        applied: Its rules.
        new: The definition that the result fits.
        old: The definition that the file was saved from.
        in_part: Whether the result fits only in part.
        undoes: Whether the plan undoes another one.

    Raises:
        PlanError: They cannot follow a plan that only renames, and leads to a class.
    """
    in_old_order = keep_their_order(opened, plan, applied) if new is None else ()
    if stuck_lists := lists_stuck(opened, plan, new, old):
        return Followed(in_old_order=in_old_order, stuck=stuck_lists)
    moved: Sequence[MovedOptimizer] = ()
    made: Sequence[RegroupedOptimizer] = ()
    stuck = None
    try:
        folder = folder_of(opened)
        if operates(plan, in_part=in_part and folder is None) or (folder and plan.dropped):
            made = regroup(opened, plan, new, old, undoes=undoes)
        else:
            moved = follow(opened, plan, new, saved_from=old)
    except PlanError as error:
        if plan.is_rename and folder_of(opened) is None and new is not None:
            raise
        stuck = error
    if not _holds_files(opened):
        return Followed(moved, made, in_old_order, stuck)
    if new is None:
        unknown = PlanError(
            "its parameters are numbered in the order of a class; "
            "--check NEW_DEF --from OLD_DEF  takes it along"
        )
        return Followed(moved, made, in_old_order, stuck, files_stuck=unknown)
    return Followed(moved, made, in_old_order, stuck, *_files(opened, plan, new, old, in_part))


def lists_stuck(
    opened: OpenedState,
    plan: Plan,
    new: OpenedDefinition | None,
    old: OpenedDefinition | None,
) -> PlanError | None:
    """Why tensors that have the order of the parameters cannot follow."""
    try:
        expect_no_lists(
            opened, plan, new.definition if new else None, old.definition if old else None
        )
    except PlanError as error:
        return error
    return None


def _holds_files(opened: OpenedState) -> bool:
    """Whether the optimizers beside the weights of a folder may follow."""
    return (
        isinstance(opened, OpenedFile) and opened.path.is_dir() and any(optimizers_in(opened.path))
    )


def _files(
    opened: OpenedState,
    plan: Plan,
    new: OpenedDefinition,
    old: OpenedDefinition | None,
    in_part: bool,
) -> tuple[OptimizerFiles, CkptError | None]:
    """The optimizers beside the weights of a folder that follow, or why they do not."""
    saved_from = old.definition if old else None
    try:
        return moved_files(opened, plan, new.definition, saved_from, in_part=in_part), None
    except CkptError as error:
        return {}, error
