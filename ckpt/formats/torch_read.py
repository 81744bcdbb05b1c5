"""Reads the state_dict in a pickle of `torch.save`: which one it is, its tensors, and the rest."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ckpt.errors import FormatError
from ckpt.formats.checkpoint import Pickled
from ckpt.formats.optimizers import (
    OptimizerState,
    optimizers_of,
)
from ckpt.formats.pickle.choose import choose, expect_independent, strangers_of
from ckpt.formats.pickle.describe import SHOWN_ITEMS, describe, free_name, is_tensor
from ckpt.formats.pickle.find import ALL, COPIES, Chosen, Contents, dotted, find
from ckpt.formats.pickle.keys import copied_keys
from ckpt.formats.pickle.nodes import DictNode
from ckpt.formats.pickle.reader import ParsedPickle
from ckpt.formats.pickle.tensors import (
    Storages,
    entries_of,
    entry_of,
    metadata_of,
    plain_of,
)
from ckpt.formats.subclasses import expect_no_subclass, subclass_of
from ckpt.formats.torch_state import TorchState
from ckpt.io.sources import ByteSource
from ckpt.tensors import TensorEntry

_STEPS = 3  # for each opcode; a node that is not shared takes two at most


def read_state(
    read: ParsedPickle,
    storages: Storages,
    *,
    source: ByteSource,
    container: str,
    where: str,
    inside: str | None,
) -> TorchState:
    """The state_dict that a ref names, and the rest.

    Args:
        read: The pickle.
        storages: Those that the pickle names.
        source: The file.
        container: The name of its format.
        where: Of the pickle, for messages.
        inside: As after ``FILE::``.

    Raises:
        SubclassError: A tensor is of a subclass, such as DTensor.
        FormatError: The choice is ambiguous, or a tensor is not well-formed.
    """
    name = source.name
    contents = find(read.root, name=where, step_limit=_STEPS * read.opcodes + 1000)
    expect_no_subclass(contents, read, storages, source, container=container, where=where)
    chosen = choose(contents, inside, name=name)
    expect_independent(contents, chosen, name=name)
    entries = entries_of(chosen.tensors, storages, name=name)
    inside_it = {id(tensor) for _, tensor in chosen.tensors}
    outside = {
        id(tensor): entry_of(dotted(at), tensor, storages, name=name)
        for at, tensor in (*contents.tensors, *contents.hidden)
        if is_tensor(tensor) and id(tensor) not in inside_it
    }
    expect_consistent(read, storages, name=name)
    optimizers = optimizers_of(contents)
    return TorchState(
        entries=entries,
        others=chosen.others,
        rest=_rest(read.root, chosen),
        beside=dict(_beside_it(contents, chosen)),
        lists={dotted(at): node for at, _, node in contents.names},
        follows=inside in (None, ALL) or inside.endswith(COPIES),
        pickled=Pickled(
            read.named,
            read.protocol,
            dotted(chosen.path),
            read.modules,
            chosen.path if chosen.mapping else (),
        ),
        chosen=chosen,
        outside=outside,
        strangers=strangers_of(contents, chosen),
        holders=[(dotted(path), node) for path, node in contents.optimizers],
        optimizers=optimizers,
        listed=_listed(contents, optimizers, outside),
    )


def _listed(
    contents: Contents, optimizers: Sequence[OptimizerState], outside: Mapping[int, TensorEntry]
) -> dict[str, list[TensorEntry]]:
    found: dict[str, list[TensorEntry]] = {}
    own = {optimizer.path for optimizer in optimizers}
    for at, tensor in contents.tensors:
        numbered = id(tensor) in outside and any(type(part) is int for part in at)
        if numbered and not any(at[:end] in own for end in range(len(at))):
            path = dotted(tuple("*" if type(part) is int else part for part in at))
            found.setdefault(path, []).append(outside[id(tensor)])
    return found


def expect_consistent(read: ParsedPickle, storages: Storages, *, name: str) -> None:
    """Check what may change other tensors, even where the pickle drops it: storages, attributes.

    Raises:
        FormatError: A storage differs from another one with its key, or is not a storage; or the
            attributes of a tensor would change it.
    """
    for tensor in read.attributed:
        if not subclass_of(tensor):  # else `expect_no_subclass` refuses it
            plain_of(tensor, name)
    try:
        for persistent in read.persistents:
            storages.read(persistent)
    except ValueError as error:
        raise FormatError(
            f"{name}: {error}", hint="torch.save does not write such a file; do not trust it"
        ) from error


def _beside_it(contents: Contents, chosen: Chosen) -> Iterator[tuple[str, DictNode | list[object]]]:
    """The path and the node of everything else that may name the tensors of the state_dict."""
    keys = {*(key for key, _ in chosen.tensors), *chosen.others}
    for at, names, _ in contents.names:
        if len(copied_keys(names, keys)) == len(set(names)):
            yield dotted(at), list[object](names)
    for path, mapping, _ in contents.state_dicts:
        if mapping is not chosen.mapping:
            yield dotted(path), mapping
    for at, optimizer in contents.optimizers:
        fields = {str(key): value for key, value in optimizer.items}
        if isinstance(fields["state"], DictNode):
            yield dotted((*at, "state")), fields["state"]
        groups = fields["param_groups"]
        for number, group in enumerate(groups if isinstance(groups, list) else ()):
            for key, value in group.items if isinstance(group, DictNode) else ():
                if key in ("param_names", "params") and isinstance(value, list):
                    yield dotted((*at, "param_groups", number, key)), value


def _rest(root: object, chosen: Chosen) -> dict[str, Any]:
    """Everything except the tensors of the state_dict, with all of its module versions."""
    rest = _beside(root, chosen.path, chosen.mapping, [SHOWN_ITEMS])
    metadata = metadata_of(chosen.mapping) if chosen.mapping else None
    if metadata is not None:
        rest["_metadata"] = describe(metadata, [len(metadata.items) * 10 + 10])
    return rest


def _beside(
    node: object, path: Sequence[str], chosen: DictNode | None, budget: list[int]
) -> dict[str, Any]:
    """The values beside the path to the chosen state_dict; the path is bounded in length."""
    shown: dict[str, Any] = {}
    for key, value in node.items if isinstance(node, DictNode) else ():
        if path and key == path[0]:
            inner = _beside(value, path[1:], chosen, budget)
            if inner:
                shown[free_name(key, shown)] = inner
        elif not (node is chosen and is_tensor(value)):
            shown[free_name(key, shown)] = describe(value, budget)
            if budget[0] < 0:
                break
    return shown
