"""The interface of a format: its checkpoint, and the functions of its module."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ckpt.errors import FormatError, KeyCollisionError
from ckpt.io.sources import ByteSource
from ckpt.tensors import Layout, Span, TensorEntry


@dataclass(frozen=True, slots=True)
class Checksum:
    """A checksum that a container states for a range of its file.

    Attributes:
        span: The range.
        crc32: Of its bytes; None if the writer left it out.
        what: The range's name for people, e.g. ``archive/data/0``.
    """

    span: Span
    crc32: int | None
    what: str


@dataclass(frozen=True, slots=True)
class Pickled:
    """What the pickle of a file names.

    Attributes:
        globals: Every global, with the offset of the first opcode that names it.
        protocol: Of the pickle.
        chosen: The path of the state_dict, as after ``FILE::``; empty for the root.
        modules: The path and class of each pickled module that was read as a state_dict.
        path: The keys that lead from the root to the state_dict; empty for the root, and if the
            tensors are not in one mapping.
    """

    globals: Mapping[str, int]
    protocol: int
    chosen: str = ""
    modules: tuple[str, ...] = ()
    path: tuple[str, ...] = ()


class Checkpoint(Protocol):
    """An opened container.

    Law: `renamed` without new keys describes a file with the same entries and the same rest.
    """

    @property
    def format(self) -> str:
        """The container's name, e.g. ``torch-zip``."""

    @property
    def written_by(self) -> str | None:
        """The writer, as far as the file tells: ``torch.save of torch 2.1 or newer``."""

    @property
    def source(self) -> ByteSource:
        """Its bytes."""

    @property
    def entries(self) -> Sequence[TensorEntry]:
        """The state_dict in file order, each entry with its offset in the file."""

    @property
    def spans(self) -> Sequence[Span]:
        """The disjoint ranges of whole tensors, in file order.

        They include tensors outside the state_dict, e.g. an optimizer's.
        """

    @property
    def checksums(self) -> Sequence[Checksum]:
        """The checksums that the container states, in file order."""

    @property
    def rest(self) -> Mapping[str, Any]:
        """The non-tensor part as far as people want to see it; valid JSON."""

    @property
    def aliases(self) -> Mapping[str, str]:
        """Further names of tensors, mostly of tied ones, that the file notes, each with its key.

        `renamed` accepts new names for them as well.
        """

    @property
    def others(self) -> Sequence[str]:
        """The keys of the state_dict that hold no tensor, in file order.

        `renamed` accepts new names for them as well.
        """

    @property
    def pickled(self) -> Pickled | None:
        """What its pickles name; None for a format without pickles that may hold objects."""

    def also_named(self, keys: Container[str]) -> Sequence[str]:
        """Other places in the file that name some of these keys and follow a rename: ``ema``."""

    def left_behind(self, keys: Container[str]) -> Sequence[str]:
        """Other places in the file that name some of these keys and do not follow a rename."""

    def untouched(self, new_keys: Mapping[str, str]) -> Mapping[str, Any]:
        """What `renamed` leaves of `rest` as it is, perhaps with old names in it, by place."""

    def renamed(self, new_keys: Mapping[str, str]) -> Layout:
        """The same container with other keys; everything else, and the order, is kept.

        Args:
            new_keys: Old key to new key; keys that are not in it keep their name.

        Raises:
            KeyCollisionError: Two keys would be the same; one of them may hold no tensor.
            FormatError: The container cannot hold a new key.
        """


class Format(Protocol):
    """The names that the module of a format has."""

    NAME: str

    def carries(self, key: str, value: object) -> bool:
        """Whether a new file can hold this item of the `rest` of another."""

    def recognises(self, head: bytes) -> bool:
        """Whether a file that begins with `head` (at most 512 bytes) is of this format."""

    def read(self, source: ByteSource, *, inside: str | None = None) -> Checkpoint:
        """Open a file of this format.

        Raises:
            FormatError: It is not well-formed.
        """

    def lay_out(
        self, entries: Sequence[TensorEntry], *, name: str, rest: Mapping[str, Any]
    ) -> Layout:
        """The layout of a new file that holds `entries` of some source.

        Args:
            entries: With their offsets in the source.
            name: The file's name without its suffix.
            rest: Further items; `carries` accepts them all.

        Raises:
            FormatError: The format cannot hold one of them.
        """


def expect_keys(name: str, keys: Iterable[str]) -> None:
    """Make sure that the keys of a new file are unique, not empty, and valid Unicode.

    Args:
        name: Of the file, for messages.
        keys: All keys of the new state_dict.

    Raises:
        KeyCollisionError: A key appears twice.
        FormatError: A key is empty, or holds half a surrogate pair.
    """
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise KeyCollisionError(f"{name}: two keys would become {key!r}")
        if not key:
            raise FormatError(f"{name}: a key would become empty")
        if not key.isascii() and any("\ud800" <= char <= "\udfff" for char in key):
            raise FormatError(f"{name}: the key {key!r} is not valid Unicode")
        seen.add(key)
