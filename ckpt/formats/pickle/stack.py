"""The stack and the memo of the pickle machine, and the values that an opcode holds itself."""

import struct

from ckpt.errors import FormatError
from ckpt.formats.pickle.nodes import Text

# Each look-up of a text makes a new one; repeating a long one would fill the memory.
RECALLED_LIMIT = 1 << 25  # characters
_EMPTY = object()  # in a slot of the memo
_u4 = struct.Struct("<I").unpack_from


class TruncatedError(FormatError):
    """A pickle that goes on after the given bytes."""


class Stack:
    """The stack and the memo.

    Attributes:
        data: The pickle.
        name: Its name for messages.
        looked_up: Every text that came from the memo, in order.
        most_slots: Of the memo. A pickler numbers them, so it needs no more than it has opcodes.
    """

    __slots__ = (
        "_below",
        "_memo",
        "_recalled",
        "_stack",
        "data",
        "looked_up",
        "most_slots",
        "name",
    )

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name = data, name
        self.looked_up: list[Text] = []
        self.most_slots = 0
        self._stack: list[object] = []
        self._below: list[list[object]] = []  # the stacks under each mark
        self._memo: list[object] = []
        self._recalled = 0  # characters of texts

    def _fault(self, text: str) -> FormatError:
        return FormatError(f"{self.name}: {text}")

    def _truncated(self, position: int) -> TruncatedError:
        return TruncatedError(f"{self.name}: truncated at offset {position:,}")

    def byte(self, at: int) -> int:
        """BININT1, by far the most frequent number."""
        self._stack.append(self.data[at])
        return at + 1

    def push(self, value: object, end: int) -> int:
        """Push a plain value whose opcode ends at `end`."""
        self._stack.append(value)
        return end

    def taken_off(self) -> int:
        """Take the topmost value, an integer."""
        value = self._stack.pop()
        assert isinstance(value, int)
        return value

    def taken(self, begin: int, nbytes: int) -> bytes:
        """The argument of an opcode that gives its length."""
        if nbytes < 0:
            raise ValueError(f"an argument of {nbytes:,} bytes")
        if begin + nbytes > len(self.data):
            raise struct.error
        return self.data[begin : begin + nbytes]

    def literal(self, start: int, begin: int, end: int) -> int:
        """Push the text between `begin` and `end`, whose opcode begins at `start`."""
        data = self.data[begin:end]
        if len(data) != end - begin:
            self.taken(begin, end - begin)  # raises what is wrong with it
        text = Text(data, "utf-8", "surrogatepass")
        text.start = text.origin = start
        text.nbytes = end - start
        self._stack.append(text)
        return end

    def mark(self, at: int) -> int:
        """MARK: the values from here on are one group."""
        self._below.append(self._stack)
        self._stack = []
        return at

    def to_mark(self) -> list[object]:
        """Take all values down to the topmost mark."""
        values, self._stack = self._stack, self._below.pop()
        return values

    def pop(self, at: int) -> int:
        """POP."""
        self._stack.pop()
        return at

    def pop_mark(self, at: int) -> int:
        """POP_MARK."""
        self.to_mark()
        return at

    def put(self, at: int) -> int:
        """LONG_BINPUT: picklers number the slots in order."""
        (slot,), memo = _u4(self.data, at), self._memo
        if slot == len(memo) and slot < self.most_slots:
            memo.append(self._stack[-1])
            return at + 4
        return self.remember(slot, at + 4)

    def remember(self, slot: int, end: int) -> int:
        """Put the topmost value into any slot."""
        value = self._stack[-1]
        if slot >= self.most_slots:
            raise self._fault(f"over {self.most_slots:,} memo entries")
        self._memo += [_EMPTY] * (slot + 1 - len(self._memo))
        self._memo[slot] = value
        return end

    def memoize(self, at: int) -> int:
        """MEMOIZE: the next slot."""
        if len(self._memo) >= self.most_slots:
            raise self._fault(f"over {self.most_slots:,} memo entries")
        self._memo.append(self._stack[-1])
        return at

    def get(self, at: int) -> int:
        """BINGET."""
        value = self._memo[self.data[at]]
        if type(value) is Text or value is _EMPTY:
            return self._look_up(value, at - 1, at + 1)
        self._stack.append(value)
        return at + 1

    def long_get(self, at: int) -> int:
        """LONG_BINGET."""
        return self._look_up(self._memo[_u4(self.data, at)[0]], at - 1, at + 4)

    def _look_up(self, value: object, start: int, end: int) -> int:
        """Push a value of the memo; a text gets a new place."""
        if value is _EMPTY:
            raise ValueError("its slot of the memo is empty")
        if type(value) is Text:
            self._recalled += len(value)
            if self._recalled > RECALLED_LIMIT:
                raise self._fault(f"looks up over {RECALLED_LIMIT:,} characters in its memo")
            text = Text(value)
            text.start, text.nbytes, text.origin = start, end - start, value.origin
            self.looked_up.append(text)
            value = text
        self._stack.append(value)
        return end
