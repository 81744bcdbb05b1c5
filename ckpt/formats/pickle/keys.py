"""Keys of mappings as people see them: text as it is, other plain values with their type.

And which keys of a copy, or of an optimizer, are made of those of a state_dict.

Law: no two keys of a mapping look the same. Keys of torch's own files are text, except in an
optimizer, which numbers its parameters; scripts also use tuples, bytes and None.
"""

from collections.abc import Callable, Container, Iterable, Iterator

from ckpt.formats.pickle.describe import brief, is_tensor
from ckpt.formats.pickle.globals import NUMPY_DTYPE, NUMPY_SCALARS, PATHS, TIMES
from ckpt.formats.pickle.nodes import Call, DictNode, Global, Persistent, Text
from ckpt.formats.pickle.values import bytes_of, value_of

# Classes whose objects never equal a plain value.
_APART = frozenset({*PATHS, *TIMES, NUMPY_DTYPE, "torch.device", "builtins.frozenset"})
# What wrappers put before the keys of a copy: AveragedModel and DDP, torch.compile, EMA classes.
_COPY_PREFIXES = ("", "module.", "_orig_mod.", "model.", "ema_model.", "model_ema.", "ema.")
_FLAT = ("state.", "param_groups.")  # of an optimizer, joined with a parameter and a field
_DEPTH, _ITEMS, _CHARACTERS = 8, 100, 1000  # of a key that is not text


def plain_value(node: object) -> object:
    """The plain value of a mapping's key.

    Raises:
        ValueError: The key is not a plain value, or too large to be shown.
    """
    return _plain(node, [_ITEMS], 0, _refused)


def _plain(node: object, budget: list[int], depth: int, read: Callable[[object], object]) -> object:
    """The value of a key; `read` gives that of a part that is not plain."""
    budget[0] -= 1
    if budget[0] < 0 or depth > _DEPTH:
        raise ValueError("a key with too many parts")
    match node:
        case None | bool() | int() | float() | bytes():
            return node
        case str():
            return str(node)
        case tuple():
            return tuple(_plain(item, budget, depth + 1, read) for item in node)
    data = bytes_of(node)
    return read(node) if data is None else data


def _refused(node: object) -> object:
    raise ValueError(f"a key that is not a plain value: {brief(node)}")


def _compared(node: object) -> object:
    """What Python compares: the value of numpy's numbers and texts, or the node itself."""
    match node:
        case Call(function=function) if function in NUMPY_SCALARS and value_of(node) is not node:
            return value_of(node)
        case Call(function="torch.Size", arguments=(tuple() as sizes,)) if len(
            sizes
        ) <= _ITEMS and all(type(size) is int for size in sizes):
            return sizes
        case Call(function=function) if function not in _APART:
            return _refused(node)
        case Call() | Global() | Persistent():
            return node
    return _refused(node)


def typed(key: object) -> str:
    """A key that is not text: ``0 (int)``, ``(1, 2) (tuple)``, ``b'x' (bytes)``.

    Raises:
        ValueError: It cannot be shown.
    """
    value = plain_value(key)
    shown = f"{value!r} ({type(value).__name__})"
    if len(shown) > _CHARACTERS:
        raise ValueError("a key with too many characters")
    return shown


def identity(key: object) -> str:
    """A text that is equal for keys that are equal in Python, such as 1 and True.

    Raises:
        ValueError: The key is too large, or it is unknown what it equals.
    """
    return _identity(_plain(key, [_ITEMS], 0, _compared))


def _identity(value: object) -> str:
    match value:
        case bool():
            return repr(int(value))
        case float() if value.is_integer():
            return repr(int(value))
        case tuple():
            return f"({', '.join(map(_identity, value))})"
    return repr(value)


def shown_keys(keys: Iterable[object]) -> Iterator[str]:
    """Every key as people see it; text keys are never changed.

    Raises:
        ValueError: A key cannot be shown.
    """
    keys = list(keys)
    if all(isinstance(key, str) for key in keys):
        yield from map(str, keys)
        return
    taken = {str(key) for key in keys if isinstance(key, str)}
    for key in keys:
        if isinstance(key, str):
            yield str(key)
            continue
        shown = typed(key)
        while shown in taken:
            shown += f" ({type(plain_value(key)).__name__})"
        taken.add(shown)
        yield shown


def shown_path(path: Iterable[object], *, with_types: bool = False) -> str:
    """The path to a value, dotted: ``state.0.exp_avg``.

    Raises:
        ValueError: A key on the path cannot be shown.
    """
    parts = (part if isinstance(part, str) else _part(part, with_types) for part in path)
    return ".".join(parts)


def _part(key: object, with_type: bool) -> str:
    if isinstance(key, Call) and bytes_of(key) is None:
        raise ValueError(f"{brief(key)} is")
    shown = typed(key)
    return shown if with_type else repr(plain_value(key))


def copied_keys(own: Iterable[str], original: Container[str]) -> dict[str, tuple[str, str]]:
    """The keys of a mapping that are those of another state_dict, perhaps with a prefix.

    A flattened optimizer, as torch.distributed.checkpoint makes it, has a field after them:
    ``state.fc.weight.exp_avg``, ``param_groups.fc.weight.lr``.

    Returns:
        For each such key, the prefix and the key of the original.
    """
    own = list(own)
    for prefix in _COPY_PREFIXES:
        found = {
            key: (prefix, key.removeprefix(prefix))
            for key in own
            if key.startswith(prefix) and key.removeprefix(prefix) in original
        }
        if found:
            return found
    fields = [(key, prefix) for prefix in _FLAT for key in own if key.startswith(prefix)]
    of = {key: (prefix, key.rpartition(".")[0].removeprefix(prefix)) for key, prefix in fields}
    return {key: found for key, found in of.items() if found[1] in original}


def filtered(node: DictNode | list[object], gone: Container[str]) -> DictNode | list[object]:
    """A mapping or list of texts without some of these."""
    if isinstance(node, list):
        return [item for item in node if not (isinstance(item, str) and str(item) in gone)]
    sides = 2 if all(isinstance(value, str) for _, value in node.items) else 1  # of each item
    items = [
        item
        for item in node.items
        if not any(isinstance(it, str) and str(it) in gone for it in item[:sides])
    ]
    return DictNode(items, node.ordered, node.state)


def names_in(node: DictNode | list[object]) -> list[Text]:
    """The texts of what may be a list of keys, or a mapping of keys to other things than tensors.

    They are its items or keys, if all of these are text, and its values if all of those are.
    """
    if isinstance(node, list):
        return _names(node)
    if any(is_tensor(value) for _, value in node.items):
        return []
    keys = _names(key for key, _ in node.items)
    return keys and keys + _names(value for _, value in node.items)


def _names(texts: Iterable[object]) -> list[Text]:
    """The texts, if all have a dot; one without is more likely another word."""
    found = []
    for text in texts:
        if not isinstance(text, Text) or "." not in text:
            return []
        found.append(text)
    return found
