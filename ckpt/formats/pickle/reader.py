"""Reads the pickle of a file: the value that it describes, and the places of its parts.

There is no fallback: what the machine does not know is refused with its offset.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ckpt.errors import FormatError
from ckpt.formats.pickle.globals import ALLOWED
from ckpt.formats.pickle.machine import Machine
from ckpt.formats.pickle.modules import with_state_dicts
from ckpt.formats.pickle.nodes import Call, Persistent, Text
from ckpt.formats.pickle.opcodes import NUMBERED, TABLE

PICKLE_LIMIT = 1 << 28  # bytes of a file's pickle; 100,000 keys take 12 MB


@dataclass(frozen=True, slots=True)
class ParsedPickle:
    """A parsed pickle.

    Attributes:
        root: The description of its value.
        looked_up: Every text that came from the memo, in order.
        persistents: Every reference to something outside the pickle.
        attributed: Every tensor that gets attributes.
        frames: Offsets of the FRAME opcodes of protocol 4.
        named: Every global, with the offset of the first opcode that names it.
        modules: The path and class of each module that became a state_dict.
        protocol: Its number.
        opcodes: Their number.
        nbytes: Bytes of the pickle, its STOP included.
    """

    root: object
    looked_up: list[Text]
    persistents: list[Persistent]
    attributed: list[Call]
    frames: list[int]
    named: Mapping[str, int]
    modules: tuple[str, ...]
    protocol: int
    opcodes: int
    nbytes: int


def read_pickle(
    data: bytes,
    *,
    name: str,
    opcode_limit: int,
    allowed: frozenset[str] = ALLOWED,
    opaque: bool = False,
) -> ParsedPickle:
    """Describe the content of a pickle.

    Args:
        data: The whole pickle; nothing may follow its STOP.
        name: Of the pickle, for messages.
        opcode_limit: More opcodes than this are refused.
        allowed: The globals that it may name.
        opaque: Whether others become opaque nodes.

    Raises:
        RefusedGlobalError: It names another global.
        FormatError: It is damaged, too large, or has opcodes that torch never writes.
    """
    read = read_first_pickle(
        data, name=name, opcode_limit=opcode_limit, allowed=allowed, opaque=opaque
    )
    if read.nbytes != len(data):
        raise FormatError(f"{name}: {len(data) - read.nbytes:,} bytes after its end")
    return read


def read_numbered(data: bytes, *, name: str, allowed: frozenset[str] = ALLOWED) -> object:
    """The root of a pickle that was read before, its integers with their places."""
    machine = Machine(data, name, allowed, opaque=True)
    root, _ = machine.run(NUMBERED, len(data))
    return with_state_dicts(root, machine.opcodes)[0]


def read_first_pickle(
    data: bytes,
    *,
    name: str,
    opcode_limit: int,
    allowed: frozenset[str] = ALLOWED,
    opaque: bool = False,
) -> ParsedPickle:
    """Like `read_pickle`, but other data may follow the pickle.

    Raises:
        TruncatedError: The pickle goes on after `data`.
    """
    machine = Machine(data, name, allowed, opaque=opaque)
    root, end = machine.run(TABLE, opcode_limit)
    root, modules = with_state_dicts(root, machine.opcodes) if opaque else (root, ())
    return ParsedPickle(
        root=root,
        looked_up=machine.looked_up,
        persistents=machine.persistents,
        attributed=machine.attributed,
        frames=machine.frames,
        named=machine.named,
        modules=modules,
        protocol=data[1],
        opcodes=machine.opcodes,
        nbytes=end,
    )
