"""The state_dict of a pickled module, read from its attributes without its class.

Source: torch 2.13, `torch.nn.Module._save_to_state_dict`: parameters, then persistent buffers, then
the modules inside. What a class adds to its state_dict by code is not known.
"""

from collections.abc import Iterator

from ckpt.formats.pickle.describe import is_tensor
from ckpt.formats.pickle.nodes import Call, DictNode, Opaque

_DEPTH = 100
_CHARACTERS = 1 << 25  # of all keys; each repeats the names of the modules around it
_Items = list[tuple[object, object]]


def with_state_dicts(root: object, limit: int) -> tuple[object, tuple[str, ...]]:
    """The root with a state_dict in place of each module: itself, or a value of its mapping.

    Args:
        root: Of a pickle; its mapping is changed.
        limit: A module with more modules and tensors than this is left as it is.

    Returns:
        The new root, and the path and class of each module.
    """
    if isinstance(root, Opaque):
        items = _state_dict(root, limit)
        if not items:
            return root, ()
        return DictNode(items, ordered=True), (f"the module ({root.name}, made plain)",)
    found = []
    for index, (key, value) in enumerate(root.items if isinstance(root, DictNode) else ()):
        items = _state_dict(value, limit) if isinstance(value, Opaque) else []
        if items and isinstance(root, DictNode) and isinstance(value, Opaque):
            root.items[index] = key, DictNode(items, ordered=True)
            found.append(f"{key} ({value.name}, made plain)")
    return root, tuple(found)


def _state_dict(module: Opaque, limit: int) -> _Items:
    """The tensors of a module by key; empty if it is not a module as torch pickles it."""
    items: _Items = []
    characters = 0
    try:
        for item in _walked(module, "", 0):
            items.append(item)
            characters += len(item[0])
            if len(items) > limit or characters > _CHARACTERS:
                return []
    except ValueError:
        return []
    return [(key, tensor) for key, tensor in items if tensor is not None]


def _walked(module: object, prefix: str, depth: int) -> Iterator[tuple[str, Call | None]]:
    """The tensors; each module counts as an item without one.

    Raises:
        ValueError: It is not a module, or nested too deeply.
    """
    state = module.state if isinstance(module, Opaque) else None
    if not isinstance(state, DictNode) or depth > _DEPTH:
        raise ValueError("not a module")
    fields = {str(key): value for key, value in state.items if isinstance(key, str)}
    passing = _texts(fields.get("_non_persistent_buffers_set"))
    yield prefix, None
    held = [*_named(fields.get("_parameters"))]
    held += [item for item in _named(fields.get("_buffers")) if item[0] not in passing]
    for name, tensor in held:
        if tensor is not None:
            if not is_tensor(tensor):
                raise ValueError("not a tensor")
            yield prefix + name, tensor
    for name, inner in _named(fields.get("_modules")):
        if inner is not None:
            yield from _walked(inner, f"{prefix}{name}.", depth + 1)


def _named(node: object) -> Iterator[tuple[str, object]]:
    if not isinstance(node, DictNode):
        raise ValueError("not a dict")
    for name, value in node.items:
        if not isinstance(name, str):
            raise ValueError("not a name")
        yield str(name), value


def _texts(names: object) -> set[str]:
    match names:
        case Call(function="builtins.set", arguments=((list() | tuple()) as items,)):
            return {str(item) for item in items if isinstance(item, str)}
    return set()
