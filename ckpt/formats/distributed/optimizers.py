"""The optimizers of a folder of `torch.distributed.checkpoint`, as those of a file of torch."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from ckpt.formats.distributed.folder import DistributedCheckpoint
from ckpt.formats.distributed.followers import GROUPS, STATE, is_list_of_names
from ckpt.formats.optimizers import LISTS, HeldOptimizer, Parameter
from ckpt.formats.pickle.nodes import DictNode
from ckpt.formats.pickle.writer import tensor_node
from ckpt.tensors import TensorEntry


@dataclass(frozen=True, slots=True)
class FolderOptimizers:
    """The optimizers of a folder, which name their parameters.

    Attributes:
        held: By prefix, such as ``optimizer.``.
        entries: By the identity of a node in them, the tensor that it stands for.
    """

    held: dict[str, HeldOptimizer] = field(default_factory=dict)
    entries: dict[int, TensorEntry] = field(default_factory=dict)


def folder_optimizers(folder: DistributedCheckpoint) -> FolderOptimizers:
    """Read the optimizers of a folder.

    Raises:
        ValueError: One has an unknown form.
    """
    found = FolderOptimizers()
    for prefix in folder.optimizers:
        nodes = dict[str, object]()
        for key in folder.of_optimizer(prefix):
            entry = folder.tensors.get(key)
            if entry is None:
                node = folder.root(key)
            else:
                node = tensor_node(entry, key, "cpu", legacy=False)
                found.entries[id(node)] = entry
            nodes[key.removeprefix(prefix)] = node
        found.held[prefix] = _held(prefix, nodes)
    return found


def _held(prefix: str, nodes: Mapping[str, object]) -> HeldOptimizer:
    flat = not any(is_list_of_names(key, ("",)) for key in nodes)
    options = _options(nodes, flat=flat)
    groups, names = list[tuple[str, ...]](), list[tuple[str, ...]]()
    if flat:
        groups += ((name,) for name in options)
    else:
        groups += (_names(prefix, given.get("params")) for given in options.values())
        if all("param_names" in given for given in options.values()):
            names = [_names(prefix, given["param_names"]) for given in options.values()]
    state: dict[Parameter, dict[str, object]] = {}
    known = {name for group in groups for name in group}
    for key, node in nodes.items():
        if key.startswith(STATE):
            name, of = _parts(prefix, key, known)
            state.setdefault(name, {})[of] = node
    return HeldOptimizer(
        prefix.removesuffix("."),
        DictNode([]),
        tuple(groups),
        tuple(names),
        state,
        tuple(
            {key: it for key, it in given.items() if flat or key not in LISTS}
            for given in options.values()
        ),
        flat,
    )


def _options(nodes: Mapping[str, object], *, flat: bool) -> dict[str, dict[str, object]]:
    """By the number of a group, or the name of a flat one's parameter, what is set for it."""
    found = dict[str, dict[str, object]]()
    for key, node in nodes.items():
        if key.startswith(GROUPS):
            rest = key.removeprefix(GROUPS)
            group, _, of = rest.rpartition(".") if flat else rest.partition(".")
            found.setdefault(group, {})[of] = node
    if flat:
        return found
    return {str(number): found.get(str(number), {}) for number in range(len(found))}


def _parts(prefix: str, key: str, known: Container[str]) -> tuple[str, str]:
    """The parameter, and what its state calls the rest of a key."""
    rest = name = key.removeprefix(STATE)
    while name not in known:
        name, dot, _ = name.rpartition(".")
        if not dot:
            raise ValueError(
                f"{prefix}{key} is not of a parameter that {prefix}{GROUPS[:-1]} names"
            )
    return name, rest.removeprefix(f"{name}.")


def _names(prefix: str, node: object) -> tuple[str, ...]:
    names = [str(it) for it in node if isinstance(it, str)] if isinstance(node, list) else []
    if not isinstance(node, list) or len(names) != len(node):
        raise ValueError(f"{prefix}{GROUPS[:-1]} does not name its parameters")
    return tuple(names)
