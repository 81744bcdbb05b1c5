"""Finds the tensors and state_dicts of a pickle.

Walks the nodes without recursion, bounded in depth and steps, since they may be shared and
circular.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ckpt.errors import FormatError
from ckpt.formats.pickle.describe import brief, is_tensor, root_kind
from ckpt.formats.pickle.globals import NAMESPACE, TENSOR_V1, TENSOR_V2, TENSOR_V3
from ckpt.formats.pickle.keys import identity, names_in
from ckpt.formats.pickle.nodes import Call, DictNode, Opaque, Persistent, Text

DEPTH_LIMIT = 100
ALL = "*"  # as after ``FILE::``: a state_dict, and all copies of it
COPIES = "::*"  # after a name: that state_dict, and all copies of it
EXTRA_STATE = "_extra_state"  # the last part of a key: what a module saves beside its tensors
_OPTIMIZER = {"state", "param_groups"}
# Kinds of nodes with others in them, named once: a union would be made for every node.
_BRANCHES = (DictNode, list, tuple, Call, Opaque)
_MAY_NAME = (DictNode, list)


Path = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """The content of a pickle.

    Attributes:
        tensors: Every tensor with its path from the root.
        state_dicts: Mappings that hold tensors themselves and are reached by text keys alone,
            each with its path and its number of tensors.
        optimizers: Mappings with the keys of `Optimizer.state_dict`, with their paths.
        parameter_states: Identities of the mappings that these hold for each parameter, which
            are not state_dicts, whether their key is a number or a name.
        names: What may be names of tensors: lists, and mappings without tensors, of dotted
            texts alone, each with its path; of a mapping the values too, if they all are such.
        opaque: Every opaque object that is not in another one, with its path.
        hidden: Every tensor and storage in opaque objects, with its path.
        kind: What it holds instead of a model, if that can be told.
    """

    tensors: list[tuple[Path, Call]]
    state_dicts: list[tuple[tuple[str, ...], DictNode, int]]
    optimizers: list[tuple[Path, DictNode]]
    parameter_states: set[int]
    names: list[tuple[Path, list[Text], DictNode | list[object]]]
    opaque: list[tuple[Path, Opaque]]
    hidden: list[tuple[Path, object]]
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """The chosen state_dict.

    Attributes:
        path: From the root.
        mapping: The state_dict; None if no mapping has all the tensors, as in an optimizer's
            state: their keys are dotted paths then.
        tensors: Each with its key, in the order of the file.
        others: The mapping's keys of text that hold no tensor.
    """

    path: tuple[str, ...]
    mapping: DictNode | None
    tensors: list[tuple[str, Call]]
    others: tuple[str, ...] = ()


def find(root: object, *, name: str, step_limit: int) -> Contents:
    """Find the tensors and the state_dicts.

    Args:
        root: The root of the pickle's description.
        name: Of the pickle, for messages.
        step_limit: More steps than this are refused; a pickle that shares little takes at most
            one for each of its opcodes.

    Raises:
        FormatError: It is nested too deeply or in a circle, or its parts are shared too often.
    """
    contents = Contents([], [], [], set(), [], [], [], root_kind(root))
    path: list[object] = []
    # One iterator for each level: nodes still to be visited take no memory, even if often shared.
    levels: list[Iterator[tuple[object, object]]] = [iter(((None, root),))]
    hidden: list[bool] = [False]  # whether each level lies in an opaque object
    for _ in range(step_limit):
        child = next(levels[-1], None)
        if child is None:
            levels.pop()
            hidden.pop()
            if not levels:
                return contents
            path.pop()
            continue
        key, node = child
        here = (*path[1:], key) if path else ()
        if hidden[-1]:
            _note_hidden(contents, here, node)
        else:
            _note(contents, here, node, name)
            if isinstance(node, _MAY_NAME) and (names := names_in(node)):
                contents.names.append((here, names, node))
        if isinstance(node, _BRANCHES) and not is_plain_tensor(node):
            if len(levels) > DEPTH_LIMIT:
                raise FormatError(f"{name}: nested deeper than {DEPTH_LIMIT}, or in a circle")
            path.append(key)
            levels.append(_children(node))
            hidden.append(hidden[-1] or isinstance(node, Opaque))
    raise FormatError(f"{name}: its parts are shared too often to be searched")


def is_plain_tensor(node: object) -> bool:
    """Whether it is a tensor without attributes, so that there is nothing to find in it."""
    return isinstance(node, Call) and node.function in (TENSOR_V1, TENSOR_V2, TENSOR_V3)


def _note_hidden(contents: Contents, path: Path, node: object) -> None:
    if is_tensor(node) or isinstance(node, Persistent):
        contents.hidden.append((path, node))


def _note(contents: Contents, path: Path, node: object, name: str) -> None:
    if is_tensor(node):
        contents.tensors.append((path, node))
    elif isinstance(node, Opaque):
        contents.opaque.append((path, node))
    elif isinstance(node, DictNode):
        if _unique_texts(node, path, name) >= _OPTIMIZER:
            contents.optimizers.append((path, node))
            contents.parameter_states.update(_parameter_states(node))
        if id(node) in contents.parameter_states:
            return
        texts = tuple(part for part in path if isinstance(part, str))
        count = sum(is_tensor(value) for _, value in node.items)
        # A module without parameters is an empty mapping.
        if any(text == EXTRA_STATE or text.endswith(f".{EXTRA_STATE}") for text in texts):
            return  # a value that a module keeps, such as the scales of float8
        if len(texts) == len(path) and (count or not (path or node.items)):
            contents.state_dicts.append((texts, node, count))


def _parameter_states(optimizer: DictNode) -> Iterator[int]:
    for key, state in optimizer.items:
        if key == "state" and isinstance(state, DictNode):
            yield from (id(values) for _, values in state.items)


def _unique_texts(mapping: DictNode, path: Path, name: str) -> set[str]:
    """The keys that are text.

    A pickled dict never has a key twice; readers differ in which of two they take.
    """
    texts = {key for key, _ in mapping.items if isinstance(key, str)}
    if len(texts) == len(mapping.items):
        return texts
    taken: set[str] = set()
    for key, _ in mapping.items:
        try:
            text = identity(key)
        except ValueError as error:
            raise FormatError(f"{name}: {dotted(path) or 'its root'}: {error}") from error
        if text in taken:
            raise FormatError(f"{name}: {dotted((*path, key))}: appears twice")
        taken.add(text)
    return texts


def _children(
    node: DictNode | list[object] | tuple[object, ...] | Call | Opaque,
) -> Iterator[tuple[object, object]]:
    """The key and node of everything that a node contains, None for attributes and keys.

    What a call gets and what it makes of it may differ, as in a set, so that no key leads there:
    the call itself takes its place.
    """
    if isinstance(node, list | tuple):
        yield from enumerate(node)
        return
    named = isinstance(node, DictNode | Opaque) or node.function == NAMESPACE
    if isinstance(node, DictNode):
        for key, value in node.items:
            yield key, value
            if isinstance(key, _BRANCHES):
                yield None, key
    elif isinstance(node, Opaque):
        yield from enumerate(node.given)
    else:
        arguments = _attributes(node) if is_tensor(node) else node.arguments
        yield from ((node, argument) for argument in arguments)
    if node.state is not None:
        yield None if named and isinstance(node.state, DictNode) else node, node.state


def _attributes(tensor: Call) -> Iterator[object]:
    """The other arguments of a tensor that is made of another one, such as a Parameter."""
    for argument in tensor.arguments:
        within = argument if isinstance(argument, list | tuple) else [argument]
        yield from (node for node in within if not is_tensor(node))


def dotted(path: Path) -> str:
    """A path for people: ``optimizer.state.0.exp_avg``."""
    return ".".join(str(part) if isinstance(part, str) else brief(part) for part in path)
