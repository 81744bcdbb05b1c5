"""How the optimizers of a file follow a rename to a class with another order of parameters.

torch's optimizers match their state by the place of a parameter. Law: state moves to the parameter
that it belongs to, or the rename is refused; nothing is guessed.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckpt.errors import PlanError, UnexplainedError
from ckpt.formats.checkpoint import Checkpoint
from ckpt.formats.opaque import kind_of_file, torch_file
from ckpt.formats.pickle.describe import WEIGHTS_HINT
from ckpt.opened.states import OpenedDefinition, OpenedState
from ckpt.ops.rename.training.listed import listed_by_place
from ckpt.ops.rename.training.owners import (
    GONE,
    Owners,
    belonging,
    candidates,
    changes_order,
)
from ckpt.rules.choice import Choice
from ckpt.rules.plan import Plan
from ckpt.rules.planned import Rule
from ckpt.rules.prefixes import Add, Strip, Unwrap

if TYPE_CHECKING:
    from ckpt.definitions import Definition
    from ckpt.formats.distributed.folder import DistributedCheckpoint
    from ckpt.formats.optimizers import Groups, OptimizerState
    from ckpt.formats.torch_state import TorchFile
    from ckpt.writing.moments import RegroupedOptimizer

DISTRIBUTED = "torch-distributed"  # the format, whose module takes time to import
_ALONE = "-o NEW.pt  writes the weights alone"
_AVERAGES = {"ema", "swa", "avg", "average", "averaged", "teacher", "shadow"}  # words in a path


@dataclass(frozen=True, slots=True)
class MovedOptimizer:
    """An optimizer whose state gets a new order, or loses that of dropped parameters.

    Attributes:
        path: Where it is in the file.
        before: The numbers of the parameters in its groups, in the old order.
        after: Those that are kept, in the new order.
    """

    path: str
    before: "Groups"
    after: "Groups"

    @property
    def parameters(self) -> int:
        """Their number."""
        return sum(map(len, self.before))

    @property
    def dropped(self) -> int:
        """How many of these are dropped."""
        return self.parameters - sum(map(len, self.after))


def operates(plan: Plan, *, in_part: bool = False) -> bool:
    """Whether the parameters of optimizers become others, not only get other names or places.

    In a partial fit torch deals the state to parameters that the file does not hold.
    """
    return in_part or not plan.keeps_tensors


def follow(
    opened: OpenedState,
    plan: Plan,
    target: OpenedDefinition | None,
    *,
    saved_from: OpenedDefinition | None,
) -> tuple[MovedOptimizer, ...]:
    """Work out how the optimizers of a file follow a plan that only renames and drops.

    Args:
        opened: The checkpoint.
        plan: The plan.
        target: The definition that the result fits, which tells the order of parameters; without
            one the order stays, and only the state of dropped parameters goes.
        saved_from: The class that the file was saved from; None takes the order of its keys.

    Raises:
        PlanError: They cannot follow.
    """
    if target is None:
        _expect_order_told(opened, plan)
        if not plan.dropped:
            return ()
    if plan.is_rename and plan.renamed and (paths := numbered_in_folder(opened)):
        raise _numbered_in_folder(opened, paths)
    new = target.definition if target else None
    return moved_optimizers(opened, plan, new, saved_from.definition if saved_from else None)


def regroup(
    opened: OpenedState,
    plan: Plan,
    target: OpenedDefinition | None,
    saved_from: OpenedDefinition | None,
    *,
    undoes: bool,
) -> "tuple[RegroupedOptimizer, ...]":
    """Work out how the optimizers of a file follow operations, or a partial fit.

    Args:
        opened: The checkpoint.
        plan: The plan.
        target: As in `follow`.
        saved_from: As in `follow`.
        undoes: Whether the plan undoes another one, which may have followed a class.

    Raises:
        PlanError: They cannot follow.
    """
    new = target.definition if target else None
    if (folder := folder_of(opened)) is not None:
        return _regroup_in_folder(opened, folder, plan, new)
    file = torch_file(opened.checkpoint)
    if file is None or not file.state.holds_more or _is_copy(file):
        return ()
    if undoes and new is None and file.state.optimizers:
        raise _unknown(
            opened,
            "the rules do not tell their order in the old class",
            new,
            named="--check OLD_DEF  names the class from before the rename, which tells its "
            "parameters",
        )
    if new is None:
        _expect_order_told(opened, plan)
    old = saved_from.definition if saved_from else None
    return regrouped_optimizers(opened, plan, new, old, of=opened.checkpoint)


def _expect_order_told(opened: OpenedState, plan: Plan) -> None:
    """Refuse rules that swap names of parameters, where no class tells what that means.

    Raises:
        PlanError: The new class may have them in the order of the file, or of their old names.
    """
    folder, optimizers = numbered_in_folder(opened), _optimizers(opened)
    if not (folder or optimizers) or not changes_order(opened, plan):
        return
    if folder:
        raise _numbered_in_folder(opened, folder)
    raise _unknown(opened, "the rules do not tell their order in the new class", None)


def regrouped_optimizers(
    opened: OpenedState,
    plan: Plan,
    new: "Definition | None",
    old: "Definition | None",
    *,
    of: Checkpoint,
) -> "tuple[RegroupedOptimizer, ...]":
    """Like `moved_optimizers`, for a plan that makes tensors; `of` holds the optimizers."""
    from ckpt.ops.rename.training.regrouped import regrouped

    file = torch_file(of)
    assert file is not None
    alone = of is not opened.checkpoint or not _strangers(opened)
    try:
        return regrouped(opened, file, of.source, plan, new, old, alone=alone)
    except ValueError as error:
        raise _unknown(opened, str(error), new) from error


def _regroup_in_folder(
    opened: OpenedState, folder: "DistributedCheckpoint", plan: Plan, new: "Definition | None"
) -> "tuple[RegroupedOptimizer, ...]":
    if not folder.optimizers:
        return ()
    expect_optimizer_named(opened, folder)
    if paths := numbered_in_folder(opened):
        raise PlanError(f"{opened.name}: {paths[0]} numbers its parameters", hint=_ALONE)
    from ckpt.ops.rename.training.regrouped import regrouped_in_folder

    try:
        return regrouped_in_folder(opened, folder, plan, new)
    except ValueError as error:
        raise PlanError(f"{opened.name}: {error}", hint=_ALONE) from error


def expect_optimizer_named(opened: OpenedState, folder: "DistributedCheckpoint") -> None:
    """Refuse to make or drop tensors of a folder unless its optimizer follows."""
    if folder.prefix and folder.follows and folder.prefix not in folder.optimizers:
        return
    held = folder.optimizers[0].removesuffix(".")
    weights = folder.prefix or folder.trained
    hint = _ALONE
    if weights and weights not in folder.optimizers:
        place = opened.name if folder.prefix else f"{opened.name}::{weights.removesuffix('.')}"
        hint = f"to take {held} along:  ckpt rename {place} --all\n{hint}"
    raise PlanError(
        f"{opened.name}: rules that make or drop tensors change the parameters of {held}", hint=hint
    )


def moved_optimizers(
    opened: OpenedState,
    plan: Plan,
    new: "Definition | None",
    old: "Definition | None",
    *,
    of: "TorchFile | None" = None,
) -> tuple[MovedOptimizer, ...]:
    """Work out which state belongs to which parameter of the new class.

    Args:
        opened: The checkpoint.
        plan: It only renames and drops.
        new: The class that the result fits; None keeps the order of the parameters.
        old: The class that the file was saved from; None takes the order of its keys.
        of: Another file, whose optimizers train the parameters of this one.

    Raises:
        PlanError: The order changes or parameters are dropped, and it is not known which state
            belongs to which parameter.
    """
    optimizers = _optimizers(opened) if of is None else of.state.optimizers
    if not optimizers:
        return ()
    try:
        known = candidates(opened, plan, new, old)
        sorted_groups = all(list(g) == sorted(g) for it in optimizers for g in it.groups)
        if not plan.dropped and known.in_order and sorted_groups:
            return ()
        found = belonging(optimizers, known, alone=of is not None or not _strangers(opened))
        orders = [(it, _order(it, owners, sort=new is not None)) for it, owners in found]
    except ValueError as error:
        raise _unknown(opened, str(error), new) from error
    return tuple(
        MovedOptimizer(it.name, it.groups, order) for it, order in orders if order != it.groups
    )


def keep_their_order(opened: OpenedState, plan: Plan, rules: Sequence[Rule]) -> tuple[str, ...]:
    """The paths of what a new class fits only if it has the same order of parameters."""
    numbered = (optimizer.name for optimizer in _optimizers(opened))
    paths = (*numbered, *numbered_in_folder(opened), *listed_by_place(opened))
    renaming = [rule for rule in rules if not isinstance(rule, Choice)]
    changed = paths and (plan.renamed or operates(plan))
    return paths if changed and for_another_class(plan, renaming) else ()


def folder_of(opened: OpenedState) -> "DistributedCheckpoint | None":
    """The checkpoint, if it is a folder of torch.distributed.checkpoint."""
    if opened.checkpoint.format != DISTRIBUTED:
        return None
    from ckpt.formats.distributed.folder import DistributedCheckpoint

    checkpoint = opened.checkpoint
    return checkpoint if isinstance(checkpoint, DistributedCheckpoint) else None


def weights_in(opened: OpenedState) -> str | None:
    """The weights that the optimizer of a folder trains, if the folder was named as a whole."""
    folder = folder_of(opened)
    trained = None if folder is None or folder.prefix else folder.trained
    return trained.removesuffix(".") if trained else None


def numbered_in_folder(opened: OpenedState) -> tuple[str, ...]:
    """The paths of the optimizers of such a folder that number their parameters."""
    folder = folder_of(opened)
    return tuple(prefix.removesuffix(".") for prefix in folder.numbered) if folder else ()


def for_another_class(plan: Plan, rules: Sequence[Rule]) -> bool:
    """Whether the result is for another class, as far as the rules of a plan tell.

    Wrappers and prefixes leave the class as it is.
    """
    changed = plan.renamed or not plan.is_rename
    return bool(changed) and not all(isinstance(rule, Unwrap | Strip | Add) for rule in rules)


def optimizer_in(opened: OpenedState) -> str | None:
    """The path of the first optimizer of a file of torch, unless an average is named."""
    file = torch_file(opened.checkpoint)
    return file.state.holders[0][0] if file and file.state.holders and not _is_copy(file) else None


def expect_weights(opened: OpenedState) -> None:
    """Refuse a file that holds the state of an optimizer or the like, and nothing else.

    Raises:
        PlanError: It does.
    """
    if kind := kind_of_file(opened.checkpoint):
        raise PlanError(f"{opened.name}: {kind}, without the weights of a model", hint=WEIGHTS_HINT)


def optimizers_document(moved: Iterable[MovedOptimizer]) -> dict[str, Any]:
    """The old and the new order of every optimizer, as a rule file and a manifest hold them.

    They are there for an undo, which cannot give back what was dropped.
    """
    return {
        optimizer.path: {
            "before": [list(group) for group in optimizer.before],
            "after": [list(group) for group in optimizer.after],
        }
        for optimizer in moved
        if not optimizer.dropped
    }


def read_optimizers(document: object) -> tuple[MovedOptimizer, ...]:
    """The inverse of `optimizers_document`.

    Raises:
        ValueError: It is not one.
    """
    if not isinstance(document, Mapping):
        raise ValueError("not a table")
    moved = []
    for path, orders in document.items():
        if not isinstance(orders, Mapping) or set(orders) != {"before", "after"}:
            raise ValueError(f"{path}: not an order before and after")
        before, after = (_groups(path, orders[word]) for word in ("before", "after"))
        if list(map(sorted, before)) != list(map(sorted, after)):
            raise ValueError(f"{path}: the two orders have different numbers")
        moved.append(MovedOptimizer(str(path), before, after))
    return tuple(moved)


def _groups(path: str, value: object) -> tuple[tuple[int, ...], ...]:
    if not isinstance(value, list) or not all(
        isinstance(group, list) and all(type(number) is int for number in group) for group in value
    ):
        raise ValueError(f"{path}: not lists of numbers")
    return tuple(map(tuple, value))


def _optimizers(opened: OpenedState) -> "Sequence[OptimizerState]":
    file = torch_file(opened.checkpoint)
    if file is None:
        return ()
    return () if _is_copy(file) else file.state.optimizers


def _is_copy(file: "TorchFile") -> bool:
    """Whether the ref names an average of the weights, which no optimizer trains."""
    words = set(re.split(r"[\W_]+", file.pickled.chosen.lower()))
    return not file.state.follows and bool(words & _AVERAGES)


def _numbered_in_folder(opened: OpenedState, paths: Sequence[str]) -> PlanError:
    return PlanError(
        f"{opened.name}: {paths[0]} numbers its parameters, and the new class may have them in "
        "another order",
        hint=_ALONE,
    )


def _unknown(
    opened: OpenedState, why: str, new: "Definition | None", *, named: str = ""
) -> PlanError:
    if new is not None:
        named = "--from OLD_DEF  names the class that the file was saved from"
    elif not named:
        named = "--check NEW_DEF  names the class of the result, which tells its parameters"
    return (PlanError if new is None else UnexplainedError)(
        f"{opened.name}: cannot tell which parameter the optimizer's state belongs to: {why}",
        hint=f"{named}\n--drop-optimizer  writes the file without its optimizer",
    )


def _strangers(opened: OpenedState) -> Sequence[str]:
    file = torch_file(opened.checkpoint)
    return file.state.strangers if file is not None else ()


def _order(
    optimizer: "OptimizerState", owners: Owners, *, sort: bool
) -> tuple[tuple[int, ...], ...]:
    """The groups without dropped parameters, the others perhaps in the order of the new class.

    Raises:
        ValueError: A group would be empty, which no scheduler expects.
    """
    groups = []
    for at, group in enumerate(optimizer.groups):
        kept = [number for number in group if owners[number] < GONE]
        if group and not kept:
            raise ValueError(f"all parameters of {optimizer.name}.param_groups.{at} are dropped")
        groups.append(tuple(sorted(kept, key=owners.__getitem__) if sort else kept))
    return tuple(groups)
