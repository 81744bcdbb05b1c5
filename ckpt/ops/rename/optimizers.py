"""How the optimizers of a file follow a rename to a class with another order of parameters.

torch's optimizers match their state by the place of a parameter. Law: state moves to the parameter
that it belongs to, or the rename is refused; nothing is guessed.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckpt.errors import PlanError
from ckpt.formats.opaque import kind_of_file, torch_file
from ckpt.formats.pickle.describe import WEIGHTS_HINT
from ckpt.opened import OpenedDefinition, OpenedState
from ckpt.rules.plan import Plan
from ckpt.rules.planned import Rule
from ckpt.rules.prefixes import Add, Strip, Unwrap
from ckpt.tensors import StateDict

if TYPE_CHECKING:
    from ckpt.definitions import Definition, Parameter
    from ckpt.formats.optimizers import Groups, OptimizerState
    from ckpt.formats.torch_state import TorchFile

_MOST_DEALS = 1000  # ways to deal parameters to groups that are followed side by side
_AVERAGES = {"ema", "swa", "avg", "average", "averaged", "teacher", "shadow"}  # words in a path


@dataclass(frozen=True, slots=True)
class MovedOptimizer:
    """An optimizer whose state gets a new order.

    Attributes:
        path: Where it is in the file.
        before: The numbers of the parameters in its groups, in the old order.
        after: The same in the new order.
    """

    path: str
    before: "Groups"
    after: "Groups"

    @property
    def parameters(self) -> int:
        """Their number."""
        return sum(map(len, self.before))


def follow(
    opened: OpenedState,
    plan: Plan,
    target: OpenedDefinition | None,
    *,
    saved_from: OpenedDefinition | None,
) -> tuple[MovedOptimizer, ...]:
    """Work out how the optimizers of a file follow a plan.

    Args:
        opened: The checkpoint.
        plan: The plan.
        target: The definition that the result fits, which tells the order of parameters.
        saved_from: The class that the file was saved from; None takes the order of its keys.

    Raises:
        PlanError: They cannot follow.
    """
    if plan.made:
        expect_no_optimizer(opened)
    if target is None or not plan.is_rename:
        return ()
    return moved_optimizers(
        opened, plan, target.definition, saved_from.definition if saved_from else None
    )


def moved_optimizers(
    opened: OpenedState, plan: Plan, new: "Definition", old: "Definition | None"
) -> tuple[MovedOptimizer, ...]:
    """Work out which state belongs to which parameter of the new class.

    Args:
        opened: The checkpoint.
        plan: It only renames.
        new: The class that the result fits.
        old: The class that the file was saved from; None takes the order of its keys.

    Raises:
        PlanError: The order changes, and it is not known which state belongs to which parameter.
    """
    optimizers = _optimizers(opened)
    if not optimizers:
        return ()
    new_keys = plan.new_keys
    parameters = {parameter.key: parameter for parameter in new.parameters()}
    keys = [entry.key for entry in opened.entries]
    if old is not None:
        keys = [parameter.key for parameter in old.parameters()]
    before = _unique(parameters[n] for key in keys if (n := new_keys.get(key)) in parameters)
    shapes = {new_keys.get(entry.key): entry.shape for entry in opened.entries}
    places = [(it, shapes[it.key]) for it in before]
    named = {key: parameters[n] for key, n in new_keys.items() if n in parameters}
    try:
        if old is None:
            _expect_order(opened.state)
        in_order = [it.place for it in before] == sorted(it.place for it in before)
        if in_order and all(list(g) == sorted(g) for it in optimizers for g in it.groups):
            return ()
        found = _belonging(optimizers, places, named, alone=not _strangers(opened))
    except ValueError as error:
        raise _unknown(opened, str(error)) from error
    return tuple(
        MovedOptimizer(it.name, it.groups, order)
        for it, owners in found
        if (order := _order(it, owners)) != it.groups
    )


def keep_their_order(opened: OpenedState, plan: Plan, rules: Sequence[Rule]) -> tuple[str, ...]:
    """The paths of optimizers that a new class fits only if it has the same order of parameters.

    Wrappers and prefixes leave the class as it is.
    """
    same_class = all(isinstance(rule, Unwrap | Strip | Add) for rule in rules)
    if same_class or not (plan.is_rename and plan.renamed):
        return ()
    return tuple(optimizer.name for optimizer in _optimizers(opened))


def expect_no_optimizer(opened: OpenedState) -> None:
    """Refuse to make tensors whose optimizer has state for the old ones.

    Raises:
        PlanError: The file has an optimizer, whose state cannot follow.
    """
    file = torch_file(opened.checkpoint)
    if file is not None and file.state.holders and not _is_copy(file):
        path, _ = file.state.holders[0]
        raise PlanError(
            f"{opened.name}: the rules make new tensors, and {path} has state for the old ones",
            hint="--drop-optimizer  writes the file without it",
        )


def expect_weights(opened: OpenedState) -> None:
    """Refuse a file that holds the state of an optimizer or the like, and nothing else.

    Raises:
        PlanError: It does.
    """
    if kind := kind_of_file(opened.checkpoint):
        raise PlanError(f"{opened.name}: {kind}, without the weights of a model", hint=WEIGHTS_HINT)


def optimizers_document(moved: Iterable[MovedOptimizer]) -> dict[str, Any]:
    """The old and the new order of every optimizer, as a rule file and a manifest hold them."""
    return {
        optimizer.path: {
            "before": [list(group) for group in optimizer.before],
            "after": [list(group) for group in optimizer.after],
        }
        for optimizer in moved
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


def _unknown(opened: OpenedState, why: str) -> PlanError:
    return PlanError(
        f"{opened.name}: cannot tell which parameter the optimizer's state belongs to: {why}",
        hint="--from OLD_DEF  names the class that the file was saved from\n"
        "--drop-optimizer  writes the file without its optimizer",
    )


def _unique(parameters: "Iterator[Parameter]") -> "list[Parameter]":
    """The first of every place: optimizers see tied parameters once."""
    first: dict[int, Parameter] = {}
    for parameter in parameters:
        first.setdefault(parameter.place, parameter)
    return list(first.values())


def _expect_order(state: StateDict) -> None:
    """Check that the keys have the order in which the class made them, as far as can be seen."""
    keys = [entry.key for entry in state.entries]
    if not state.versions and len(keys) > 1 and keys == sorted(keys):
        raise ValueError("the keys of the file are sorted, which may not be the order of its class")
    modules = list(state.versions or ())
    place = {module: at for at, module in enumerate(modules)}
    seen = [place[m] for e in state.entries if (m := e.key.rpartition(".")[0]) in place]
    if seen != sorted(seen):
        raise ValueError("the keys of the file do not have the order of its class")


def _belonging(
    optimizers: "Sequence[OptimizerState]",
    places: "Sequence[tuple[Parameter, tuple[int, ...]]]",
    named: "Mapping[str, Parameter]",
    *,
    alone: bool,
) -> "list[tuple[OptimizerState, dict[int, int]]]":
    """The optimizers of the state_dict, each with the places of its parameters.

    All of the file's if it is `alone` there; else the one that has these parameters.

    Raises:
        ValueError: It is not known; the message says why.
    """
    found, why = [], None
    for optimizer in optimizers:
        try:
            found.append((optimizer, _dealt(optimizer, places, named)))
        except ValueError as error:
            why = why or error
    if why is not None and (alone or not found):
        raise why
    if len(found) > 1 and not alone:
        raise ValueError(f"{' or '.join(it.name for it, _ in found)} may belong to it")
    return found


def _strangers(opened: OpenedState) -> Sequence[str]:
    file = torch_file(opened.checkpoint)
    return file.state.strangers if file is not None else ()


def _dealt(
    optimizer: "OptimizerState",
    places: "Sequence[tuple[Parameter, tuple[int, ...]]]",
    named: "Mapping[str, Parameter]",
) -> dict[int, int]:
    """The place in the new class of each parameter that an optimizer has, by its number.

    Args:
        optimizer: The optimizer.
        places: All parameters in the old order, with their shapes.
        named: The parameters by their old names.

    Raises:
        ValueError: It is not known; the message says why.
    """
    numbers = [number for group in optimizer.groups for number in group]
    names = [str(name) for group in optimizer.names for name in group]
    if names and all(name in named for name in names):
        return {number: named[name].place for number, name in zip(numbers, names, strict=True)}
    for known in (places, [place for place in places if place[0].trained]):
        if len(known) == len(numbers):
            return _dealt_in_order(optimizer, known)
    raise ValueError(
        f"{optimizer.name} has {len(numbers):,} parameters, the class has {len(places):,}"
    )


def _dealt_in_order(
    optimizer: "OptimizerState", places: "Sequence[tuple[Parameter, tuple[int, ...]]]"
) -> dict[int, int]:
    """Deal parameters to groups, each of which keeps their order, if there is only one way."""
    groups = [sorted(group) for group in optimizer.groups]
    start = (0,) * len(groups)
    levels: list[dict[tuple[int, ...], int]] = [{start: -1}]  # and the last group dealt to
    for _, shape in places:
        level: dict[tuple[int, ...], int] = {}
        for state in levels[-1]:
            for at, group in enumerate(groups):
                if (
                    state[at] < len(group)
                    and optimizer.shapes.get(group[state[at]], shape) == shape
                ):
                    after = (*state[:at], state[at] + 1, *state[at + 1 :])
                    level[after] = -2 if after in level else at
        if not level:
            raise ValueError(f"the shapes of {optimizer.name} are not those of the parameters")
        if len(level) > _MOST_DEALS:
            raise ValueError(_MANY_WAYS.format(optimizer.name))
        levels.append(level)
    owners: dict[int, int] = {}
    state = tuple(map(len, groups))
    for (parameter, _), level in zip(reversed(places), reversed(levels), strict=False):
        at = level[state]
        if at < 0:
            raise ValueError(_MANY_WAYS.format(optimizer.name))
        state = (*state[:at], state[at] - 1, *state[at + 1 :])
        owners[groups[at][state[at]]] = parameter.place
    return owners


_MANY_WAYS = "the groups of {} may hold its parameters in several ways"


def _order(optimizer: "OptimizerState", owners: Mapping[int, int]) -> tuple[tuple[int, ...], ...]:
    """The groups, each with its parameters in the order of the new class."""
    return tuple(tuple(sorted(group, key=owners.__getitem__)) for group in optimizer.groups)
