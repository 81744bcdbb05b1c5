"""A faster loop for the most frequent opcodes of a state_dict.

`torch.save` writes some thirty opcodes for a tensor, nearly all among the dozen below. One
loop with its state in local variables runs them in less than half the time of `reader`'s
table. Law: the table would give the same result. The loop leaves errors and unusual opcodes to
the table before it changes anything, so that limits, messages and offsets are in one place.
"""

import struct

from ckpt.formats.pickle.globals import TENSOR_V2
from ckpt.formats.pickle.machine import MARK, MEMO_LIMIT, Machine
from ckpt.formats.pickle.nodes import Global, ListNode, Text
from ckpt.formats.pickle.tensor_call import REMEMBERED, TensorCall, tensor_at

_LONGEST = 5  # bytes of an opcode below and its argument, without the text that may follow
_u4 = struct.Struct("<I").unpack_from

_MARK, _TUPLE, _TUPLE2, _EMPTY_TUPLE = ord("("), ord("t"), 0x86, ord(")")
_BININT1, _BINUNICODE, _SHORT_BINUNICODE = ord("K"), ord("X"), 0x8C
_BINGET, _LONG_BINPUT, _MEMOIZE = ord("h"), ord("r"), 0x94
_REDUCE, _BINPERSID = ord("R"), ord("Q")
_CONSTANTS = {ord("N"): None, 0x88: True, 0x89: False}
FAST = frozenset(
    {
        *(_MARK, _TUPLE, _TUPLE2, _EMPTY_TUPLE, _BININT1, _BINUNICODE, _SHORT_BINUNICODE),
        *(_BINGET, _LONG_BINPUT, _MEMOIZE, _REDUCE, _BINPERSID, *_CONSTANTS),
    }
)


def run_fast(machine: Machine, opcode_limit: int) -> None:
    """Execute opcodes up to the first one that needs the table, or to the limit."""
    data, stack, slots = machine.data, machine.stack, machine.memo.slots
    push, position, opcodes = stack.append, machine.position, machine.opcodes
    # An opcode that ends by here is not truncated, and does not cross its frame's end.
    end = machine.frame_end if machine.frame_end > position else len(data)
    last = end - _LONGEST
    room = 0 if machine.memo.others else MEMO_LIMIT
    try:
        while position <= last and opcodes < opcode_limit:
            code = data[position]
            if code == _LONG_BINPUT:
                (slot,) = _u4(data, position + 1)
                top = stack[-1]
                if slot != len(slots) or slot >= room or top is MARK:
                    break
                slots.append(top)
                position += 5
            elif code == _BININT1:
                push(data[position + 1])
                position += 2
            elif code == _BINGET:
                value = slots[data[position + 1]]
                if type(value) is Global and value.name == TENSOR_V2 and end == len(data):
                    tensor = tensor_at(data, position, slots, machine.tuples)
                    if (
                        tensor is not None
                        and len(slots) + REMEMBERED <= room
                        and opcodes + tensor.opcodes <= opcode_limit
                    ):
                        machine.push_tensor(tensor)
                        position, opcodes = tensor.end, opcodes + tensor.opcodes
                        continue
                elif type(value) is Text or type(value) is TensorCall:
                    machine.start, machine.position = position, position + 2
                    machine.recall(data[position + 1])
                    position += 2
                    opcodes += 1
                    continue
                push(value)
                position += 2
            elif code == _MARK:
                push(MARK)
                position += 1
            elif code == _BINUNICODE:
                (nbytes,) = _u4(data, position + 1)
                after = position + 5 + nbytes
                if after > end:
                    break
                text = data[position + 5 : after].decode("utf-8", "surrogatepass")
                push(Text.at(text, position, after, position))
                position = after
            elif code == _TUPLE:
                index = -1
                while stack[index] is not MARK:
                    index -= 1
                stack[index:] = [ListNode("tuple", stack[index + 1 :] if index < -1 else [])]
                position += 1
            elif code == _TUPLE2:
                first, second = stack[-2], stack[-1]
                if first is MARK or second is MARK:
                    break
                del stack[-1]
                stack[-1] = ListNode("tuple", [first, second])
                position += 1
            elif code == _REDUCE:
                function, arguments = stack[-2], stack[-1]
                if type(function) is not Global or type(arguments) is not ListNode:
                    break
                machine.start = position
                machine.call(function, arguments)
                del stack[-3:-1]  # the function, under its result
                position += 1
            elif code == _BINPERSID:
                if stack[-1] is MARK:
                    break
                stack[-1] = machine.refer(stack[-1])
                position += 1
            elif code == _MEMOIZE:
                if len(slots) >= room or stack[-1] is MARK:
                    break
                slots.append(stack[-1])
                position += 1
            elif code == _SHORT_BINUNICODE:
                after = position + 2 + data[position + 1]
                if after > end:
                    break
                text = data[position + 2 : after].decode("utf-8", "surrogatepass")
                push(Text.at(text, position, after, position))
                position = after
            elif code in _CONSTANTS:
                push(_CONSTANTS[code])
                position += 1
            elif code == _EMPTY_TUPLE:
                push(ListNode("tuple", []))
                position += 1
            else:
                break
            opcodes += 1
    except (IndexError, UnicodeDecodeError):
        pass  # nothing has changed yet: the table reports the error
    machine.position, machine.opcodes = position, opcodes
