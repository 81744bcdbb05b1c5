"""Tensors in lists that have the order of a class's parameters, such as the averages of torch_ema.

Nothing but its place tells which parameter one belongs to. Law: they are not handed on if a plan
gives the parameters another order, or makes others of them.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

from ckpt.errors import PlanError
from ckpt.formats.opaque import torch_file
from ckpt.opened.states import OpenedState
from ckpt.ops.rename.training.owners import (
    candidates,
    changes_order,
    may_be_parameter,
    old_parameters,
)
from ckpt.rules.plan import Plan

if TYPE_CHECKING:
    from ckpt.definitions import Definition

_Shapes = list[tuple[int, ...]]


def expect_no_lists(
    opened: OpenedState, plan: Plan, new: "Definition | None", old: "Definition | None"
) -> None:
    """Refuse to leave such tensors in an order that is not that of the parameters any more.

    Args:
        opened: The checkpoint.
        plan: The plan.
        new: The class that the result fits; None keeps the order, unless names are swapped.
        old: The class that the file was saved from; None takes the order of its keys.

    Raises:
        PlanError: The file holds some.
    """
    if not _lists(opened):
        return
    swapped = new is None and changes_order(opened, plan)
    if new is None and plan.is_rename and not swapped:
        return
    try:
        if plan.keeps_tensors:
            known = candidates(opened, plan, new, old)
            stays = known.in_order and not plan.dropped and not swapped
        else:
            after = None if new is None else new.parameters()
            known, stays = old_parameters(opened, plan, after, old), False
        shapes = [[shape for _, shape in choice] for choice in known.choices]
    except ValueError:  # the old order is not known
        stays, shapes = False, _shapes(opened)
    found = () if stays else _alike(opened, shapes)
    if found:
        raise PlanError(
            f"{opened.name}: {found[0]} holds tensors by the places of the parameters, "
            f"which the result {'may have' if swapped else 'has'} at other places",
            hint="-o NEW.safetensors  writes the tensors of the state_dict alone",
        )


def listed_by_place(opened: OpenedState) -> tuple[str, ...]:
    """The paths of lists that may have the order of the parameters."""
    return _alike(opened, _shapes(opened)) if _lists(opened) else ()


def _lists(opened: OpenedState) -> dict[str, _Shapes]:
    """The shapes of such tensors, by path."""
    file = torch_file(opened.checkpoint)
    listed = file.state.listed if file is not None else {}
    return {path: [entry.shape for entry in it] for path, it in listed.items() if len(it) > 1}


def _shapes(opened: OpenedState) -> list[_Shapes]:
    return [[entry.shape for entry in opened.checkpoint.entries if may_be_parameter(entry)]]


def _alike(opened: OpenedState, shapes: Collection[_Shapes]) -> tuple[str, ...]:
    """Those with as many tensors of each shape as the parameters; groups may have their order."""
    every = [sorted(some) for some in shapes]
    return tuple(path for path, own in _lists(opened).items() if sorted(own) in every)
