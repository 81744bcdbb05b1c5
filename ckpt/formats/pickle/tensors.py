"""From the description of a tensor to its entry: dtype, shape, and the place of its bytes.

Every number is checked against the storage in the file.
"""

from collections.abc import Callable, Iterable, Iterator
from math import prod
from typing import NamedTuple

from ckpt.dtypes import DTYPES, itemsize
from ckpt.errors import FormatError
from ckpt.formats.pickle.describe import brief
from ckpt.formats.pickle.globals import (
    FROM_TYPE,
    OTHER_TENSORS,
    PARAMETER,
    PARAMETER_WITH_STATE,
    STORAGES,
    TENSOR_V1,
    TENSOR_V2,
    TENSOR_V3,
    UNTYPED,
)
from ckpt.formats.pickle.nodes import Call, DictNode, Global, ListNode, Persistent, Text
from ckpt.formats.pickle.tensor_call import TensorCall
from ckpt.tensors import Span, TensorEntry

# How to get a plain tensor from another kind.
_WAYS = {
    "sparse": "save the result of .to_dense()",
    "quantised": "save the result of .dequantize(), or of .int_repr() with its scale",
    "nested": "save the result of .unbind()",
    "meta": "it has a shape but no values; save a tensor on a device",
}
_PLAIN = frozenset({TENSOR_V1, TENSOR_V2, TENSOR_V3})
DIMENSIONS_LIMIT = 1000  # torch's own operations stop at 64
_LARGEST = 2**63  # torch counts elements in an int64


class Storage(NamedTuple):
    """A reference to a storage: the dtype of its elements, its name in the file, their number.

    `view` is the index of a view's first element; only legacy files have views.
    """

    dtype: str
    key: str
    numel: int
    view: int | None = None


# Gives the place of a storage's bytes; ValueError if the container has none of this form.
FindStorage = Callable[[Storage], Span]


def entries_of(
    tensors: Iterable[tuple[str, Call]], find_storage: FindStorage, *, name: str
) -> tuple[TensorEntry, ...]:
    """The entries of tensors, in their order.

    Args:
        tensors: Each with its key, e.g. from `find.choose`.
        find_storage: Gives the place of a storage's bytes.
        name: Of the file, for messages.

    Raises:
        FormatError: A key is not valid Unicode, or a tensor is not well-formed.
    """
    entries = []
    for key, tensor in tensors:
        if not key.isascii() and any("\ud800" <= char <= "\udfff" for char in key):
            raise FormatError(f"{name}: the key {brief(key)} is not valid Unicode")
        entries.append(entry_of(key, tensor, find_storage, name=name))
    return tuple(entries)


def entry_of(key: str, tensor: Call, find_storage: FindStorage, *, name: str) -> TensorEntry:
    """The entry of one tensor, its geometry checked against its storage.

    Raises:
        FormatError: It is of a kind without plain bytes, or not well-formed.
    """
    where = f"{name}: {key}"
    if tensor.function not in _PLAIN:
        tensor = _plain(tensor, where)
    if type(tensor) is not TensorCall and len(tensor.arguments) > 6:
        _expect_no_bits(tensor, where)
    try:
        read = _known_geometry(tensor) if type(tensor) is TensorCall else _geometry(tensor)
        span = find_storage(read.storage)
    except (ValueError, IndexError) as error:
        raise FormatError(f"{where}: not a tensor as torch describes it: {error}") from error
    if read.dtype not in DTYPES:
        raise FormatError(f"{where}: ckpt cannot read dtype {read.dtype} yet")
    storage_nbytes = read.storage.numel * itemsize(read.storage.dtype)
    if storage_nbytes != span.nbytes:
        raise FormatError(
            f"{where}: storage {read.storage.key} should have {storage_nbytes:,} bytes, "
            f"the file holds {span.nbytes:,}"
        )
    numel = prod(read.shape)
    _expect_countable(read, numel, where)
    contiguous = not numel or _contiguous(read.shape, read.stride)
    if numel:
        _expect_inside(read, numel - 1 if contiguous else _farthest(read), span, where)
    first = read.first * itemsize(read.dtype) if numel else 0
    stride = None if contiguous else read.stride
    return TensorEntry(key, read.dtype, read.shape, span.offset + first, stride)


class _Geometry(NamedTuple):
    """The arguments of a tensor, with checked types. `first` and `stride` count elements."""

    storage: Storage
    dtype: str
    first: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _plain(tensor: Call, where: str) -> Call:
    """The plain tensor in a Parameter, which adds a flag, or in one with attributes."""
    for _ in range(3):  # attributes of a Parameter of a tensor is as deep as torch nests
        if tensor.function in _PLAIN:
            return tensor
        inner = None
        if tensor.function in (PARAMETER, PARAMETER_WITH_STATE) and tensor.arguments:
            inner = tensor.arguments[0]
        if tensor.function == FROM_TYPE and len(tensor.arguments) == 4:
            function, _, arguments, _ = tensor.arguments
            if isinstance(function, Global) and isinstance(arguments, ListNode):
                inner = Call(function.name, arguments.items)
        if not isinstance(inner, Call):
            break
        tensor = inner
    kind = OTHER_TENSORS.get(tensor.function, f"a tensor made of {tensor.function}")
    way = next((hint for word, hint in _WAYS.items() if word in kind), None)
    raise FormatError(f"{where}: {kind}, ckpt reads only plain ones", hint=way)


def _geometry(tensor: Call) -> _Geometry:
    """The arguments of a call that rebuilds a tensor.

    Source: `torch._utils._rebuild_tensor_v2(storage, storage_offset, size, stride,
    requires_grad, backward_hooks, metadata)`; v3 has the dtype before `metadata`.
    """
    arguments = tensor.arguments
    storage, offset, size, stride = arguments[:4]
    of = storage_of(storage)
    return _Geometry(
        of,
        _dtype(arguments[6]) if tensor.function == TENSOR_V3 else of.dtype,
        (of.view or 0) + size_of(offset),
        sizes_of(size),
        sizes_of(stride),
    )


def _known_geometry(call: TensorCall) -> _Geometry:
    """The same for a tensor that was read as a whole."""
    dtype = "uint8" if call.kind.name == UNTYPED else STORAGES.get(call.kind.name)
    if dtype is None:
        return _geometry(Call(call.function, call.arguments))  # which raises the error
    return _Geometry(
        Storage(dtype, call.key, call.numel), dtype, call.first, call.shape, call.stride
    )


def _expect_no_bits(tensor: Call, where: str) -> None:
    """Refuse a lazily conjugated or negated tensor: its bytes are not its values.

    Source: `torch._utils.get_tensor_metadata`: a dict of bits such as ``conj`` and ``neg``.
    """
    for metadata in tensor.arguments[6 + (tensor.function == TENSOR_V3) :]:
        plain = [("metadata", metadata is not None)]
        bits = metadata.items if isinstance(metadata, DictNode) else plain
        for bit, value in bits:
            if value is not False:
                raise FormatError(
                    f"{where}: its {brief(bit)} bit is set, so its bytes are not its values",
                    hint="save the result of .resolve_conj().resolve_neg()",
                )


def _expect_countable(read: _Geometry, numel: int, where: str) -> None:
    if len(read.shape) != len(read.stride):
        raise FormatError(f"{where}: {len(read.shape)} dimensions with {len(read.stride)} strides")
    if (numel or prod(filter(None, read.shape))) >= _LARGEST:
        raise FormatError(f"{where}: 2^63 elements or more, which torch cannot count")


def _farthest(read: _Geometry) -> int:
    """The distance from the first element to the last, in elements; there is at least one."""
    return sum((n - 1) * step for n, step in zip(read.shape, read.stride, strict=True))


def _expect_inside(read: _Geometry, farthest: int, span: Span, where: str) -> None:
    """Make sure that the view does not reach beyond its storage."""
    reach = (read.first + farthest + 1) * itemsize(read.dtype)
    if reach > span.nbytes:
        raise FormatError(
            f"{where}: reaches to byte {reach:,} of storage {read.storage.key}, "
            f"which has {span.nbytes:,}"
        )


def storage_of(node: object) -> Storage:
    """The storage that a persistent id names.

    Source: `torch.serialization._save`, `persistent_id`: ``("storage", storage type, key,
    location, numel)``; in `_legacy_save` a view follows, None or ``(key, first, numel)``.

    Raises:
        ValueError: It is not a storage, or of an unknown kind.
    """
    identity = node.id if isinstance(node, Persistent) else None
    if not isinstance(identity, ListNode) or len(identity.items) not in (5, 6):
        raise ValueError("not a storage")
    word, kind, key, _, numel, *view = identity.items
    if word != "storage" or not isinstance(kind, Global) or not isinstance(key, str):
        raise ValueError("not a storage")
    dtype = "uint8" if kind.name == UNTYPED else STORAGES.get(kind.name)
    if dtype is None:
        raise ValueError(f"ckpt cannot read a storage of kind {kind.name}")
    return Storage(dtype, str(key), size_of(numel), _first(view) if view else None)


def _first(view: list[object]) -> int:
    if view == [None]:
        return 0
    if isinstance(view[0], ListNode) and len(view[0].items) == 3:
        return size_of(view[0].items[1])
    raise ValueError("not a view of a storage")


def _dtype(node: object) -> str:
    if not isinstance(node, Global):
        raise ValueError("not a dtype")
    return node.name.removeprefix("torch.")


def sizes_of(node: object) -> tuple[int, ...]:
    """The numbers of a tuple or a ``torch.Size``.

    Raises:
        ValueError: It is neither, or has too many dimensions or another value.
    """
    if isinstance(node, Call) and node.function == "torch.Size" and node.arguments:
        node = node.arguments[0]
    if not isinstance(node, ListNode):
        raise ValueError("expected a list of numbers")
    if len(node.items) > DIMENSIONS_LIMIT:
        raise ValueError(f"{len(node.items):,} dimensions, the limit is {DIMENSIONS_LIMIT:,}")
    for item in node.items:
        if type(item) is not int or not 0 <= item < _LARGEST:
            size_of(item)
    return tuple(node.items)  # type: ignore[arg-type]


def size_of(node: object) -> int:
    """A size, stride or offset: an integer from 0 to 2^63 - 1.

    Raises:
        ValueError: It is not one.
    """
    if type(node) is int and 0 <= node < _LARGEST:
        return node
    raise ValueError(f"{brief(node)} is not a size, stride or offset")


def _contiguous(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Row-major without gaps; a dimension of one element may have any stride."""
    expected = 1
    for count, step in zip(reversed(shape), reversed(stride), strict=True):
        if count != 1 and step != expected:
            return False
        expected *= count
    return True


def metadata_of(state_dict: DictNode) -> DictNode | None:
    """The `_metadata` that `Module.state_dict` sets on its result: module to version."""
    if isinstance(state_dict.state, DictNode):
        for key, value in state_dict.state.items:
            if key == "_metadata" and isinstance(value, DictNode):
                return value
    return None


def texts_of(mapping: DictNode) -> Iterator[Text]:
    """The keys of a mapping that are text."""
    for key, _ in mapping.items:
        if isinstance(key, Text):
            yield key
