"""From the description of a pickle to its state_dicts, tensors and the rest.

Walks the nodes without recursion, bounded in depth and steps: they may share and contain
each other as the file likes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isfinite

from ckpt.dtypes import DTYPES, itemsize
from ckpt.errors import FormatError
from ckpt.formats.pickle_globals import (
    OTHER_TENSORS,
    PARAMETER,
    PARAMETER_WITH_STATE,
    STORAGES,
    TENSOR_V2,
    TENSOR_V3,
    UNTYPED,
)
from ckpt.formats.pickle_nodes import Call, Global, Mapping, Persistent, Sequence, Text
from ckpt.tensors import Span, TensorEntry, numel_of

DEPTH_LIMIT = 100
SHOWN_ITEMS = 1000  # of the non-tensor part; the file itself keeps all
_TENSORS = {TENSOR_V2, TENSOR_V3, PARAMETER, PARAMETER_WITH_STATE, *OTHER_TENSORS}

Path = tuple[object, ...]
# From a storage's name in the file to where its bytes are.
FindStorage = Callable[[str], Span]


@dataclass(frozen=True, slots=True)
class Found:
    """What a pickle holds.

    Attributes:
        tensors: Every tensor with its path from the root.
        state_dicts: Mappings that hold tensors themselves, reached by text keys alone.
    """

    tensors: list[tuple[Path, Call]]
    state_dicts: list[tuple[tuple[str, ...], Mapping]]


def find(root: object, *, name: str, step_limit: int) -> Found:
    """Find the tensors and the state_dicts.

    Raises:
        FormatError: It is nested too deep, in a circle, or shared beyond measure.
    """
    found = Found([], [])
    waiting: list[tuple[Path, object]] = [((), root)]
    steps = 0
    while waiting:
        path, node = waiting.pop()
        steps += 1
        if len(path) > DEPTH_LIMIT:
            raise FormatError(f"{name}: nested deeper than {DEPTH_LIMIT}, or in a circle")
        if steps > step_limit:
            raise FormatError(f"{name}: its parts are shared so often that they never end")
        if is_tensor(node):
            assert isinstance(node, Call)
            found.tensors.append((path, node))
            continue
        if isinstance(node, Mapping) and any(is_tensor(value) for _, value in node.items):
            texts = tuple(part for part in path if isinstance(part, str))
            if len(texts) == len(path):
                found.state_dicts.append((texts, node))
        waiting.extend(reversed([((*path, key), value) for key, value in _children(node)]))
    return found


def is_tensor(node: object) -> bool:
    """Whether the node is the description of a tensor."""
    return isinstance(node, Call) and node.function in _TENSORS


def _children(node: object) -> Iterator[tuple[object, object]]:
    match node:
        case Mapping():
            yield from node.items
            if node.state is not None:
                yield None, node.state
        case Sequence():
            yield from enumerate(node.items)
        case Call():
            yield from enumerate(node.arguments)
            if node.state is not None:
                yield None, node.state


def choose(found: Found, inside: str | None, *, name: str) -> tuple[tuple[str, ...], Mapping]:
    """The state_dict that is meant.

    Raises:
        FormatError: There is none, or several and no telling which.
    """
    paths = {".".join(path): (path, mapping) for path, mapping in found.state_dicts}
    if inside is not None:
        if inside in paths:
            return paths[inside]
        raise FormatError(
            f"{name}: holds no state_dict {inside!r}",
            hint=f"it holds {', '.join(map(repr, paths))}" if paths else None,
        )
    if "" in paths:
        return paths[""]
    if not paths:
        raise FormatError(f"{name}: a torch file in which no mapping holds tensors")
    if len(paths) > 1:
        several = "  or  ".join(f"{name}::{path}" for path in list(paths)[:5])
        raise FormatError(f"{name}: holds {len(paths)} state_dicts", hint=f"name one: {several}")
    return next(iter(paths.values()))


def entries_of(
    state_dict: Mapping, find_storage: FindStorage, *, name: str
) -> tuple[TensorEntry, ...]:
    """The tensors of a state_dict, in its order.

    Raises:
        FormatError: A key is no text or stands twice, or a tensor is not well-formed.
    """
    entries: dict[str, TensorEntry] = {}
    for key, value in state_dict.items:
        if not is_tensor(value):
            continue
        if not isinstance(key, str) or not key:
            raise FormatError(f"{name}: the key {_brief(key)} of a tensor is no text")
        if key in entries:
            raise FormatError(f"{name}: {key}: stands twice")
        if any("\ud800" <= char <= "\udfff" for char in key):
            raise FormatError(f"{name}: the key {key!r} is no Unicode text")
        assert isinstance(value, Call)
        entries[key] = entry_of(str(key), value, find_storage, name=name)
    return tuple(entries.values())


def entry_of(key: str, tensor: Call, find_storage: FindStorage, *, name: str) -> TensorEntry:
    """What is known of one tensor, its geometry checked against its storage.

    Source: `torch._utils._rebuild_tensor_v2(storage, storage_offset, size, stride,
    requires_grad, backward_hooks, metadata)`; v3 has the dtype before `metadata`.

    Raises:
        FormatError: It is of a kind that has no plain bytes, or not well-formed.
    """
    where = f"{name}: {key}"
    tensor = _inner(tensor, where)
    try:
        storage, offset, size, stride = tensor.arguments[:4]
        shape = _numbers(size)
        steps = _numbers(stride)
        (first,) = _numbers(Sequence("tuple", [offset]))
        storage_dtype, storage_name, numel = _storage(storage)
        dtype = _dtype(tensor.arguments[6]) if tensor.function == TENSOR_V3 else storage_dtype
    except (ValueError, IndexError) as error:
        raise FormatError(f"{where}: not described as torch describes a tensor: {error}") from error
    if dtype not in DTYPES:
        raise FormatError(f"{where}: dtype {dtype}, which ckpt cannot read yet")
    span = find_storage(storage_name)
    width = itemsize(dtype)
    if numel * itemsize(storage_dtype) != span.nbytes:
        raise FormatError(
            f"{where}: storage {storage_name} should have {numel * itemsize(storage_dtype):,} "
            f"bytes, the file holds {span.nbytes:,}"
        )
    if len(shape) != len(steps):
        raise FormatError(f"{where}: {len(shape)} dimensions with {len(steps)} strides")
    if numel_of(shape) >= 2**63:
        raise FormatError(f"{where}: {numel_of(shape):,} elements")
    reach = sum((n - 1) * step for n, step in zip(shape, steps, strict=True)) + 1
    if numel_of(shape) and (first + reach) * width > span.nbytes:
        raise FormatError(
            f"{where}: reaches to byte {(first + reach) * width:,} of a storage of {span.nbytes:,}"
        )
    begin = span.offset + (first * width if numel_of(shape) else 0)
    return TensorEntry(key, dtype, shape, begin, None if _contiguous(shape, steps) else steps)


def _inner(tensor: Call, where: str) -> Call:
    """The plain tensor; a Parameter is one with a flag."""
    if tensor.function in (PARAMETER, PARAMETER_WITH_STATE) and tensor.arguments:
        inner = tensor.arguments[0]
        if not isinstance(inner, Call) or inner.function in (PARAMETER, PARAMETER_WITH_STATE):
            raise FormatError(f"{where}: a Parameter of something that is no tensor")
        tensor = inner
    if tensor.function in (TENSOR_V2, TENSOR_V3):
        return tensor
    kind = OTHER_TENSORS.get(tensor.function, tensor.function)
    raise FormatError(f"{where}: {kind}, which ckpt cannot read")


def _storage(node: object) -> tuple[str, str, int]:
    """Dtype of the storage's elements, its name in the file, and its number of elements.

    Source: `torch.serialization._save`, `persistent_id`: ``("storage", storage type, key,
    location, numel)``.
    """
    identity = node.id if isinstance(node, Persistent) else None
    if not isinstance(identity, Sequence) or len(identity.items) != 5:
        raise ValueError("no storage")
    word, kind, key, _, numel = identity.items
    if word != "storage" or not isinstance(kind, Global) or not isinstance(key, str):
        raise ValueError("no storage")
    (count,) = _numbers(Sequence("tuple", [numel]))
    dtype = "uint8" if kind.name == UNTYPED else STORAGES.get(kind.name)
    if dtype is None:
        raise ValueError(f"storage of kind {kind.name}, which ckpt cannot read")
    return dtype, str(key), count


def _dtype(node: object) -> str:
    if not isinstance(node, Global):
        raise ValueError("no dtype")
    return node.name.removeprefix("torch.")


def _numbers(node: object) -> tuple[int, ...]:
    if isinstance(node, Call) and node.function == "torch.Size" and node.arguments:
        node = node.arguments[0]
    if not isinstance(node, Sequence):
        raise ValueError("a list of numbers was expected")
    for number in node.items:
        if type(number) is not int or not 0 <= number < 2**63:
            raise ValueError(f"{_brief(number)} is no size, stride or offset")
    return tuple(number for number in node.items if isinstance(number, int))


def _contiguous(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Row-major without gaps; a dimension of one element may have any stride."""
    expected = 1
    for count, step in zip(reversed(shape), reversed(stride), strict=True):
        if count != 1 and step != expected and numel_of(shape):
            return False
        expected *= count
    return True


def metadata_of(state_dict: Mapping) -> Mapping | None:
    """The `_metadata` that `Module.state_dict` sets on its result: module to version."""
    if isinstance(state_dict.state, Mapping):
        for key, value in state_dict.state.items:
            if key == "_metadata" and isinstance(value, Mapping):
                return value
    return None


def describe(node: object, budget: list[int] | None = None, depth: int = 0) -> object:
    """A node for people, fit for JSON: bounded in depth and items, foreign objects named."""
    budget = [SHOWN_ITEMS] if budget is None else budget
    budget[0] -= 1
    if budget[0] < 0 or depth > 8:
        return "…"
    match node:
        case Mapping():
            items = node.items[: budget[0] + 1]
            return {str(describe(key)): describe(value, budget, depth + 1) for key, value in items}
        case Sequence():
            return [describe(item, budget, depth + 1) for item in node.items[: budget[0] + 1]]
        case float() if not isfinite(node):
            return str(node)
        case None | bool() | int() | float():
            return node
        case str():
            return str(node).encode("utf-8", "backslashreplace").decode("utf-8")
    return _brief(node)


def _brief(node: object) -> str:
    match node:
        case Call():
            return "a tensor" if is_tensor(node) else f"{node.function}(…)"
        case Global():
            return node.name
        case bytes():
            return f"{len(node):,} bytes"
        case Mapping() | Sequence() | Persistent():
            return f"a {type(node).__name__.lower()}"
    return repr(node)


def texts_of(mapping: Mapping) -> Iterator[Text]:
    """The keys of a mapping that are text."""
    for key, _ in mapping.items:
        if isinstance(key, Text):
            yield key
