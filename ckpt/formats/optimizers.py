"""Optimizers in a file of torch: which parameter each part of their state belongs to.

torch's optimizers number their parameters, and `load_state_dict` matches the numbers by their
place in `param_groups`: state follows a new order of parameters if these lists get it. Law: the
numbers themselves stay, so that those of a group, sorted, have the order of the file's keys.
`torch.distributed` names the parameters, nested (``state`` by name) or flat
(``state.fc.weight.exp_avg``, ``param_groups.fc.weight.lr``).
Source: torch 2.13, `torch.optim.Optimizer` (`state_dict`, `load_state_dict`), and
`torch/distributed/checkpoint/state_dict.py`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ckpt.formats.pickle.describe import is_tensor
from ckpt.formats.pickle.edit import Edit, number_edit
from ckpt.formats.pickle.find import Contents, Path, dotted
from ckpt.formats.pickle.nodes import DictNode, Number, Text
from ckpt.formats.pickle.reader import read_numbered
from ckpt.formats.pickle.tensors import sizes_of

Groups = Sequence[Sequence[int]]  # the numbers of the parameters in every group, in their order
# Tensors of the parameter's own shape, in the optimizers of torch.
MOMENTS = frozenset({
    *("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg"),
    *("acc_delta", "grad_avg", "sum", "ax", "prev", "step_size"),
})  # fmt: skip

Parameter = int | str  # its number, or its name
Fields = Mapping[str, object]  # the nodes of a parameter's state, such as ``exp_avg``
LISTS = ("params", "param_names")
_JOINT = "prev_flat_grad"  # of LBFGS: the gradients of all parameters, in their order


@dataclass(frozen=True, slots=True)
class OptimizerState:
    """The state of an optimizer that numbers its parameters.

    Attributes:
        path: From the root of the pickle.
        groups: The numbers of the parameters in every group, in their order.
        names: The lists of names of every group, as newer versions of torch save them; or none.
        shapes: By number, the shape of the parameter, as far as its state tells.
        joint: Whether its state is of all parameters in one, as that of LBFGS.
    """

    path: Path
    groups: Groups
    names: tuple[list[object], ...]
    shapes: Mapping[int, tuple[int, ...]]
    joint: bool

    @property
    def name(self) -> str:
        """Its dotted path."""
        return dotted(self.path)

    def renamed(self, order: Groups, new_keys: Mapping[str, str]) -> list[tuple[Text, str]]:
        """The names of the parameters, with those that take their places."""
        renames = []
        for before, names, after in zip(self.groups, self.names, order, strict=False):
            named = dict(zip(before, map(str, names), strict=True))
            for text, number in zip(names, after, strict=True):
                if isinstance(text, Text):
                    renames.append((text, new_keys.get(named[number], named[number])))
        return renames


@dataclass(frozen=True, slots=True)
class HeldOptimizer:
    """An optimizer in a pickle.

    Attributes:
        path: Its dotted path.
        node: The mapping that it is.
        groups: The parameters of every group, in their order; if it is flat, each has its own.
        names: The lists of names beside the numbers, for every group; or none.
        state: By parameter; one without a step yet has none.
        options: Of every group, without the lists of parameters.
        flat: Whether it is flat.
    """

    path: str
    node: DictNode
    groups: tuple[tuple[Parameter, ...], ...]
    names: tuple[tuple[str, ...], ...]
    state: Mapping[Parameter, Fields]
    options: tuple[Fields, ...]
    flat: bool = False

    @property
    def is_numbered(self) -> bool:
        """Whether it numbers its parameters."""
        return any(type(it) is int for group in self.groups for it in group)

    @property
    def is_joint(self) -> bool:
        """Whether its state is of all parameters in one, as that of LBFGS."""
        return any(_JOINT in fields for fields in self.state.values())


def optimizers_of(contents: Contents) -> tuple[OptimizerState, ...]:
    """The optimizers that number their parameters."""
    return tuple(
        found
        for path, node in contents.optimizers
        if all(isinstance(part, str | int) for part in path)
        and (found := _read(path, node)) is not None
    )


def reordering(pickle: bytes, name: str, orders: Mapping[Path, Groups]) -> Iterator[Edit]:
    """The edits of a pickle that give the groups of optimizers another order.

    Args:
        pickle: Its bytes.
        name: Of the pickle, for messages.
        orders: By the path of the optimizer.
    """
    root = read_numbered(pickle, name=name)
    for path, order in orders.items():
        for at, group in enumerate(order):
            params = _at(root, (*path, "param_groups", at, "params"))
            assert isinstance(params, list)
            for old, new in zip(params, group, strict=True):
                assert isinstance(old, Number)
                if old != new:
                    yield number_edit(old, new)


def with_groups(optimizer: DictNode, groups: Groups) -> dict[int, object]:
    """By identity, the nodes of an optimizer that change if its groups keep these parameters.

    They are numbered again, so that the lowest number that is kept becomes 0, as torch does.
    """
    numbers = sorted(number for group in groups for number in group)
    number = {old: new for new, old in enumerate(numbers)}
    fields = {str(key): value for key, value in optimizer.items}
    state = fields["state"]
    assert isinstance(state, DictNode)
    assert isinstance(fields["param_groups"], list)
    items: list[tuple[object, object]] = []
    for key, value in state.items:
        if type(key) is not int or key in number:
            items.append((number.get(key, key) if type(key) is int else key, value))
    instead: dict[int, object] = {id(state): DictNode(items, state.ordered, state.state)}
    for group, kept in zip(fields["param_groups"], groups, strict=True):
        given = {str(key): value for key, value in group.items}
        before, names = given["params"], given.get("param_names")
        instead[id(before)] = [number[old] for old in kept]
        if isinstance(names, list) and len(names) == len(before):
            name_of = dict(zip(before, names, strict=True))
            instead[id(names)] = [name_of[old] for old in kept]
    return instead


def held_optimizers(
    holders: Iterable[tuple[str, DictNode]], beside: Mapping[str, object]
) -> Sequence[HeldOptimizer]:
    """All optimizers of a file whose form is known.

    Args:
        holders: Every optimizer that is not flat, with its path.
        beside: By path, other mappings of the file.
    """
    nested = (_nested(path, node) for path, node in holders)
    mappings = ((path, it) for path, it in beside.items() if isinstance(it, DictNode))
    flat = (_flat(path, node) for path, node in mappings)
    return [held for held in (*nested, *flat) if held is not None]


def with_parameters(
    held: HeldOptimizer,
    groups: Sequence[Sequence[str]],
    state: Mapping[str, Fields],
    called: Mapping[str, Parameter],
) -> dict[int, object]:
    """By identity, the nodes that change if an optimizer gets other parameters.

    Args:
        held: The optimizer.
        groups: The keys of the new parameters of every group.
        state: Theirs.
        called: How the optimizer numbers or names them.
    """
    if held.flat:
        return {id(held.node): _flattened(held, groups, state, called)}
    fields = _fields(held.node)
    old, lists = fields["state"], fields["param_groups"]
    assert isinstance(old, DictNode)
    assert isinstance(lists, list)
    mine = {it for group in held.groups for it in group}
    keys = [key for key in called if key in state]
    items: list[tuple[object, object]] = [
        (called[key], DictNode(list(state[key].items()))) for key in keys
    ]
    items += [(key, value) for key, value in old.items if _plain(key) not in mine]
    instead: dict[int, object] = {id(old): DictNode(items, old.ordered, old.state)}
    for node, group in zip(lists, groups, strict=True):
        given = _fields(node)
        instead[id(given["params"])] = [called[key] for key in group]
        if held.names:
            instead[id(given["param_names"])] = list(group)
    return instead


def _read(path: Path, node: DictNode) -> OptimizerState | None:
    fields = {str(key): value for key, value in node.items}
    groups, names = [], []
    for group in fields["param_groups"] if isinstance(fields["param_groups"], list) else ():
        given = {str(key): value for key, value in group.items} if _is_dict(group) else {}
        numbers = given.get("params")
        if not isinstance(numbers, list) or not all(map(_is_number, numbers)):
            return None
        groups.append(tuple(numbers))
        texts = given.get("param_names")
        if isinstance(texts, list) and len(texts) == len(numbers):
            names.append(texts)
    flat = [number for group in groups for number in group]
    state = fields["state"]
    if not flat or len(set(flat)) != len(flat) or not isinstance(state, DictNode):
        return None
    shapes = {key: size for key, of in state.items if type(key) is int and (size := _shape(of))}
    named = tuple(names) if len(names) == len(groups) else ()
    joint = any(_JOINT in _fields(of) for _, of in state.items)
    return OptimizerState(path, tuple(groups), named, shapes, joint)


def _is_dict(node: object) -> bool:
    return isinstance(node, DictNode)


def _is_number(node: object) -> bool:
    return type(node) is int and node >= 0


def _shape(state: object) -> tuple[int, ...] | None:
    """The shape of a parameter, by its moments; None if they do not tell or differ."""
    shapes = set()
    for key, value in state.items if isinstance(state, DictNode) else ():
        if key in MOMENTS and is_tensor(value) and len(value.arguments) > 2:
            try:
                shapes.add(sizes_of(value.arguments[2]))
            except ValueError:
                return None
    return shapes.pop() if len(shapes) == 1 else None


def _at(node: object, path: Path) -> object:
    for part in path:
        if isinstance(node, DictNode):
            node = next((value for key, value in node.items if key == part), None)
        elif isinstance(node, list | tuple) and isinstance(part, int):
            node = node[part]
        else:
            return None
    return node


def _nested(path: str, node: DictNode) -> HeldOptimizer | None:
    fields = _fields(node)
    state, listed = fields["state"], fields["param_groups"]
    if not isinstance(state, DictNode) or not isinstance(listed, list):
        return None
    given = [_fields(group) for group in listed if isinstance(group, DictNode)]
    groups = [_parameters(group.get("params")) for group in given]
    flat = [it for group in groups for it in group or ()]
    if len(given) != len(listed) or None in groups or len(set(flat)) != len(flat):
        return None
    if len({type(it) for it in flat}) != 1:
        return None
    names = [_parameters(group.get("param_names")) for group in given]
    known = all(
        group is not None and name is not None and len(group) == len(name)
        for group, name in zip(groups, names, strict=True)
    )
    return HeldOptimizer(
        path,
        node,
        tuple(group or () for group in groups),
        tuple(tuple(map(str, name or ())) for name in names) if known else (),
        {p: _fields(of) for key, of in state.items if (p := _plain(key)) is not None},
        tuple({k: v for k, v in group.items() if k not in LISTS} for group in given),
    )


def _flat(path: str, node: DictNode) -> HeldOptimizer | None:
    found: dict[str, dict[str, dict[str, object]]] = {"state": {}, "param_groups": {}}
    for key, value in node.items:
        top, _, rest = str(key).partition(".")
        name, dot, field = rest.rpartition(".")
        if not isinstance(key, str) or top not in found or not dot:
            return None
        found[top].setdefault(name, {})[field] = value
    groups = found["param_groups"]
    if not groups:
        return None
    return HeldOptimizer(
        path,
        node,
        tuple((name,) for name in groups),
        (),
        {name: fields for name, fields in found["state"].items() if name in groups},
        tuple(groups.values()),
        flat=True,
    )


def _flattened(
    held: HeldOptimizer,
    groups: Sequence[Sequence[str]],
    state: Mapping[str, Fields],
    called: Mapping[str, Parameter],
) -> DictNode:
    items: list[tuple[object, object]] = []
    for group in groups:
        for name in group:
            fields = state.get(name, {})
            items += ((f"state.{called[name]}.{key}", value) for key, value in fields.items())
    for options, group in zip(held.options, groups, strict=True):
        for name in group:
            items += ((f"param_groups.{called[name]}.{k}", value) for k, value in options.items())
    return DictNode(items, held.node.ordered, held.node.state)


def _parameters(node: object) -> tuple[Parameter, ...] | None:
    if not isinstance(node, list):
        return None
    found = [_plain(item) for item in node]
    return tuple(it for it in found if it is not None) if None not in found else None


def _plain(node: object) -> Parameter | None:
    if type(node) is int:
        return node
    return str(node) if isinstance(node, str) else None


def _fields(node: object) -> dict[str, object]:
    return {str(key): value for key, value in node.items} if isinstance(node, DictNode) else {}
