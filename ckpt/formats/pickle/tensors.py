"""From the description of a tensor to its entry: dtype, shape, and the place of its bytes.

Every number is checked against the storage in the file.
"""

from collections.abc import Callable, Iterable, Iterator
from math import prod
from typing import NamedTuple

from ckpt.dtypes import DTYPES, itemsize
from ckpt.errors import FormatError, RefusedGlobalError, excerpt
from ckpt.formats.pickle.describe import brief
from ckpt.formats.pickle.globals import (
    FROM_TYPE,
    OTHER_TENSORS,
    PARAMETER,
    PARAMETER_WITH_STATE,
    SETTABLE,
    STORAGES,
    TENSOR_V1,
    TENSOR_V2,
    TENSOR_V3,
    UNTYPED,
)
from ckpt.formats.pickle.nodes import Call, DictNode, Global, Opaque, Persistent, Text
from ckpt.tensors import Span, TensorEntry

# How to get a plain tensor from another kind.
_WAYS = {
    "sparse": "save the result of .to_dense()",
    "quantised": "save the result of .dequantize(), or of .int_repr() with its scale",
    "nested": "save the result of .unbind()",
    "meta": "it has a shape but no values; save a tensor on a device",
    "Parameter": "load it with torch and save its state_dict again",
    "numbers": "save the tensor itself, which torch.save then describes by its storage",
}
PLAIN = frozenset({TENSOR_V1, TENSOR_V2, TENSOR_V3})
_CLASSES = frozenset({"torch.Tensor", "torch.nn.parameter.Parameter"})
DIMENSIONS_LIMIT = 1000  # torch's own operations stop at 64
_LARGEST = 2**63  # torch counts elements in an int64


class Storage(NamedTuple):
    """A reference to a storage: the dtype of its elements, its name in the file, their number.

    `view` is a part of it with a key, first element and number of elements; only legacy files
    have views, or an empty one for none.
    """

    dtype: str
    key: str
    numel: int
    view: tuple[str, int, int] | tuple[()] | None = None


# Gives the place of a storage's bytes; ValueError if the container has none of this form.
FindStorage = Callable[[Storage], Span]


class Storages:
    """The storages that a pickle names.

    Law: storages with the same key are the same. torch keeps the first one that it meets, with
    its dtype, and gives it to all tensors of this key, even if another one takes it from the
    stack again; only an empty storage may have two dtypes.

    Attributes:
        by_key: One storage for each key.
    """

    def __init__(self, find: FindStorage) -> None:
        self.by_key: dict[str, Storage] = {}
        self._views: dict[str, Storage] = {}
        self._find = find
        self._known: dict[Persistent, Storage] = {}

    def read(self, node: object) -> Storage:
        """The storage that a persistent id names.

        Raises:
            ValueError: It is not a storage, of an unknown kind, or differs from another one.
        """
        if not isinstance(node, Persistent):
            raise ValueError("not a storage")
        storage = self._known.get(node)
        if storage is None:
            storage = self._known[node] = storage_of(node)
            self._expect_same(storage)
        return storage

    def place(self, storage: Storage) -> Span:
        """The place of its bytes; of the whole storage even for a view."""
        return self._find(storage)

    def _expect_same(self, storage: Storage) -> None:
        known = self.by_key.setdefault(storage.key, storage)
        if known is not storage and known[:3] != storage[:3] and (known.numel or storage.numel):
            raise ValueError(f"storage {storage.key} has two dtypes or sizes")
        taken = storage.key in self._views
        if storage.view:
            key, first, numel = storage.view
            taken = taken or key in self.by_key
            if first + numel > storage.numel:
                raise ValueError(f"view {key} reaches beyond its storage {storage.key}")
            if self._views.setdefault(key, storage) != storage:
                raise ValueError(f"view {key} is of two storages or places")
        if taken:
            raise ValueError("a view has the key of a storage")


def entries_of(
    tensors: Iterable[tuple[str, Call]], storages: Storages, *, name: str
) -> tuple[TensorEntry, ...]:
    """The entries of tensors, in their order.

    Args:
        tensors: Each with its key, e.g. from `find.choose`.
        storages: Those of the pickle.
        name: Of the file, for messages.

    Raises:
        FormatError: A key is not valid Unicode, or a tensor is not well-formed.
    """
    entries = []
    for key, tensor in tensors:
        if not key.isascii() and any("\ud800" <= char <= "\udfff" for char in key):
            raise FormatError(f"{name}: the key {brief(key)} is not valid Unicode")
        entries.append(entry_of(key, tensor, storages, name=name))
    return tuple(entries)


def entry_of(key: str, tensor: Call, storages: Storages, *, name: str) -> TensorEntry:
    """The entry of one tensor, its geometry checked against its storage.

    Raises:
        FormatError: It is of a kind without plain bytes, or not well-formed.
    """
    where = f"{name}: {key}"
    if Opaque in map(type, tensor.arguments):
        raise _dependent(tensor, where)
    if tensor.function not in PLAIN:
        tensor = plain_of(tensor, where)
    _expect_no_bits(tensor, where)
    try:
        read = _geometry(tensor, storages)
        span = storages.place(read.storage)
    except (ValueError, IndexError) as error:
        raise FormatError(f"{where}: not a tensor as torch describes it: {error}") from error
    if read.dtype not in DTYPES:
        raise FormatError(f"{where}: ckpt cannot read dtype {read.dtype} yet")
    storage, unit = read.storage, itemsize(read.storage.dtype)
    if storage.numel * unit != span.nbytes:
        raise FormatError(
            f"{where}: storage {storage.key} should have {storage.numel * unit:,} bytes, "
            f"the file holds {span.nbytes:,}"
        )
    numel = prod(read.shape)
    _expect_countable(read, numel, where)
    if not numel:
        return TensorEntry(key, read.dtype, read.shape, span.offset)
    contiguous = _contiguous(read.shape, read.stride)
    _expect_inside(read, numel - 1 if contiguous else _farthest(read), where)
    first = read.first * itemsize(read.dtype)
    if storage.view:
        first += storage.view[1] * unit
    stride = None if contiguous else read.stride
    return TensorEntry(key, read.dtype, read.shape, span.offset + first, stride)


def _dependent(tensor: Call, where: str) -> RefusedGlobalError:
    opaque = next(item for item in tensor.arguments if isinstance(item, Opaque))
    return RefusedGlobalError(
        f"{where}: the tensor needs {excerpt(opaque.name, 100)}, refused at offset "
        f"{opaque.offset:,}",
        hint="save plain tensors of torch, without the class of another package",
    )


class _Geometry(NamedTuple):
    """The arguments of a tensor, with checked types. `first` and `stride` count elements."""

    storage: Storage
    dtype: str
    first: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def plain_of(tensor: Call, where: str) -> Call:
    """The plain tensor in a Parameter, which adds a flag, or in one with attributes.

    Raises:
        FormatError: It is of another kind, or its attributes would change it.
    """
    for _ in range(3):  # attributes of a Parameter of a tensor is as deep as torch nests
        if tensor.function in PLAIN:
            return tensor
        inner = _inner(tensor, where)
        if not isinstance(inner, Call):
            break
        tensor = inner
    kind_ = OTHER_TENSORS.get(tensor.function, f"a tensor made of {tensor.function}")
    way = next((hint for word, hint in _WAYS.items() if word in kind_), None)
    raise FormatError(f"{where}: {kind_}, ckpt reads only plain ones", hint=way)


def _inner(tensor: Call, where: str) -> object:
    """The tensor that another one is made of, if its attributes are harmless."""
    match tensor.function, tensor.arguments:
        case (function, (data, _, _)) if function == PARAMETER:
            return data
        case (function, (data, _, _, state)) if function == PARAMETER_WITH_STATE:
            _expect_attributes(state, where)
            return data
        case (function, (Global() as make, Global() as kind, tuple() as of, state)) if (
            function == FROM_TYPE and kind.name in _CLASSES
        ):
            _expect_attributes(state, where)
            return Call(make.name, of)
    return None


def _expect_attributes(state: object, where: str) -> None:
    """Make sure that the attributes of a tensor are its own, and do not set its values.

    Source: `torch._utils._set_obj_state`: a dict, or one for `__dict__` and one for slots.
    """
    for attributes in state if isinstance(state, tuple) else (state,):
        if attributes is None:
            continue
        if not isinstance(attributes, DictNode):
            raise FormatError(f"{where}: its attributes are {brief(attributes)}, expected a dict")
        for key, _ in attributes.items:
            if not isinstance(key, str) or key in SETTABLE:
                raise FormatError(
                    f"{where}: its attribute {brief(key)} would change the tensor",
                    hint="torch.save does not write such attributes; do not trust this file",
                )


def _geometry(tensor: Call, storages: Storages) -> _Geometry:
    """The arguments of a call that rebuilds a tensor.

    Source: `torch._utils._rebuild_tensor_v2(storage, storage_offset, size, stride,
    requires_grad, backward_hooks, metadata)`; v3 has the dtype before `metadata`.
    """
    arguments = tensor.arguments
    storage, offset, size, stride = arguments[:4]
    of = storages.read(storage)
    return _Geometry(
        of,
        _dtype(arguments[6]) if tensor.function == TENSOR_V3 else of.dtype,
        size_of(offset),
        sizes_of(size),
        sizes_of(stride),
    )


def _expect_no_bits(tensor: Call, where: str) -> None:
    """Refuse a lazily conjugated or negated tensor: its bytes are not its values.

    Source: `torch._utils.get_tensor_metadata`: a dict with ``conj`` and ``neg`` as keys, which
    set the bit whatever their value.
    """
    for metadata in tensor.arguments[6 + (tensor.function == TENSOR_V3) :]:
        if metadata is None:
            continue
        bits = metadata.items if isinstance(metadata, DictNode) else [("metadata", None)]
        for bit, _ in bits:
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


def _expect_inside(read: _Geometry, farthest: int, where: str) -> None:
    """Make sure that the tensor does not reach beyond its storage, or its view of one."""
    storage = read.storage
    reach = (read.first + farthest + 1) * itemsize(read.dtype)
    nbytes = (storage.view[2] if storage.view else storage.numel) * itemsize(storage.dtype)
    if reach > nbytes:
        key = storage.view[0] if storage.view else storage.key
        raise FormatError(
            f"{where}: reaches to byte {reach:,} of storage {key}, which has {nbytes:,}"
        )


def storage_of(node: Persistent) -> Storage:
    """The storage that a persistent id names.

    Source: `torch.serialization._save`, `persistent_id`: ``("storage", storage type, key,
    location, numel)``; in `_legacy_save` a view follows, None or ``(key, first, numel)``.

    Raises:
        ValueError: It is not a storage, of an unknown kind, or has no values.
    """
    identity = node.id
    if not isinstance(identity, tuple) or len(identity) not in (5, 6):
        raise ValueError("not a storage")
    word, kind, key, location, numel, *view = identity
    texts = isinstance(key, str) and isinstance(location, str)
    if word != "storage" or not isinstance(kind, Global) or not texts:
        raise ValueError("not a storage")
    dtype = "uint8" if kind.name == UNTYPED else STORAGES.get(kind.name)
    if dtype is None:
        raise ValueError(f"ckpt cannot read a storage of kind {kind.name}")
    if location == "meta":
        raise ValueError(f"storage {key} is on the device meta, which holds no values")
    return Storage(dtype, str(key), size_of(numel), _view(*view) if view else None)


def _view(view: object) -> tuple[str, int, int] | tuple[()]:
    match view:
        case None:
            return ()
        case (str() as key, first, numel):
            return str(key), size_of(first), size_of(numel)
    raise ValueError("not a view of a storage")


def _dtype(node: object) -> str:
    if not isinstance(node, Global):
        raise ValueError("not a dtype")
    return node.name.removeprefix("torch.")


def sizes_of(node: object) -> tuple[int, ...]:
    """The numbers of a tuple or a ``torch.Size``; a list may grow after the tensor was made.

    Raises:
        ValueError: It is neither, or has too many dimensions or another value.
    """
    if isinstance(node, Call) and node.function == "torch.Size" and node.arguments:
        node = node.arguments[0]
    if not isinstance(node, tuple):
        raise ValueError("expected a tuple of numbers")
    if len(node) > DIMENSIONS_LIMIT:
        raise ValueError(f"{len(node):,} dimensions, the limit is {DIMENSIONS_LIMIT:,}")
    for item in node:
        if type(item) is not int or not 0 <= item < _LARGEST:
            size_of(item)
    return node


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
    for at in range(len(shape) - 1, -1, -1):
        if shape[at] != 1 and stride[at] != expected:
            return False
        expected *= shape[at]
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
