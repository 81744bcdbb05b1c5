"""The opcodes that `torch.save` and the pickle protocols 2 to 5 emit, and no others.

Source: CPython's `Lib/pickletools.py`.
"""

import struct
from collections.abc import Callable

from ckpt.formats.pickle.machine import Machine
from ckpt.formats.pickle.nodes import Call, DictNode, Number

_LONGEST = 64  # bytes of an integer
_Operation = Callable[[Machine, int], int]


def _pushes(make: Callable[[], object]) -> _Operation:
    return lambda machine, at: machine.push(make(), at)


def _constant(value: object) -> _Operation:
    return lambda machine, at: machine.push(value, at)


def _numbers(form: str) -> _Operation:
    read = struct.Struct(form)
    return lambda machine, at: machine.push(read.unpack_from(machine.data, at)[0], at + read.size)


def _sized(form: str, operation: Callable[[Machine, int, int], int]) -> _Operation:
    """An operation with a length before its argument."""
    read = struct.Struct(form)

    def operate(machine: Machine, at: int) -> int:
        return operation(machine, at + read.size, read.unpack_from(machine.data, at)[0])

    return operate


def _integer(machine: Machine, begin: int, nbytes: int) -> int:
    if nbytes > _LONGEST:
        raise ValueError(f"an integer of {nbytes:,} bytes")
    value = int.from_bytes(machine.taken(begin, nbytes), "little", signed=True)
    return machine.push(value, begin + nbytes)


def _bytes(machine: Machine, begin: int, nbytes: int) -> int:
    machine.named.setdefault("builtins.bytes", begin)  # torch does not know these opcodes
    return machine.push(machine.taken(begin, nbytes), begin + nbytes)


def _text(form: str) -> _Operation:
    unpack, header = struct.Struct(form).unpack_from, struct.calcsize(form)

    def operate(machine: Machine, at: int) -> int:
        begin = at + header
        return machine.literal(at - 1, begin, begin + unpack(machine.data, at)[0])

    return operate


_OPERATIONS: dict[int, _Operation] = {
    0x80: Machine.protocol,
    0x95: Machine.frame,
    ord("("): Machine.mark,
    ord("0"): Machine.pop,
    ord("1"): Machine.pop_mark,
    # constants and numbers
    ord("N"): _constant(None),
    0x88: _constant(True),
    0x89: _constant(False),
    ord("J"): _numbers("<i"),
    ord("K"): Machine.byte,
    ord("M"): _numbers("<H"),
    ord("G"): _numbers(">d"),
    0x8A: _sized("<B", _integer),
    0x8B: _sized("<i", _integer),
    # text and bytes
    ord("X"): _text("<I"),
    0x8C: _text("<B"),
    0x8D: _text("<Q"),
    ord("U"): _text("<B"),
    ord("T"): _text("<i"),
    ord("C"): _sized("<B", _bytes),
    ord("B"): _sized("<I", _bytes),
    0x8E: _sized("<Q", _bytes),
    0x96: _sized("<Q", _bytes),
    # containers
    ord(")"): _constant(()),
    0x85: Machine.single,
    0x86: Machine.pair,
    0x87: Machine.triple,
    ord("t"): Machine.group,
    ord("]"): _pushes(list),
    ord("l"): lambda m, at: m.push(m.to_mark(), at),
    ord("a"): Machine.append,
    ord("e"): Machine.extend,
    0x8F: _pushes(lambda: Call("builtins.set", ([],))),
    0x90: Machine.add_items,
    0x91: lambda m, at: m.push(Call("builtins.frozenset", (m.to_mark(),)), at),
    ord("}"): _pushes(lambda: DictNode([])),
    ord("s"): Machine.set_item,
    ord("u"): Machine.set_items,
    # memo
    ord("q"): lambda m, at: m.remember(m.data[at], at + 1),
    ord("r"): Machine.put,
    0x94: Machine.memoize,
    ord("h"): Machine.get,
    ord("j"): Machine.long_get,
    # objects
    ord("c"): Machine.global_lines,
    0x93: Machine.stack_global,
    ord("R"): Machine.reduce,
    0x81: Machine.new_object,
    0x92: Machine.new_object_ex,
    ord("b"): Machine.build,
    ord("Q"): Machine.refer,
}
TABLE = [_OPERATIONS.get(code, Machine.unknown) for code in range(256)]


def _placed(operation: _Operation) -> _Operation:
    """An operation that pushes an integer, as a `Number`."""

    def operate(machine: Machine, at: int) -> int:
        end = operation(machine, at)
        number = Number(machine.taken_off())
        number.start, number.end = at - 1, end
        return machine.push(number, end)

    return operate


_INTEGERS = {ord("J"), ord("K"), ord("M"), 0x8A, 0x8B}
NUMBERED = [
    _placed(operation) if code in _INTEGERS else operation for code, operation in enumerate(TABLE)
]
