"""Finds a pickle's tensors and state_dicts, and chooses the one that a ref names.

Walks the nodes without recursion, bounded in depth and steps, since they may be shared and
circular.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ckpt.errors import AmbiguousStateError, FormatError, RefusedGlobalError, excerpt
from ckpt.formats.pickle.describe import WEIGHTS_HINT, brief, is_tensor, root_kind
from ckpt.formats.pickle.globals import NAMESPACE, TENSOR_V1, TENSOR_V2, TENSOR_V3
from ckpt.formats.pickle.keys import copied_keys, identity, names_in, shown_keys, shown_path
from ckpt.formats.pickle.nodes import Call, DictNode, Opaque, Persistent, Text

DEPTH_LIMIT = 100
ALL = "*"  # as after ``FILE::``: a state_dict, and all copies of it
COPIES = "::*"  # after a name: that state_dict, and all copies of it
_COUNTER = "n_averaged"  # what AveragedModel counts
EXTRA_STATE = "_extra_state"  # the last part of a key: what a module saves beside its tensors
_OPTIMIZER = {"state", "param_groups"}
_LISTED = 5  # state_dicts in a hint

# The keys of one layer of torch: ``weight``, ``weight_ih_l0``, ``in_proj_bias``.
_OF_ONE_LAYER = re.compile(r"(^|_)(weight|bias)(_|$)")

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
            if isinstance(node, DictNode | list) and (names := names_in(node)):
                contents.names.append((here, names, node))
        if isinstance(node, DictNode | list | tuple | Call | Opaque) and not _is_plain_tensor(node):
            if len(levels) > DEPTH_LIMIT:
                raise FormatError(f"{name}: nested deeper than {DEPTH_LIMIT}, or in a circle")
            path.append(key)
            levels.append(_children(node))
            hidden.append(hidden[-1] or isinstance(node, Opaque))
    raise FormatError(f"{name}: its parts are shared too often to be searched")


def _is_plain_tensor(node: object) -> bool:
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
    taken: set[str] = set()
    for key, _ in mapping.items if len(texts) < len(mapping.items) else ():
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
            if isinstance(key, DictNode | list | tuple | Call | Opaque):
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


def choose(contents: Contents, inside: str | None, *, name: str) -> Chosen:
    """Choose a state_dict.

    Args:
        contents: All that the file holds.
        inside: Its dotted path, or that of a value with tensors further down, such as
            an optimizer's state; None for the only state_dict. The root does not count if a
            mapping in it holds more tensors than it does itself: a training checkpoint with a
            loose tensor beside its model. `ALL` for the first of several with the same keys.
        name: Of the file, for messages.

    Raises:
        FormatError: There is none.
        AmbiguousStateError: There are several to choose from.
    """
    named: dict[str, tuple[tuple[str, ...], DictNode]] = {}
    twice = set[str]()
    for path, mapping, _ in contents.state_dicts:
        twice |= {dotted(path)} & set(named)
        named.setdefault(dotted(path), (path, mapping))
    likely = _likely(contents)
    paths = {dotted(path): named[dotted(path)] for path in likely}
    if inside is not None and inside != ALL:
        inside = inside.removesuffix(COPIES)
        if inside in twice:
            raise _doubled(name, inside)
        if inside in named:
            return _direct(*named[inside], name)
        return _below(contents, inside, list(paths), name)
    if not paths:
        return _flattened(contents, (), name)
    if "" in paths:
        return _direct(*paths[""], name)
    only = _original(paths) if inside == ALL else next(iter(paths))
    if only is None or (len(paths) > 1 and inside != ALL):
        raise AmbiguousStateError(
            f"{name}: holds {len(paths)} state_dicts",
            hint=_hint(name, list(paths)),
            names=tuple(paths),
        )
    if only in twice:
        raise _doubled(name, only)
    return _direct(*paths[only], name)


def expect_independent(contents: Contents, chosen: Chosen, *, name: str) -> None:
    """Make sure that no value of the state_dict is an opaque object around a tensor.

    Raises:
        RefusedGlobalError: A key would be lost, perhaps one of a tensor.
    """
    if chosen.mapping is None or not contents.hidden:
        return
    depth = len(chosen.path)
    around = {path[depth] for path, _ in contents.hidden if path[:depth] == chosen.path}
    for key, value in chosen.mapping.items:
        if isinstance(value, Opaque) and key in around:
            raise _needed(name, f"{brief(key)} needs it", value)


def _needed(name: str, why: str, opaque: Opaque) -> RefusedGlobalError:
    return RefusedGlobalError(
        f"{name}: refused global {excerpt(opaque.name, 100)} at offset {opaque.offset:,}: {why}",
        hint="if you trust the file and can import this class, load it with torch, and save "
        "module.state_dict() alone",
    )


def _doubled(name: str, path: str) -> FormatError:
    return FormatError(f"{name}: two of its state_dicts have the name {path!r}")


def _likely(contents: Contents) -> list[tuple[str, ...]]:
    """Paths of the candidates; only that of the root, if it is one."""
    found = _without_scores(contents)
    if any(path and _has_modules(mapping) for path, mapping, _ in found):
        found = [it for it in found if not it[0] or _is_of_module(it[1])]
    counts = {path: count for path, _, count in found}
    if () in counts:
        if counts[()] >= max(counts.values()):
            return [()]
        del counts[()]
    return list(counts)


def _without_scores(contents: Contents) -> list[tuple[tuple[str, ...], DictNode, int]]:
    """The state_dicts that hold more than scalars and settings, or all if none does.

    Trainers keep scores as tensors: the best of a checkpoint callback, a loss scale; and a few
    tensors among settings, such as the weights of classes.
    """
    left = [found for found in contents.state_dicts if not _is_scores(found[1])]
    weights = [found for found in left if 2 * found[2] >= len(found[1].items)]
    return weights or left or contents.state_dicts


def _has_modules(mapping: DictNode) -> bool:
    """Whether some key names a module and its tensor."""
    return any(isinstance(key, str) and "." in key for key, _ in mapping.items)


def _is_of_module(mapping: DictNode) -> bool:
    """Whether it looks like the state_dict of a module, not like settings or statistics."""
    own = (key for key, value in mapping.items if isinstance(key, str) and is_tensor(value))
    return _has_modules(mapping) or any(map(_OF_ONE_LAYER.search, own))


def _is_scores(mapping: DictNode) -> bool:
    tensors = [value for _, value in mapping.items if is_tensor(value)]
    return bool(tensors) and all(map(_is_scalar, tensors))


def _is_scalar(tensor: Call) -> bool:
    size = tensor.arguments[2] if _is_plain_tensor(tensor) and len(tensor.arguments) > 2 else None
    return size == ()


def strangers_of(contents: Contents, chosen: Chosen) -> list[str]:
    """The paths of the state_dicts that are not copies of the chosen one."""
    keys = {key for key, _ in chosen.tensors}
    return [
        dotted(path)
        for path, mapping, _ in _without_scores(contents)
        if path != chosen.path
        and not copied_keys((key for key, _ in mapping.items if isinstance(key, str)), keys)
    ]


def _original(paths: Mapping[str, tuple[tuple[str, ...], DictNode]]) -> str | None:
    """The path of the first state_dict of which all others are copies; None if there is none."""
    texts = {
        path: {key for key, _ in mapping.items if isinstance(key, str)}
        for path, (_, mapping) in paths.items()
    }
    for path, keys in texts.items():
        if all(other - {_COUNTER} <= copied_keys(other, keys).keys() for other in texts.values()):
            return path
    return None


def _direct(path: tuple[str, ...], mapping: DictNode, name: str) -> Chosen:
    """A mapping's own tensors, by its keys."""
    items = [item for item in mapping.items if isinstance(item[0], str) or is_tensor(item[1])]
    try:
        keys = list(shown_keys(key for key, _ in items))
    except ValueError as error:
        raise FormatError(f"{name}: {dotted(path) or 'its root'}: {error}") from error
    tensors = [
        (key, value) for key, (_, value) in zip(keys, items, strict=True) if is_tensor(value)
    ]
    others = [key for key, (_, value) in zip(keys, items, strict=True) if not is_tensor(value)]
    return Chosen(path, mapping, tensors, tuple(others))


def _below(contents: Contents, inside: str, paths: list[str], name: str) -> Chosen:
    """The tensors below a dotted path."""
    for path, _ in contents.tensors:
        for length in range(1, len(path)):
            top = path[:length]
            if all(isinstance(part, str) for part in top) and dotted(top) == inside:
                return _flattened(contents, tuple(map(str, top)), name)
    raise FormatError(f"{name}: holds no state_dict {inside!r}", hint=_hint(name, paths))


def _flattened(contents: Contents, top: tuple[str, ...], name: str) -> Chosen:
    """All tensors below `top`, by their paths from there."""
    below = [
        (path[len(top) :], tensor) for path, tensor in contents.tensors if path[: len(top)] == top
    ]
    if not below and contents.opaque:
        why = "all tensors need it" if contents.hidden else "the file holds no tensors"
        raise _needed(name, why, contents.opaque[0][1])
    if not below:
        what = contents.kind or "a torch file"
        hint = WEIGHTS_HINT if contents.kind else None
        raise FormatError(f"{name}: {what}, which holds no tensors", hint=hint)
    if below[0][0] == () and contents.kind:
        raise FormatError(f"{name}: {contents.kind}, not a state_dict", hint=WEIGHTS_HINT)
    if below[0][0] == ():
        raise FormatError(
            f"{name}: a single tensor, not a state_dict",
            hint="give it a key: torch.save({'weight': tensor}, FILE)",
        )
    for with_types in (False, True):
        try:
            keys = [shown_path(path, with_types=with_types) for path, _ in below]
        except ValueError as error:
            raise FormatError(f"{name}: {error} on the path to a tensor") from error
        if len(set(keys)) == len(keys):
            return Chosen(top, None, list(zip(keys, (tensor for _, tensor in below), strict=True)))
    raise FormatError(f"{name}: two of its tensors have the same path as text")


def _hint(name: str, paths: list[str]) -> str | None:
    if not paths:
        return None
    from shlex import quote

    shown = [quote(f"{name}::{path}") if path else quote(name) for path in paths[:_LISTED]]
    more = "" if len(paths) <= _LISTED else f"  or {len(paths) - _LISTED:,} more"
    return f"name one: {'  or  '.join(shown)}{more}"


def dotted(path: Path) -> str:
    """A path for people: ``optimizer.state.0.exp_avg``."""
    return ".".join(str(part) if isinstance(part, str) else brief(part) for part in path)
