"""Entries of a state_dict, and the layout of a container's file.

Nothing here opens a file. Offsets and sizes are in bytes, strides in elements.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Self, TypeVar

from ckpt.dtypes import itemsize
from ckpt.io import digest

Value = TypeVar("Value")
NOT_A_TENSOR = "object"  # in place of the dtype, of a key that holds no tensor
MOST_PARTS = 128  # of a key, between its dots: each is a module, and no model is as deep


@dataclass(frozen=True, slots=True)
class Span:
    """A range of a container's file."""

    offset: int
    nbytes: int

    @property
    def end(self) -> int:
        """Offset of the first byte after the span."""
        return self.offset + self.nbytes

    def moved(self, by: int) -> "Span":
        """The same bytes in a file that has `by` more bytes before them."""
        return Span(self.offset + by, self.nbytes)


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One key of a state_dict, and its tensor's description.

    Attributes:
        key: E.g. ``conv1.weight``.
        dtype: torch's spelling, e.g. ``bfloat16``.
        shape: E.g. ``(64, 32, 3, 3)``.
        offset: Of the first element in the container's file; None without a file (a
            definition, a version's manifest).
        stride: In elements, as torch has it; None for a contiguous (row-major) tensor.
        digest: SHA-256 of the contiguous little-endian bytes, if known.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    offset: int | None = None
    stride: tuple[int, ...] | None = None
    digest: str | None = None

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the contiguous tensor."""
        return prod(self.shape) * itemsize(self.dtype)

    @property
    def position(self) -> int:
        """The offset of an entry of a file; other entries have none."""
        if self.offset is None:
            raise ValueError(f"{self.key} has no place in a file")
        return self.offset

    def moved(self, by: int) -> Self:
        """The same tensor in a file that has `by` more bytes before it."""
        return replace(self, offset=self.position + by)

    @property
    def span(self) -> Span | None:
        """The tensor's bytes in the file; None unless they are contiguous there."""
        if self.offset is None or self.stride is not None:
            return None
        return Span(self.offset, self.nbytes)


@dataclass(frozen=True, slots=True)
class StateDict:
    """A state_dict without its values.

    Attributes:
        entries: Its tensors.
        others: Its keys that hold no tensor, such as a module's ``_extra_state``.
        versions: The `_metadata` that `Module.state_dict` sets: module to numbers by name; None
            without.
        tied: Name to the key whose tensor it shares: of a file, names that it notes and does not
            store; of a definition, names of its parameters and buffers after the first.
    """

    entries: Sequence[TensorEntry]
    others: Sequence[str] = ()
    versions: Mapping[str, Any] | None = None
    tied: Mapping[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> list[TensorEntry]:
        """All keys, those without a tensor last and as `NOT_A_TENSOR`."""
        return [*self.entries, *(TensorEntry(key, NOT_A_TENSOR, ()) for key in self.others)]

    def ties(self, one: str, other: str) -> bool:
        """Whether two names share one tensor."""
        return self.tied.get(one, one) == self.tied.get(other, other)

    @property
    def named(self) -> list[TensorEntry]:
        """Its tensors by all their names, those that are not stored last."""
        mine = {entry.key: entry for entry in self.entries}
        noted = [(name, mine[key]) for name, key in self.tied.items() if key in mine]
        return [*self.entries, *(replace(e, key=name) for name, e in noted if name not in mine)]

    def loaded_into(self, definition: "StateDict") -> "StateDict":
        """With the noted names that a definition ties to the same keys.

        `safetensors.torch.load_model` loads them so: a name that is not stored is not missing if
        the model shares its tensor with a name that is stored.
        """
        noted = self.named[len(self.entries) :]
        tied = [e for e in noted if definition.ties(e.key, self.tied[e.key])]
        return replace(self, entries=(*self.entries, *tied)) if tied else self


def is_key(text: str) -> bool:
    """Whether a reader accepts a key; work on it may take the square of the number of its parts."""
    return text.count(".") < MOST_PARTS


@dataclass(slots=True)
class Summed:
    """A piece whose CRC-32 is computed while it is copied, for the checksums that follow."""

    piece: Span | TensorEntry
    crc32: int = 0

    def add(self, chunk: bytes) -> None:
        """Continue the CRC-32 with the next bytes."""
        self.crc32 = digest.crc32(chunk, self.crc32)


@dataclass(frozen=True, slots=True)
class FileStart:
    """Begins the next file, in the layout of a checkpoint of several files."""

    name: str


# One piece of a file to be written: bytes as given, a span copied from the source, or the
# contiguous bytes of an entry of the source. A layout is consumed lazily and in order, so
# that it can use the checksum of a `Summed` piece that it yielded before.
Piece = bytes | Span | TensorEntry | Summed
Layout = Iterable[Piece | FileStart]


def tensor_spans(entries: Iterable[TensorEntry]) -> list[Span]:
    """The disjoint spans that hold whole tensors, in file order.

    Tied tensors share a span. If tensors overlap partly, the first keeps its span. Empty
    tensors and non-contiguous ones have none.
    """
    candidates = set()  # (offset, -nbytes): the largest first among equal offsets
    for entry in entries:
        nbytes = entry.nbytes
        if nbytes and entry.offset is not None and entry.stride is None:
            candidates.add((entry.offset, -nbytes))
    chosen: list[Span] = []
    end = 0
    for offset, negative in sorted(candidates):
        if offset >= end:
            chosen.append(Span(offset, -negative))
            end = offset - negative
    return chosen


def with_versions(
    state: OrderedDict[str, Value], versions: Mapping[str, Any] | None
) -> OrderedDict[str, Value]:
    """A state_dict, given the versions of its modules in the attribute where torch keeps them.

    Args:
        state: The state_dict.
        versions: By module; None if they are not known.

    Returns:
        `state` itself.
    """
    if versions is not None:
        vars(state)["_metadata"] = OrderedDict(versions)
    return state
