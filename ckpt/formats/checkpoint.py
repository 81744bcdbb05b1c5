"""What every format gives: a checkpoint, and the functions of its module."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ckpt.errors import FormatError, KeyCollisionError
from ckpt.io.sources import ByteSource
from ckpt.tensors import Layout, Span, TensorEntry


@dataclass(frozen=True, slots=True)
class Checksum:
    """A checksum that a container states of a range of its file.

    Attributes:
        span: The range.
        crc32: Of its bytes; None where the writer left it out.
        what: What stands there, as people know it, e.g. ``archive/data/0``.
    """

    span: Span
    crc32: int | None
    what: str


class Checkpoint(Protocol):
    """An opened container.

    Law: `renamed` with no new name describes a file with the same entries and the same rest.
    """

    @property
    def format(self) -> str:
        """The container's name, e.g. ``torch-zip``."""

    @property
    def written_by(self) -> str | None:
        """What wrote it, as far as the file says: ``torch.save of torch 2.1 or newer``."""

    @property
    def source(self) -> ByteSource:
        """Where its bytes are."""

    @property
    def entries(self) -> Sequence[TensorEntry]:
        """The state_dict, in file order, each with its offset in the file."""

    @property
    def spans(self) -> Sequence[Span]:
        """Where whole tensors lie in the file, in file order, disjoint.

        Those outside the state_dict, an optimizer's for example, are among them.
        """

    @property
    def checksums(self) -> Sequence[Checksum]:
        """The checksums that the container states, in file order."""

    @property
    def rest(self) -> Mapping[str, Any]:
        """The non-tensor part as far as people want to see it; fit for JSON."""

    @property
    def aliases(self) -> Sequence[str]:
        """Names of tensors that stand elsewhere than with the tensors, of tied ones mostly.

        `renamed` takes new names for them as well.
        """

    def also_named(self, keys: Container[str]) -> Sequence[str]:
        """Where else in the file some of these keys stand and follow a rename: ``ema``."""

    def renamed(self, new_keys: Mapping[str, str]) -> Layout:
        """The same container with other keys; all else, and the order, is kept.

        Args:
            new_keys: Old key to new key; keys that are not in it keep their name.

        Raises:
            KeyCollisionError: Two keys, of which one may hold no tensor, would be the same.
            FormatError: The container cannot hold a new key.
        """


class Format(Protocol):
    """The names that the module of a format has."""

    NAME: str

    def carries(self, key: str, value: object) -> bool:
        """Whether a new file has a place for this part of the rest of another."""

    def recognises(self, head: bytes) -> bool:
        """Whether a file that begins with `head`, of 512 bytes or less, is of this format."""

    def read(self, source: ByteSource, *, inside: str | None = None) -> Checkpoint:
        """Open a file of this format.

        Raises:
            FormatError: It is not well-formed.
        """

    def lay_out(
        self, entries: Sequence[TensorEntry], *, name: str, rest: Mapping[str, Any]
    ) -> Layout:
        """A new file that holds `entries` of some source.

        Args:
            entries: With their offsets in the source.
            name: The file's name without its suffix.
            rest: What to hold besides; nothing but what `carries` says.

        Raises:
            FormatError: The format cannot hold one of them.
        """


def expect_keys(name: str, keys: Iterable[str]) -> None:
    """Keys that are to be written are unique, not empty, and Unicode text.

    Args:
        name: What to call the file in messages.
        keys: All keys of the new state_dict.

    Raises:
        KeyCollisionError: A key stands twice.
        FormatError: A key is empty, or holds half a surrogate pair.
    """
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise KeyCollisionError(f"{name}: two keys would become {key!r}")
        if not key:
            raise FormatError(f"{name}: a key would become empty")
        if not key.isascii() and any("\ud800" <= char <= "\udfff" for char in key):
            raise FormatError(f"{name}: the key {key!r} is no Unicode text")
        seen.add(key)
