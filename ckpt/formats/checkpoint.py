"""What every format gives: a checkpoint, and the functions of its module."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ckpt.files import ByteSource
from ckpt.tensors import Layout, Span, TensorEntry


class Checkpoint(Protocol):
    """An opened container.

    Law: `renamed` with no new name describes a file with the same entries and the same rest.
    """

    @property
    def format(self) -> str:
        """The container's name, e.g. ``torch-zip``."""

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
    def rest(self) -> Mapping[str, Any]:
        """The non-tensor part as far as people want to see it; fit for JSON."""

    def renamed(self, new_keys: Mapping[str, str]) -> Layout:
        """The same container with other keys; all else, and the order, is kept.

        Args:
            new_keys: Old key to new key; keys that are not in it keep their name.
        """


class Format(Protocol):
    """The names that the module of a format has."""

    NAME: str

    def recognises(self, head: bytes, size: int) -> bool:
        """Whether a file that begins with `head` and has `size` bytes is of this format."""

    def read(self, source: ByteSource, *, inside: str | None = None) -> Checkpoint:
        """Open a file of this format.

        Raises:
            FormatError: It is not well-formed.
        """

    def lay_out(self, entries: Sequence[TensorEntry], *, name: str) -> Layout:
        """A new file that holds `entries` of some source.

        Args:
            entries: With their offsets in the source.
            name: The file's name without its suffix.

        Raises:
            FormatError: The format cannot hold one of them.
        """
