"""Optimizers in a file of torch: which parameter each part of their state belongs to.

torch's optimizers number their parameters, and `load_state_dict` matches the numbers by their
place in `param_groups`: state follows a new order of parameters if these lists get it. Law: the
numbers themselves stay, so that those of a group, sorted, have the order of the file's keys.
Source: torch 2.13, `torch.optim.Optimizer` (`state_dict`, `load_state_dict`).
"""

from collections.abc import Iterator, Mapping, Sequence
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

_LARGEST = 1 << 31  # number of a parameter


@dataclass(frozen=True, slots=True)
class OptimizerState:
    """The state of an optimizer that numbers its parameters.

    Attributes:
        path: From the root of the pickle.
        groups: The numbers of the parameters in every group, in their order.
        names: The lists of names of every group, as newer versions of torch save them; or none.
        shapes: By number, the shape of the parameter, as far as its state tells.
    """

    path: Path
    groups: Groups
    names: tuple[list[object], ...]
    shapes: Mapping[int, tuple[int, ...]]

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
    return OptimizerState(path, tuple(groups), named, shapes)


def _is_dict(node: object) -> bool:
    return isinstance(node, DictNode)


def _is_number(node: object) -> bool:
    return type(node) is int and 0 <= node < _LARGEST


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
