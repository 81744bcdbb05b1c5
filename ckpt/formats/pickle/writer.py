"""Writes a pickle of protocol 2 that describes a state_dict as `torch.save` does; new tensors.

Source: `torch.serialization._save` and `torch._tensor.Tensor._reduce_ex_internal` of torch
2.13: an OrderedDict of `_rebuild_tensor_v2` calls, or v3 for dtypes without a typed storage.
"""

import struct
from collections.abc import Mapping, Sequence
from math import prod

from ckpt.formats.pickle.globals import STORAGES, TENSOR_V2, TENSOR_V3, UNTYPED
from ckpt.formats.pickle.nodes import Call, DictNode, Global, Persistent
from ckpt.formats.pickle.tensors import plain_of
from ckpt.tensors import TensorEntry

TYPED = {dtype: storage for storage, dtype in STORAGES.items()}


Versions = Mapping[str, Mapping[str, int]]


def pickle_state_dict(
    entries: Sequence[TensorEntry], storages: Sequence[str], versions: Versions | None = None
) -> bytes:
    """The pickle of a state_dict whose tensors are contiguous, each from its storage's start.

    Args:
        entries: Keys, dtypes and shapes.
        storages: The name of each entry's storage in the archive.
        versions: The `_metadata` that `Module.state_dict` sets on its result, if any.
    """
    pickler = _Pickler()
    parts = [b"\x80\x02", pickler.named("collections.OrderedDict"), b")R("]
    for entry, storage in zip(entries, storages, strict=True):
        parts += [literal(entry.key), *_tensor(pickler, entry, storage)]
    parts.append(b"u")
    if versions is not None:
        parts += _versions(pickler, versions)
    return b"".join([*parts, b"."])


def tensor_node(entry: TensorEntry, storage: str, location: str, *, legacy: bool) -> Call:
    """The node of a contiguous tensor that begins where its storage does.

    Args:
        entry: Its dtype and shape.
        storage: The name of its storage in the container.
        location: The device that torch gives it: ``cpu``, ``cuda:0``.
        legacy: Whether the container is that from before torch 1.6, which knows views of storages.
    """
    kind = TYPED.get(entry.dtype)
    of = ("storage", Global(kind or UNTYPED), storage, location, storage_numel(entry))
    storage_node = Persistent((*of, None) if legacy else of)
    geometry = (storage_node, 0, entry.shape, _contiguous_stride(entry.shape))
    hooks = DictNode([])
    if kind is not None:
        return Call(TENSOR_V2, (*geometry, False, hooks))
    return Call(TENSOR_V3, (*geometry, False, hooks, Global(f"torch.{entry.dtype}")))


def storage_numel(entry: TensorEntry) -> int:
    """The elements of such a storage; of one without a dtype its bytes."""
    return entry.numel if entry.dtype in TYPED else entry.nbytes


def location_of(tensor: Call) -> str:
    """The device that torch gives to a tensor of a file that was read."""
    storage = plain_of(tensor, "").arguments[0]
    assert isinstance(storage, Persistent)
    assert isinstance(storage.id, tuple)
    return str(storage.id[3])


def is_module_versions(value: object) -> bool:
    """Whether `versions` can hold it: numbers by name for each module."""
    return isinstance(value, Mapping) and all(
        isinstance(module, str)
        and isinstance(numbers, Mapping)
        and all(type(number) is int and 0 <= number < 1 << 31 for number in numbers.values())
        for module, numbers in value.items()
    )


def _versions(pickler: "_Pickler", versions: Versions) -> list[bytes]:
    parts = [b"}", literal("_metadata"), pickler.named("collections.OrderedDict"), b")R("]
    for module, numbers in versions.items():
        parts += [literal(module), b"}("]
        for name, number in numbers.items():
            parts += [literal(name), integer(number)]
        parts.append(b"u")
    return [*parts, b"usb"]


def _tensor(pickler: "_Pickler", entry: TensorEntry, storage: str) -> list[bytes]:
    typed = TYPED.get(entry.dtype)
    return [
        pickler.named(TENSOR_V2 if typed else TENSOR_V3),
        b"((",
        literal("storage"),
        pickler.named(typed or UNTYPED),
        literal(storage),
        literal("cpu"),
        integer(entry.numel if typed else entry.nbytes),
        b"tQ",
        integer(0),
        pickler.numbers(entry.shape),
        pickler.numbers(_contiguous_stride(entry.shape)),
        b"\x89",  # requires_grad
        pickler.named("collections.OrderedDict"),  # backward_hooks
        b")R",
        b"" if typed else pickler.named(f"torch.{entry.dtype}"),
        b"tR",
    ]


def _contiguous_stride(shape: Sequence[int]) -> tuple[int, ...]:
    """The stride that torch gives to a new tensor, in elements."""
    return tuple(prod(max(n, 1) for n in shape[at + 1 :]) for at in range(len(shape)))


class _Pickler:
    """Emits opcodes; globals go through the memo, since every tensor names them."""

    def __init__(self) -> None:
        self._memo: dict[str, int] = {}

    def named(self, name: str) -> bytes:
        """A global."""
        slot = self._memo.get(name)
        if slot is not None:
            return b"h" + bytes([slot])
        self._memo[name] = slot = len(self._memo)
        module, _, attribute = name.rpartition(".")
        return f"c{module}\n{attribute}\nq".encode("ascii") + bytes([slot])

    def numbers(self, numbers: Sequence[int]) -> bytes:
        """A tuple of integers."""
        return b"(" + b"".join(map(integer, numbers)) + b"t"


def literal(text: str) -> bytes:
    """The opcode that pushes a text."""
    data = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def integer(number: int) -> bytes:
    """The opcode that pushes an integer, at least 0."""
    if number < 1 << 8:
        return b"K" + bytes([number])
    if number < 1 << 16:
        return b"M" + struct.pack("<H", number)
    if number < 1 << 31:
        return b"J" + struct.pack("<i", number)
    return b"\x8a\x08" + struct.pack("<q", number)
