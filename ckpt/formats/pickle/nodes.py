"""The content of a pickle as plain descriptions: nothing of it is ever called or built.

Text, bytes, numbers, booleans and None are themselves; the rest are the nodes below. Nodes
compare and hash by identity, so that no foreign value is ever hashed. They may contain each
other in circles.
"""

from dataclasses import dataclass, field


class Text(str):
    """Text with its place in the pickle.

    Attributes:
        start: Offset of the opcode that pushed it, a literal or a memo look-up.
        nbytes: Bytes of that opcode.
        origin: Offset of the literal that a look-up repeats.
    """

    # A checkpoint has about four of them for each tensor. `nbytes` is mostly a small integer that
    # Python has already, unlike the offset of the next opcode.
    __slots__ = ("nbytes", "origin", "start")

    start: int
    nbytes: int
    origin: int

    @classmethod
    def at(cls, text: str, start: int, end: int, origin: int) -> "Text":
        """The text, pushed by the opcode between `start` and `end`."""
        new = cls(text)
        new.start, new.nbytes, new.origin = start, end - start, origin
        return new

    @property
    def end(self) -> int:
        """Offset of the next opcode."""
        return self.start + self.nbytes


@dataclass(eq=False, repr=False, slots=True)
class Global:
    """A name of the allow-list, e.g. ``torch._utils._rebuild_tensor_v2``."""

    name: str


@dataclass(eq=False, repr=False, slots=True)
class DictNode:
    """A dict or an OrderedDict; `state` holds the latter's attributes (`_metadata`)."""

    items: list[tuple[object, object]] = field(default_factory=list)
    state: object = None
    ordered: bool = False


@dataclass(eq=False, repr=False, slots=True)
class ListNode:
    """A list, tuple, set or frozenset."""

    kind: str
    items: list[object] = field(default_factory=list)


@dataclass(eq=False, repr=False, slots=True)
class Persistent:
    """A reference to something outside the pickle: torch's storages."""

    id: object


@dataclass(eq=False, repr=False, slots=True)
class Call:
    """A call that the pickle asks for; it is not made."""

    function: str
    arguments: list[object]
    state: object = None
