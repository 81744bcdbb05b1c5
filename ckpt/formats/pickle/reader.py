"""The opcode reader: a pickle becomes plain descriptions, and nothing in it is run.

Source of the opcodes: CPython's `Lib/pickletools.py`; the table holds those that `torch.save`
and the pickle protocols 2 to 5 emit for state_dicts. Every global must be on the
allow-list; an unknown one, or an opcode that needs one, is refused with its offset. There is
no fallback. The loop is iterative and bounded in opcodes, memo and stack. The table below is
complete; `fast` runs the most frequent opcodes.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from ckpt.errors import FormatError
from ckpt.formats.pickle.fast import FAST, run_fast
from ckpt.formats.pickle.globals import ALLOWED
from ckpt.formats.pickle.machine import MARK, Machine
from ckpt.formats.pickle.nodes import Call, DictNode, ListNode, Persistent, Text
from ckpt.formats.pickle.tensor_call import TensorCall

_STOP = ord(".")


@dataclass(frozen=True, slots=True)
class ParsedPickle:
    """A parsed pickle.

    Attributes:
        root: The description of its value.
        frames: Offsets of the FRAME opcodes of protocol 4.
        opcodes: Their number.
        nbytes: Bytes of the pickle, its STOP included.
    """

    root: object
    frames: list[int]
    opcodes: int
    nbytes: int
    _looked_up: list[Text]
    _persistents: list[Persistent]
    _tensors: list[TensorCall]

    @property
    def looked_up(self) -> list[Text]:
        """Every text that came from the memo, in order."""
        texts = [*self._looked_up, *(text for tensor in self._tensors for text in tensor.texts())]
        return sorted(texts, key=lambda text: text.start)

    @property
    def persistents(self) -> list[Persistent]:
        """Every reference to something outside the pickle."""
        return [*self._persistents, *(tensor.persistent for tensor in self._tensors)]


def read_pickle(
    data: bytes, *, name: str, opcode_limit: int, allowed: frozenset[str] = ALLOWED
) -> ParsedPickle:
    """Describe the content of a pickle.

    Args:
        data: The whole pickle; nothing may follow its STOP.
        name: Of the pickle, for messages.
        opcode_limit: More opcodes than this are refused.
        allowed: The globals that it may name.

    Raises:
        RefusedGlobalError: It names another global.
        FormatError: It is damaged, too large, or has opcodes that torch never writes.
    """
    read = read_first_pickle(data, name=name, opcode_limit=opcode_limit, allowed=allowed)
    if read.nbytes != len(data):
        raise FormatError(f"{name}: {len(data) - read.nbytes:,} bytes after its end")
    return read


def read_first_pickle(
    data: bytes, *, name: str, opcode_limit: int, allowed: frozenset[str] = ALLOWED
) -> ParsedPickle:
    """Like `read_pickle`, but other data may follow the pickle.

    Raises:
        TruncatedError: The pickle goes on after `data`.
    """
    machine = Machine(data, name, allowed)
    try:
        root = _run(machine, opcode_limit)
    except (IndexError, struct.error, UnicodeDecodeError, ValueError, TypeError) as error:
        raise machine.fault(f"damaged at offset {machine.start:,}: {error}") from error
    return ParsedPickle(
        root=root,
        frames=machine.frames,
        opcodes=machine.opcodes,
        nbytes=machine.position,
        _looked_up=machine.looked_up,
        _persistents=machine.persistents,
        _tensors=machine.tensors,
    )


def _run(machine: Machine, opcode_limit: int) -> object:
    """Execute until STOP and return the value on the stack."""
    data = machine.data
    if data[:1] != b"\x80":
        raise machine.fault("does not begin with a protocol, as pickles of protocol 2 to 5 do")
    while True:
        if machine.position < len(data) and data[machine.position] in FAST:
            run_fast(machine, opcode_limit)
        machine.start = machine.position
        if machine.start >= len(data):
            raise machine.truncated()
        code = data[machine.start]
        machine.position += 1
        machine.opcodes += 1
        if code == _STOP:
            if len(machine.stack) != 1 or machine.stack[0] is MARK:
                raise machine.fault(f"leaves {len(machine.stack)} values, expected one")
            return machine.stack[0]
        if machine.opcodes > opcode_limit:
            raise machine.fault(f"over {opcode_limit:,} opcodes, more than its tensors need")
        operation = _OPCODES.get(code)
        if operation is None:
            raise machine.fault(
                f"opcode {bytes([code])!r} at offset {machine.start:,}, which torch.save does "
                "not write"
            )
        operation(machine)


def _unpacked(kind: str, nbytes: int) -> Callable[[Machine], int]:
    unpack = struct.Struct(kind).unpack

    def read(machine: Machine) -> int:
        return int(unpack(machine.take(nbytes))[0])

    return read


_U1, _U2, _U4, _U8 = (_unpacked(k, n) for k, n in (("<B", 1), ("<H", 2), ("<I", 4), ("<Q", 8)))
_I4 = _unpacked("<i", 4)


def _pushes(value: Callable[[Machine], object]) -> Callable[[Machine], None]:
    return lambda machine: machine.push(value(machine))


def _tuple(size: int) -> Callable[[Machine], None]:
    def operation(machine: Machine) -> None:
        items = [machine.pop() for _ in range(size)]
        machine.push(ListNode("tuple", items[::-1]))

    return operation


def _append(machine: Machine, values: list[object]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, ListNode) or target.kind == "tuple":
        raise TypeError("appends to something other than a list")
    target.items.extend(values)


def _set_items(machine: Machine, values: list[object]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, DictNode) or len(values) % 2:
        raise TypeError("sets items of something other than a dict")
    target.items.extend(zip(values[::2], values[1::2], strict=True))


def _build(machine: Machine) -> None:
    state = machine.pop()
    match machine.stack[-1]:
        case (DictNode(ordered=True, state=None) | Call(state=None)) as target:
            target.state = state
        case _:
            raise TypeError("sets state on something that cannot have it")


def _reduce(machine: Machine) -> None:
    arguments, function = machine.pop(), machine.pop()
    machine.call(function, arguments)


def _stack_global(machine: Machine) -> None:
    attribute, module = machine.pop(), machine.pop()
    if not isinstance(attribute, str) or not isinstance(module, str):
        raise TypeError("a global whose name is not text")
    machine.name_global(module, attribute)


def _global(machine: Machine) -> None:
    module = machine.line()
    machine.name_global(module, machine.line())


def _instance(machine: Machine) -> None:
    """INST names its class itself; no protocol that torch uses writes it."""
    _global(machine)
    raise machine.fault(f"opcode INST at offset {machine.start:,}, which torch.save does not write")


def _long(machine: Machine, nbytes: int) -> None:
    if nbytes > 64:
        raise machine.fault(f"an integer of {nbytes:,} bytes at offset {machine.start:,}")
    machine.push(int.from_bytes(machine.take(nbytes), "little", signed=True))


def _protocol(machine: Machine) -> None:
    protocol = _U1(machine)
    if not 2 <= protocol <= 5 or machine.start:
        raise machine.fault(f"pickle protocol {protocol}, expected 2 to 5")


def _frame(machine: Machine) -> None:
    machine.begin_frame(_U8(machine))


def _pop(machine: Machine) -> None:
    machine.stack.pop()


_OPCODES: dict[int, Callable[[Machine], None]] = {
    0x80: _protocol,
    0x95: _frame,
    ord("("): lambda m: m.push(MARK),
    ord("0"): _pop,
    ord("1"): lambda m: (m.to_mark(), None)[1],
    # constants
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("J"): _pushes(_I4),
    ord("K"): _pushes(_U1),
    ord("M"): _pushes(_U2),
    0x8A: lambda m: _long(m, _U1(m)),
    0x8B: lambda m: _long(m, _I4(m)),
    ord("G"): lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    # text and bytes
    ord("X"): lambda m: m.text(m.take(_U4(m))),
    0x8C: lambda m: m.text(m.take(_U1(m))),
    0x8D: lambda m: m.text(m.take(_U8(m))),
    ord("U"): lambda m: m.text(m.take(_U1(m))),
    ord("T"): lambda m: m.text(m.take(_I4(m))),
    ord("C"): lambda m: m.push(m.take(_U1(m))),
    ord("B"): lambda m: m.push(m.take(_U4(m))),
    0x8E: lambda m: m.push(m.take(_U8(m))),
    0x96: lambda m: m.push(m.take(_U8(m))),
    # containers
    ord(")"): _tuple(0),
    0x85: _tuple(1),
    0x86: _tuple(2),
    0x87: _tuple(3),
    ord("t"): lambda m: m.push(ListNode("tuple", m.to_mark())),
    ord("]"): lambda m: m.push(ListNode("list")),
    ord("l"): lambda m: m.push(ListNode("list", m.to_mark())),
    ord("a"): lambda m: _append(m, [m.pop()]),
    ord("e"): lambda m: _append(m, m.to_mark()),
    0x8F: lambda m: m.push(ListNode("set")),
    0x90: lambda m: _append(m, m.to_mark()),
    0x91: lambda m: m.push(ListNode("frozenset", m.to_mark())),
    ord("}"): lambda m: m.push(DictNode()),
    ord("s"): lambda m: _set_items(m, [m.pop(), m.pop()][::-1]),
    ord("u"): lambda m: _set_items(m, m.to_mark()),
    # memo
    ord("q"): lambda m: m.remember(_U1(m)),
    ord("r"): lambda m: m.remember(_U4(m)),
    0x94: lambda m: m.remember(len(m.memo)),
    ord("h"): lambda m: m.recall(_U1(m)),
    ord("j"): lambda m: m.recall(_U4(m)),
    # objects
    ord("c"): _global,
    ord("i"): _instance,
    0x93: _stack_global,
    ord("R"): _reduce,
    0x81: _reduce,  # NEWOBJ: of the classes allowed, a call like any other
    ord("b"): _build,
    ord("Q"): lambda m: m.push(m.refer(m.pop())),
}
