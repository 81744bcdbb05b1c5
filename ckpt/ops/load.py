"""Load: the tensors of a version or a file as torch tensors, all at once or one by one."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ckpt.formats.writing import tensor_bytes
from ckpt.ops.opened import OpenedFile, OpenedVersion, open_state
from ckpt.ops.registry import Registry
from ckpt.tensors import TensorEntry

if TYPE_CHECKING:
    import torch


class LazyStateDict(Mapping[str, "torch.Tensor"]):
    """A state_dict whose tensors are read when they are asked for; use it in a `with` block.

    Attributes:
        name: What it was opened from, e.g. ``mnist-cnn:v1``.
        format: The container's format.
        entries: Keys, dtypes and shapes, in file order.
        rest: The non-tensor part of the container.
    """

    def __init__(self, ref: str, registry: Registry) -> None:
        self._stack = ExitStack()
        self._opened = self._stack.enter_context(open_state(ref, registry))
        opened = self._opened
        held = opened.manifest if isinstance(opened, OpenedVersion) else opened.checkpoint
        self.name = opened.name
        self.format = held.format
        self.entries: Sequence[TensorEntry] = opened.entries
        self.rest: Mapping[str, Any] = held.rest
        self._by_key = {entry.key: entry for entry in opened.entries}

    def __getitem__(self, key: str) -> "torch.Tensor":
        """The tensor, freshly read, on the CPU.

        Raises:
            IntegrityError: Stored bytes are not the bytes that were registered.
        """
        import torch

        entry = self._by_key[key]
        dtype = getattr(torch, entry.dtype)
        data = bytearray().join(self._chunks(entry))
        if not data:
            return torch.empty(entry.shape, dtype=dtype)
        return torch.frombuffer(data, dtype=dtype).reshape(entry.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_key)

    def __len__(self) -> int:
        return len(self._by_key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def _chunks(self, entry: TensorEntry) -> Iterator[bytes]:
        if isinstance(self._opened, OpenedFile):
            return tensor_bytes(self._opened.checkpoint.source, entry)
        return self._opened.source.blob(str(entry.digest), entry.nbytes)


def open(ref: str, *, registry: Registry | None = None) -> LazyStateDict:
    """Open a version or a file as a mapping of key to tensor, read on demand.

    Raises:
        RefError: It names nothing.
        FormatError: The file is no checkpoint that can be read.
    """
    return LazyStateDict(ref, registry or Registry())


def load(ref: str, *, registry: Registry | None = None) -> "OrderedDict[str, torch.Tensor]":
    """The state_dict of a version or a file, on the CPU, for `load_state_dict`.

    Module versions (`state_dict._metadata`) are kept where the container has them. Tied
    tensors are separate copies.

    Raises:
        IntegrityError: Stored bytes are not the bytes that were registered.
    """
    with open(ref, registry=registry) as lazy:
        state_dict = OrderedDict(lazy.items())
        versions = lazy.rest.get("_metadata")
    if isinstance(versions, Mapping):
        state_dict._metadata = OrderedDict(versions)  # type: ignore[attr-defined]
    return state_dict
