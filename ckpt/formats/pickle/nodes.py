"""The content of a pickle as plain descriptions: nothing of it is ever called or built.

Text, bytes, numbers, booleans, None, tuples and lists are themselves; the rest are the nodes
below. Nodes compare and hash by identity, so that no foreign value is ever hashed. They may
contain each other in circles.
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

    @property
    def end(self) -> int:
        """Offset of the next opcode."""
        return self.start + self.nbytes


class Number(int):
    """An integer with its place in the pickle, where that is asked for.

    Attributes:
        start: Offset of the opcode that pushed it.
        end: Offset of the next opcode.
    """

    start: int
    end: int


@dataclass(eq=False, repr=False, slots=True)
class Global:
    """A name of the allow-list, e.g. ``torch._utils._rebuild_tensor_v2``."""

    name: str


@dataclass(eq=False, repr=False, slots=True)
class DictNode:
    """A dict of any class; `state` holds the attributes of an OrderedDict (`_metadata`)."""

    items: list[tuple[object, object]]
    ordered: bool = False
    state: object = None


@dataclass(eq=False, repr=False, slots=True)
class Persistent:
    """A reference to something outside the pickle: torch's storages."""

    id: object


@dataclass(eq=False, repr=False, slots=True)
class Call:
    """A call that the pickle asks for; it is not made. Sets are calls in every protocol."""

    function: str
    arguments: tuple[object, ...]
    state: object = None


@dataclass(eq=False, repr=False, slots=True)
class Opaque:
    """A global that is not on the allow-list, or an object of it; never interpreted.

    Attributes:
        name: The global's.
        offset: Of the opcode that names it.
        given: What the pickle gives to it: arguments, items, earlier states.
        state: Its attributes.
    """

    name: str
    offset: int
    given: list[object] = field(default_factory=list)
    state: object = None
