"""The opcode reader: a pickle becomes plain descriptions, and nothing in it is run.

Source of the opcodes: CPython's `Lib/pickletools.py`; which of them matter: what `torch.save`
and the pickle protocols 2 to 5 emit for state_dicts. Every global must stand on the
allow-list; an unknown one, or an opcode that needs one, is refused with its offset. There is
no fallback. The loop is iterative and bounded in opcodes, memo and stack.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from ckpt.errors import FormatError, RefusedGlobalError
from ckpt.formats.pickle_globals import ALLOWED
from ckpt.formats.pickle_nodes import Call, Global, Mapping, Persistent, Sequence, Text

MEMO_LIMIT = 1_000_000
_MARK = object()


@dataclass(frozen=True, slots=True)
class Read:
    """A pickle that was read.

    Attributes:
        root: What it describes.
        looked_up: Every text that came from the memo, in order.
        frames: Where the FRAME opcodes of protocol 4 stand.
        opcodes: How many there were.
    """

    root: object
    looked_up: list[Text]
    frames: list[int]
    opcodes: int


def read_pickle(data: bytes, *, name: str, opcode_limit: int) -> Read:
    """Describe what a pickle holds.

    Args:
        data: The whole pickle; nothing may follow its STOP.
        name: What to call it in messages.
        opcode_limit: More opcodes than this are refused.

    Raises:
        RefusedGlobalError: It names something that no tensor needs.
        FormatError: It is damaged, too large, or does what torch never writes.
    """
    machine = _Machine(data, name)
    try:
        root = machine.run(opcode_limit)
    except (IndexError, struct.error, UnicodeDecodeError, ValueError, TypeError) as error:
        raise machine.fault(f"damaged at offset {machine.start:,}: {error}") from error
    if machine.position != len(data):
        raise machine.fault(f"{len(data) - machine.position:,} bytes after its end")
    return Read(root, machine.looked_up, machine.frames, machine.opcodes)


class _Machine:
    """The pickle machine's stack, memo and position.

    Foreign bytes drive it: a stack that is too short, a wrong type or a cut argument raises
    IndexError, TypeError, ValueError or struct.error, which `read_pickle` turns into a
    FormatError with the offset.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self.data = data
        self.name = name
        self.position = 0
        self.start = 0
        self.opcodes = 0
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}
        self.looked_up: list[Text] = []
        self.frames: list[int] = []

    def run(self, opcode_limit: int) -> object:
        """Execute until STOP and answer what is on the stack."""
        data, opcodes = self.data, _OPCODES
        while True:
            self.start = self.position
            code = data[self.start]
            self.position += 1
            self.opcodes += 1
            if code == 0x2E:  # STOP
                if len(self.stack) != 1:
                    raise self.fault(f"leaves {len(self.stack)} values, one was expected")
                return self.stack[0]
            if self.opcodes > opcode_limit:
                raise self.fault(f"over {opcode_limit:,} opcodes, more than its tensors need")
            operation = opcodes.get(code)
            if operation is None:
                raise self.fault(
                    f"opcode {bytes([code])!r} at offset {self.start:,}, which torch.save does not "
                    "write"
                )
            operation(self)

    def fault(self, text: str) -> FormatError:
        """An error about this pickle."""
        return FormatError(f"{self.name}: {text}")

    def take(self, nbytes: int) -> bytes:
        """The opcode's next `nbytes` argument bytes."""
        end = self.position + nbytes
        if nbytes < 0 or end > len(self.data):
            raise self.fault(f"cut short at offset {self.start:,}")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def line(self) -> str:
        """The opcode's next argument line."""
        end = self.data.index(b"\n", self.position)
        text = self.data[self.position : end].decode("utf-8")
        self.position = end + 1
        return text

    def push(self, value: object) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def pop(self) -> object:
        """Take the topmost value; a mark is none."""
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value was expected")
        return value

    def to_mark(self) -> list[object]:
        """Take all values down to the topmost mark."""
        index = len(self.stack) - 1
        while self.stack[index] is not _MARK:
            index -= 1
            if index < 0:
                raise ValueError("no mark")
        values = self.stack[index + 1 :]
        del self.stack[index:]
        return values

    def remember(self, slot: int) -> None:
        """Put the topmost value into the memo."""
        if len(self.memo) >= MEMO_LIMIT:
            raise self.fault(f"over {MEMO_LIMIT:,} memo entries")
        if self.stack[-1] is _MARK:
            raise ValueError("a mark for the memo")
        self.memo[slot] = self.stack[-1]

    def recall(self, slot: int) -> None:
        """Push what the memo has."""
        if slot not in self.memo:
            raise ValueError(f"memo {slot} is empty")
        value = self.memo[slot]
        if isinstance(value, Text):
            value = Text.at(value, self.start, self.position, value.origin)
            self.looked_up.append(value)
        self.push(value)

    def text(self, data: bytes) -> None:
        """Push a literal."""
        text = data.decode("utf-8", "surrogatepass")
        self.push(Text.at(text, self.start, self.position, self.start))

    def name_global(self, module: str, attribute: str) -> None:
        """Push a global of the allow-list."""
        name = f"{module}.{attribute}".replace("__builtin__.", "builtins.", 1)
        if name not in ALLOWED or "." in attribute:
            raise RefusedGlobalError(
                f"{self.name}: refused global {name} at offset {self.start:,}",
                hint="no tensor needs it; a file from a stranger that asks for it may do harm, "
                "one of your own can be saved again with tensors and plain values only",
            )
        self.push(Global(name))

    def call(self, function: object, arguments: object) -> None:
        """Push the description of a call."""
        if not isinstance(function, Global) or not isinstance(arguments, Sequence):
            raise self.fault(f"calls what is no global at offset {self.start:,}")
        if function.name == "collections.OrderedDict":
            self.push(Mapping(_pairs(arguments.items)))
        else:
            self.push(Call(function.name, arguments.items))


def _pairs(arguments: list[object]) -> list[tuple[object, object]]:
    """The items of an OrderedDict that is made of a list of pairs, as before Python 2.7."""
    if not arguments:
        return []
    (items,) = arguments
    if not isinstance(items, Sequence):
        raise TypeError("an OrderedDict of something else than pairs")
    pairs = []
    for pair in items.items:
        if not isinstance(pair, Sequence) or len(pair.items) != 2:
            raise TypeError("an OrderedDict of something else than pairs")
        pairs.append((pair.items[0], pair.items[1]))
    return pairs


def _number(kind: str, nbytes: int) -> Callable[[_Machine], int]:
    unpack = struct.Struct(kind).unpack

    def read(machine: _Machine) -> int:
        return int(unpack(machine.take(nbytes))[0])

    return read


_U1, _U2, _U4, _U8 = (_number(k, n) for k, n in (("<B", 1), ("<H", 2), ("<I", 4), ("<Q", 8)))
_I4 = _number("<i", 4)


def _pushes(value: Callable[[_Machine], object]) -> Callable[[_Machine], None]:
    return lambda machine: machine.push(value(machine))


def _tuple(size: int) -> Callable[[_Machine], None]:
    def operation(machine: _Machine) -> None:
        items = [machine.pop() for _ in range(size)]
        machine.push(Sequence("tuple", items[::-1]))

    return operation


def _append(machine: _Machine, values: list[object]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, Sequence) or target.kind == "tuple":
        raise TypeError("appends to what is no list")
    target.items.extend(values)


def _set_items(machine: _Machine, values: list[object]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, Mapping) or len(values) % 2:
        raise TypeError("sets items of what is no dict")
    target.items.extend(zip(values[::2], values[1::2], strict=True))


def _build(machine: _Machine) -> None:
    state = machine.pop()
    target = machine.stack[-1]
    if not isinstance(target, Mapping | Call) or target.state is not None:
        raise TypeError("sets state on what has none")
    target.state = state


def _reduce(machine: _Machine) -> None:
    arguments, function = machine.pop(), machine.pop()
    machine.call(function, arguments)


def _stack_global(machine: _Machine) -> None:
    attribute, module = machine.pop(), machine.pop()
    if not isinstance(attribute, str) or not isinstance(module, str):
        raise TypeError("a global whose name is no text")
    machine.name_global(module, attribute)


def _global(machine: _Machine) -> None:
    module = machine.line()
    machine.name_global(module, machine.line())


def _instance(machine: _Machine) -> None:
    """INST: names its class by itself; no protocol that torch uses writes it."""
    _global(machine)
    raise machine.fault(f"opcode INST at offset {machine.start:,}, which torch.save does not write")


def _long(machine: _Machine, nbytes: int) -> None:
    if nbytes > 64:
        raise machine.fault(f"an integer of {nbytes:,} bytes at offset {machine.start:,}")
    machine.push(int.from_bytes(machine.take(nbytes), "little", signed=True))


def _protocol(machine: _Machine) -> None:
    protocol = _U1(machine)
    if not 2 <= protocol <= 5 or machine.start:
        raise machine.fault(f"pickle protocol {protocol}, 2 to 5 were expected")


def _frame(machine: _Machine) -> None:
    length = _U8(machine)
    if length > len(machine.data) - machine.position:
        raise machine.fault(f"a frame of {length:,} bytes at offset {machine.start:,}")
    machine.frames.append(machine.start)


def _pop(machine: _Machine) -> None:
    machine.stack.pop()


_OPCODES: dict[int, Callable[[_Machine], None]] = {
    0x80: _protocol,
    0x95: _frame,
    ord("("): lambda m: m.push(_MARK),
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
    ord("t"): lambda m: m.push(Sequence("tuple", m.to_mark())),
    ord("]"): lambda m: m.push(Sequence("list")),
    ord("l"): lambda m: m.push(Sequence("list", m.to_mark())),
    ord("a"): lambda m: _append(m, [m.pop()]),
    ord("e"): lambda m: _append(m, m.to_mark()),
    0x8F: lambda m: m.push(Sequence("set")),
    0x90: lambda m: _append(m, m.to_mark()),
    0x91: lambda m: m.push(Sequence("frozenset", m.to_mark())),
    ord("}"): lambda m: m.push(Mapping()),
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
    ord("Q"): lambda m: m.push(Persistent(m.pop())),
}
