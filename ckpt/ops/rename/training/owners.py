"""Which parameter of a class each number of an optimizer belongs to.

Law: it is known, by names, counts and shapes, or it is an error; nothing is guessed.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckpt.opened.states import OpenedState
from ckpt.rules.expressions import sources_of
from ckpt.rules.plan import Plan
from ckpt.tensors import StateDict, TensorEntry

if TYPE_CHECKING:
    from ckpt.definitions import Definition, Parameter
    from ckpt.formats.optimizers import OptimizerState

GONE = 1 << 40  # and above: places of parameters that are dropped
_MOST_DEALS = 1000  # ways to deal parameters to groups that are followed side by side
_MANY_WAYS = "the groups of {} may hold its parameters in several ways"
_BUFFERS = {"running_mean", "running_var", "num_batches_tracked"}  # of torch's own modules

Owners = dict[int, int]  # the place in the new class of each parameter, by its number


@dataclass(frozen=True, slots=True)
class Candidates:
    """The parameters that optimizers of a state_dict may have.

    Attributes:
        choices: Lists of them in the old order, with their shapes; an optimizer has one of these.
        named: All by their old names.
        by_class: Whether the old order is that of a class, which an optimizer has by the places in
            its lists; else it is that of the file's keys, which it has by its numbers.
    """

    choices: "Sequence[Sequence[tuple[Parameter, tuple[int, ...]]]]"
    named: "Mapping[str, Parameter]"
    by_class: bool = False

    @property
    def in_order(self) -> bool:
        """Whether the new class has them in the old order."""
        places = [parameter.place for parameter, _ in self.choices[0]]
        return places == sorted(places)


def candidates(
    opened: OpenedState, plan: Plan, new: "Definition | None", old: "Definition | None"
) -> Candidates:
    """The parameters of a state_dict, with their places in the new class.

    Args:
        opened: The checkpoint.
        plan: It makes no tensors.
        new: The class that the result fits; None keeps the order, and takes all that may be one
            for a parameter.
        old: The class that the file was saved from; None takes the order of its keys.

    Raises:
        ValueError: The keys do not have the order of their class.
    """
    entries = {entry.key: entry for entry in opened.checkpoint.entries}
    keys = _keys_in_order(opened, old)
    named = _kept(plan, new, [entries[key] for key in keys])
    gone = _gone(plan, old, entries, named)
    named = {**named, **gone}
    seen, places = set[int](), []
    for key in keys:
        if key in named and named[key].place not in seen:  # optimizers see tied parameters once
            seen.add(named[key].place)
            places.append((named[key], entries[key].shape))
    choices = [places, [it for it in places if it[0].trained]]
    if gone and old is None and new is not None:  # they may not be parameters
        choices += [[it for it in choice if it[0].place < GONE] for choice in choices]
    return Candidates(choices, named, by_class=old is not None)


def old_parameters(
    opened: OpenedState, plan: Plan, new: "Sequence[Parameter] | None", old: "Definition | None"
) -> Candidates:
    """The parameters of a state_dict, with their places in its old class.

    Args:
        opened: The checkpoint.
        plan: It may make tensors of them.
        new: Those of the class that the result fits, which tell them if `old` does not.
        old: The class that the file was saved from; None takes the order of its keys.

    Raises:
        ValueError: The keys do not have the order of their class.
    """
    entries = {entry.key: entry for entry in opened.checkpoint.entries}
    ordered = [entries[key] for key in _keys_in_order(opened, old)]
    return parameters_among(ordered, plan, new, old)


def parameters_among(
    entries: Sequence[TensorEntry],
    plan: Plan,
    new: "Sequence[Parameter] | None",
    old: "Definition | None" = None,
) -> Candidates:
    """The same for a state_dict whose entries have the order of its class."""
    from ckpt.definitions import Parameter

    if old is not None:
        known = {it.key: it for it in old.parameters()}
        named = {entry.key: known[entry.key] for entry in entries}
    else:
        is_trained = _trained_after(plan, new)
        places: dict[Hashable, int] = {}
        named = {
            it.key: Parameter(it.key, places.setdefault(_tie(it), len(places)), trained)
            for it in entries
            if (trained := is_trained.get(it.key, may_be_parameter(it) or None)) is not None
        }
    shapes = {entry.key: entry.shape for entry in entries}
    seen, order = set[int](), []
    for key, parameter in named.items():
        if parameter.place not in seen:
            seen.add(parameter.place)
            order.append((parameter, shapes[key]))
    choices = [order, [it for it in order if it[0].trained]]
    if old is None and new is not None:  # what is dropped may not be a parameter
        gone = {named[it.key].place for it in plan.dropped if it.key in named}
        choices += [[it for it in choice if it[0].place not in gone] for choice in choices]
    return Candidates(choices, named, by_class=old is not None)


def _trained_after(plan: Plan, new: "Sequence[Parameter] | None") -> dict[str, bool | None]:
    """By old key, whether what is made of it is trained; None for what is not a parameter."""
    if new is None:
        return {}
    of = {parameter.key: parameter.trained for parameter in new}
    found: dict[str, bool | None] = {}
    for tensor in plan.tensors:
        for key in sources_of(tensor.made_of):
            if tensor.key in of:
                found[key] = bool(found.get(key)) or of[tensor.key]
            else:
                found.setdefault(key, None)
    return found


def _keys_in_order(opened: OpenedState, old: "Definition | None") -> list[str]:
    """The keys in the order of the class that the file was saved from.

    Raises:
        ValueError: The file does not tell.
    """
    own = {entry.key for entry in opened.checkpoint.entries}
    if old is not None:
        return [it.key for it in old.parameters() if it.key in own]
    if opened.checkpoint.pickled is None or len(opened.names) > 1:
        kind = "safetensors files" if len(opened.names) == 1 else "shards"
        raise ValueError(f"{kind} do not keep the order of their class")
    expect_order(opened.state)
    return [entry.key for entry in opened.checkpoint.entries]


def expect_order(state: StateDict) -> None:
    """Check that the keys have the order in which the class made them, as far as can be seen."""
    of_dtype: dict[str, list[str]] = {}  # safetensors sorts the keys of each dtype
    for entry in state.entries:
        of_dtype.setdefault(entry.dtype, []).append(entry.key)
    is_sorted = all(keys == sorted(keys) for keys in of_dtype.values())
    if not state.versions and len(state.entries) > 1 and is_sorted:
        raise ValueError("the keys of the file are sorted, which may not be the order of its class")
    modules = list(state.versions or ())
    place = {module: at for at, module in enumerate(modules)}
    seen = [place[m] for e in state.entries if (m := e.key.rpartition(".")[0]) in place]
    if seen != sorted(seen):
        raise ValueError("the keys of the file do not have the order of its class")


def _kept(
    plan: Plan, new: "Definition | None", entries: Iterable[TensorEntry]
) -> "dict[str, Parameter]":
    """The parameters of the result, by their old names."""
    new_keys = plan.new_keys
    if new is not None:
        of = {parameter.key: parameter for parameter in new.parameters()}
        return {key: of[name] for key, name in new_keys.items() if name in of}
    from ckpt.definitions import Parameter

    places: dict[Hashable, int] = {}
    return {
        entry.key: Parameter(entry.key, places.setdefault(_tie(entry), len(places)), trained=True)
        for entry in entries
        if entry.key in new_keys and may_be_parameter(entry)
    }


def _gone(
    plan: Plan,
    old: "Definition | None",
    entries: Mapping[str, TensorEntry],
    kept: "Mapping[str, Parameter]",
) -> "dict[str, Parameter]":
    """The parameters that are dropped; a tied name of one that is kept stands for that one."""
    if not plan.dropped:
        return {}
    from ckpt.definitions import Parameter

    known = None if old is None else {parameter.key: parameter for parameter in old.parameters()}

    def tie(key: str) -> Hashable:
        return _tie(entries[key]) if known is None else known[key].place

    found = {tie(key): it for key, it in kept.items() if known is None or key in known}
    gone = {}
    for at, key in enumerate(dropped.key for dropped in plan.dropped):
        if may_be_parameter(entries[key]) if known is None else key in known:
            trained = known is None or known[key].trained
            gone[key] = found.setdefault(tie(key), Parameter(key, GONE + at, trained))
    return gone


def _tie(entry: TensorEntry) -> Hashable:
    """The same for two entries of one tensor."""
    return (entry.offset, entry.shape, entry.stride) if entry.nbytes else entry.key


def changes_order(opened: OpenedState, plan: Plan) -> bool:
    """Whether old names come in another order, so that the new class cannot have the old order.

    Keys keep their places in a file. A class that keeps its names in their order, as a list of
    layers does, has the swapped parameters at other places.
    """
    entries = {it.key: it for it in opened.checkpoint.entries if may_be_parameter(it)}
    place: dict[Hashable, int] = {}
    for entry in entries.values():
        place.setdefault(_tie(entry), len(place))
    made_of = {
        tensor.key: min(place[_tie(entries[key])] for key in sources)
        for tensor in plan.tensors
        if (sources := [key for key in sources_of(tensor.made_of) if key in entries])
    }
    places = list(dict.fromkeys(made_of[key] for key in entries if key in made_of))
    return places != sorted(places)


def may_be_parameter(entry: TensorEntry) -> bool:
    """Whether it has a dtype that torch trains, and is not a buffer that every network has."""
    return "float" in entry.dtype and entry.key.rpartition(".")[2] not in _BUFFERS


def called(optimizer: "OptimizerState") -> str:
    """Its path for people; that of a file of its own is empty."""
    return optimizer.name or "the optimizer"


def belonging(
    optimizers: "Sequence[OptimizerState]", known: Candidates, *, alone: bool
) -> "list[tuple[OptimizerState, Owners]]":
    """The optimizers of the state_dict, each with the places of its parameters.

    All of the file's if it is `alone` there; else the one that has these parameters.

    Raises:
        ValueError: It is not known; the message says why.
    """
    found, why = [], None
    for optimizer in optimizers:
        try:
            found.append((optimizer, _dealt(optimizer, known)))
        except ValueError as error:
            why = why or error
    if why is not None and (alone or not found):
        raise why
    if len(found) > 1 and not alone:
        raise ValueError(f"{' or '.join(called(it) for it, _ in found)} may belong to it")
    return found


def _dealt(optimizer: "OptimizerState", known: Candidates) -> Owners:
    """The place in the new class of each parameter that an optimizer has, by its number.

    Raises:
        ValueError: It is not known; the message says why.
    """
    if optimizer.joint:
        raise ValueError(f"the state of {called(optimizer)} is of all parameters in one")
    numbers = [number for group in optimizer.groups for number in group]
    names = [str(name) for group in optimizer.names for name in group]
    if names and all(name in known.named for name in names):
        return {n: known.named[name].place for n, name in zip(numbers, names, strict=True)}
    found: list[Owners] = []
    why: ValueError | None = None
    for choice in known.choices:
        if len(choice) == len(numbers):
            try:
                found.append(_dealt_in_order(optimizer, choice, by_class=known.by_class))
            except ValueError as error:
                why = why or error
    if found and all(owners == found[0] for owners in found):
        return found[0]
    if found:
        raise ValueError(_MANY_WAYS.format(called(optimizer)))
    counts = " or ".join(f"{count:,}" for count in sorted(set(map(len, known.choices))))
    raise why or ValueError(
        f"{called(optimizer)} has {len(numbers):,} parameters, the model has {counts}"
    )


def _dealt_in_order(
    optimizer: "OptimizerState",
    places: "Sequence[tuple[Parameter, tuple[int, ...]]]",
    *,
    by_class: bool,
) -> Owners:
    """Deal parameters to groups, each of which keeps their order, if there is only one way."""
    groups = [list(group) if by_class else sorted(group) for group in optimizer.groups]
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
            raise ValueError(f"the shapes of {called(optimizer)} are not those of the parameters")
        if len(level) > _MOST_DEALS:
            raise ValueError(_MANY_WAYS.format(called(optimizer)))
        levels.append(level)
    owners: Owners = {}
    state = tuple(map(len, groups))
    for (parameter, _), level in zip(reversed(places), reversed(levels), strict=False):
        at = level[state]
        if at < 0:
            raise ValueError(_MANY_WAYS.format(called(optimizer)))
        state = (*state[:at], state[at] - 1, *state[at + 1 :])
        owners[groups[at][state[at]]] = parameter.place
    return owners
