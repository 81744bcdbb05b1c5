"""Load: the tensors of a version or a file as torch tensors, all at once or one by one."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ckpt.dtypes import itemsize
from ckpt.errors import FormatError, RefError, UsageError
from ckpt.formats.stream import reach_of, tensor_bytes
from ckpt.opened import open_state
from ckpt.opened.named import Weights
from ckpt.opened.states import OpenedState, OpenedVersion
from ckpt.printed import Printed
from ckpt.registry.registry import InRegistry, Registry
from ckpt.tensors import TensorEntry, with_versions

if TYPE_CHECKING:
    import numpy as np
    import torch

    Model = torch.nn.Module | type[torch.nn.Module]


class LazyStateDict(Printed, Mapping[str, "torch.Tensor"]):
    """A state_dict whose tensors are read on request; use it in a `with` block.

    Tensors of a file are mapped into memory without a copy where the file stores them contiguously
    and aligned; writing to them does not change the file. Do not change the file while they are in
    use: if it becomes shorter, the system kills the process. Tensors of the same bytes share
    memory; `clone()` makes a tensor independent. Tensors of a version are verified and read into
    memory of their own.

    Attributes:
        name: The ref that was opened, e.g. ``mnist-cnn:v1``.
        format: The container's format.
        entries: Keys, dtypes and shapes, in file order; then the names of tied tensors that a
            safetensors file notes in its metadata and does not store.
        rest: The non-tensor part of the container.
        registry: Where it was looked up.
        closed: Whether it was closed.
    """

    VIEW: ClassVar = "ckpt.show.show:opened_text"

    def __init__(self, ref: Weights, registry: Registry) -> None:
        self._stack = ExitStack()
        self.closed = False
        self.registry = registry
        self._opened = opened = self._stack.enter_context(open_state(ref, registry))
        container = opened.manifest if isinstance(opened, OpenedVersion) else opened.checkpoint
        self.name = opened.name
        self.format = container.format
        self.entries: Sequence[TensorEntry] = _named(opened, container.format)
        self.rest: Mapping[str, Any] = container.rest
        self._by_key = {entry.key: entry for entry in self.entries}

    @property
    def opened(self) -> OpenedState:
        """What `ckpt.diff` and the like read.

        Raises:
            UsageError: It is closed; its descriptor may be another file's now.
        """
        if self.closed:
            raise UsageError(f"{self.name}: already closed", hint="use it inside the `with` block")
        return self._opened

    @property
    def _metadata(self) -> "OrderedDict[str, Any] | None":
        """The versions of modules, where `load_state_dict` looks for them."""
        versions = self.rest.get("_metadata")
        return OrderedDict(versions) if isinstance(versions, Mapping) else None

    def __getitem__(self, key: str) -> "torch.Tensor":
        """The tensor, on the CPU; an `IntegrityError` if stored bytes are damaged."""
        import torch

        entry = self._by_key[key]
        dtype = getattr(torch, entry.dtype)
        if not entry.nbytes:
            return torch.empty(entry.shape, dtype=dtype)
        data, stride = self._memory(entry)
        flat = torch.frombuffer(data, dtype=torch.uint8).view(dtype)
        return flat.reshape(entry.shape) if stride is None else flat.as_strided(entry.shape, stride)

    def numpy(self, key: str) -> "np.ndarray[Any, Any]":
        """The tensor as a numpy array, without torch; otherwise like `lazy[key]`.

        Raises:
            FormatError: numpy does not have the dtype.
        """
        import numpy as np

        entry = self._by_key[key]
        try:
            dtype = np.dtype(entry.dtype)
        except TypeError as error:
            raise FormatError(
                f"{self.name}: {key}: numpy has no {entry.dtype}",
                hint="index with [key] for a torch tensor",
            ) from error
        if not entry.nbytes:
            return np.empty(entry.shape, dtype)
        data, stride = self._memory(entry)
        steps = None if stride is None else tuple(step * dtype.itemsize for step in stride)
        return np.ndarray(entry.shape, dtype, data, strides=steps)

    def __contains__(self, key: object) -> bool:
        return key in self._by_key

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_key)

    def __len__(self) -> int:
        return len(self._by_key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; tensors read before stay valid."""
        self.closed = True
        self._stack.close()

    def _brief(self) -> str:
        state = ", closed" if self.closed else ""
        return f"{self.name}: {len(self):,} keys, {self.format}{state}"

    def _memory(self, entry: TensorEntry) -> tuple[bytearray | memoryview, Sequence[int] | None]:
        """Writable memory that holds the tensor, and its stride there; None if contiguous."""
        opened = self.opened
        if isinstance(opened, OpenedVersion):
            chunks = opened.source.stream_object(str(entry.digest), entry.nbytes)
            return bytearray().join(chunks), None
        source = opened.checkpoint.source
        # Processors and torch expect elements at multiples of their size.
        if entry.offset is not None and entry.offset % itemsize(entry.dtype) == 0:
            mapped = source.mapped(entry.offset, reach_of(entry))
            if mapped is not None:
                return mapped, entry.stride
        reach = reach_of(entry)
        if entry.stride is not None and reach < entry.nbytes:  # more elements than bytes
            return bytearray(source.read(entry.offset or 0, reach)), entry.stride
        return bytearray().join(tensor_bytes(source, entry)), None


def _named(opened: OpenedState, form: str) -> Sequence[TensorEntry]:
    """The tensors by all their names.

    A noted name without a dot is more likely other text, such as the name of the best layer.
    """
    if "safetensors" not in form:
        return opened.entries
    stored = len(opened.entries)
    named = opened.state.named
    return [*opened.entries, *(entry for entry in named[stored:] if "." in entry.key)]


def open(ref: Weights, *, registry: InRegistry | None = None) -> LazyStateDict:
    """Open a version or a file as a mapping of key to tensor, read on request.

    Example:
        >>> with ckpt.open("old.pt") as checkpoint:
        ...     checkpoint["conv1.bias"].shape
        torch.Size([8])
    """
    return LazyStateDict(ref, Registry.of(registry))


def load(
    ref: Weights,
    *,
    keys: str | Iterable[str] | None = None,
    device: "torch.device | str | int" = "cpu",
    to: "Model | None" = None,
    registry: InRegistry | None = None,
) -> "OrderedDict[str, torch.Tensor]":
    """The state_dict of a version or a file, for `load_state_dict`.

    Tied tensors are there by all their names. Every tensor has memory of its own, even if tied,
    so the file may change afterwards. Module versions (`state_dict._metadata`) are kept if the
    container has them.

    Args:
        ref: A version or a file, here or at a URL.
        keys: Only these tensors are read: their keys, or a regular expression that is searched in
            every key.
        device: Where the tensors go.
        to: A class or a module that it should fit, by the migrations of the class.
        registry: Where versions are looked up.

    Raises:
        RefError: It has no such key.
        IntegrityError: Stored bytes differ from the registered ones.
        FitError: It does not fit `to`, and no migrations lead there.

    Example:
        >>> net.load_state_dict(ckpt.load("net@prod"))
        <All keys matched successfully>
        >>> list(ckpt.load("net:v1", keys="^fc", device="cpu"))
        ['fc.weight', 'fc.bias']
    """
    if keys is not None and to is not None:
        raise UsageError("to= takes a whole state_dict, and keys= leaves some out")
    with open(ref, registry=registry) as lazy:
        import torch

        place = torch.device(device)
        chosen = lazy if keys is None else _chosen(lazy, keys)
        state_dict = OrderedDict((key, _copied(lazy[key], place)) for key in chosen)
        with_versions(state_dict, lazy._metadata)
    if to is not None:
        from ckpt.migrate.hook import fitted

        return fitted(state_dict, to, name=str(ref))
    return state_dict


def _chosen(lazy: LazyStateDict, keys: str | Iterable[str]) -> list[str]:
    """The keys that are meant, in the order of the file.

    Raises:
        RefError: One is missing, or none matches.
    """
    if isinstance(keys, str):
        from ckpt.rules.patterns import Pattern  # which imports regex

        pattern = Pattern(keys, name="keys")
        if not (found := [key for key in lazy if pattern.search(key)]):
            raise RefError(f"{lazy.name}: keys={keys!r} matches none of its {len(lazy):,} keys")
        return found
    wanted = set(keys)
    for key in wanted - lazy.keys():
        from difflib import get_close_matches

        near = ", ".join(get_close_matches(key, lazy, n=3))
        raise RefError(f"{lazy.name}: has no {key}", hint=f"it has {near}" if near else None)
    return [key for key in lazy if key in wanted]


def _copied(tensor: "torch.Tensor", device: "torch.device") -> "torch.Tensor":
    return tensor.clone() if device.type == "cpu" else tensor.to(device)


def load_into(
    module: "torch.nn.Module", ref: Weights, *, registry: InRegistry | None = None
) -> None:
    """Load a version or a file into a module, strictly, by the migrations of its class.

    Args:
        module: Gets the values.
        ref: A version or a file.
        registry: Where versions are looked up.

    Raises:
        FitError: It does not fit, and no migrations lead there; the module is as before.

    Example:
        >>> ckpt.load_into(net, "net@prod")
    """
    module.load_state_dict(load(ref, to=module, registry=registry))
