"""The pickle machine: its stack, memo and position, and the nodes that it may push.

The reader's opcodes drive it. It builds descriptions, calls nothing and imports nothing.
"""

from ckpt.errors import FormatError, RefusedGlobalError, excerpt
from ckpt.formats.pickle.globals import DICTS, FACTORIES
from ckpt.formats.pickle.nodes import Call, DictNode, Global, ListNode, Persistent, Text
from ckpt.formats.pickle.tensor_call import REMEMBERED, TensorCall, Tuples

MEMO_LIMIT = 1_000_000
# Each look-up of a text makes a new one; repeating a long one would fill the memory.
RECALLED_LIMIT = 1 << 25  # characters
_RECALLED = f"looks up over {RECALLED_LIMIT:,} characters in its memo"
_EARLY = 16  # bytes; a global this early is the class of the pickled object itself
_WHOLE = (
    "the file is a pickled object, perhaps a whole module; if you trust it and can import its "
    "class:  torch.save(module.state_dict(), NEW)"
)
_OTHERS = (
    "no tensor needs it; in a stranger's file it may be harmful; "
    "save a file of your own again with tensors and plain values only"
)
MARK = object()


class TruncatedError(FormatError):
    """A pickle that goes on after the given bytes."""


class Memo:
    """The values that the pickle remembers, by slot.

    Attributes:
        slots: Slots 0, 1, 2 and so on, as picklers number them; a dict of a million would be ten
            times as large.
        others: The slots with other numbers.
    """

    def __init__(self) -> None:
        self.slots: list[object] = []
        self.others: dict[int, object] = {}

    def __len__(self) -> int:
        return len(self.slots) + len(self.others)

    def put(self, slot: int, value: object) -> None:
        """Put a value into a slot, full or empty."""
        if slot < len(self.slots):
            self.slots[slot] = value
        elif slot == len(self.slots) and slot not in self.others:
            self.slots.append(value)
        else:
            self.others[slot] = value

    def get(self, slot: int) -> object:
        """The value in a slot; MARK, which no slot can hold, if it is empty."""
        return self.slots[slot] if slot < len(self.slots) else self.others.get(slot, MARK)


class Machine:
    """The pickle machine's stack, memo and position.

    Args:
        data: The pickle, possibly incomplete or with bytes after it.
        name: Of the pickle, for messages.
        allowed: The globals that it may name.

    Foreign bytes drive it: a stack that is too short, a wrong type or a truncated argument
    raises IndexError, TypeError, ValueError or struct.error, which `read_pickle` turns into a
    FormatError with the offset.
    """

    def __init__(self, data: bytes, name: str, allowed: frozenset[str]) -> None:
        self.data = data
        self.name = name
        self.allowed = allowed
        self.position = 0
        self.start = 0
        self.opcodes = 0
        self.stack: list[object] = []
        self.memo = Memo()
        self.looked_up: list[Text] = []
        self.persistents: list[Persistent] = []
        self.tensors: list[TensorCall] = []
        self.tuples: Tuples = {}
        self.frames: list[int] = []
        self.frame_end = 0
        self.recalled = 0

    def fault(self, text: str) -> FormatError:
        """An error about this pickle."""
        return FormatError(f"{self.name}: {text}")

    def truncated(self) -> TruncatedError:
        """An error about a pickle that goes on after its bytes."""
        return TruncatedError(f"{self.name}: truncated at offset {self.start:,}")

    def take(self, nbytes: int) -> bytes:
        """The opcode's next `nbytes` argument bytes."""
        end = self.position + nbytes
        if nbytes < 0:
            raise ValueError(f"an argument of {nbytes:,} bytes")
        if end > len(self.data):
            raise self.truncated()
        taken = self.data[self.position : end]
        self.advance(end)
        return taken

    def advance(self, end: int) -> None:
        """Go on to `end`; an opcode that crosses its frame's end is refused as ambiguous."""
        if self.start < self.frame_end < end:
            raise self.fault(f"the opcode at offset {self.start:,} crosses its frame's end")
        self.position = end

    def begin_frame(self, nbytes: int) -> None:
        """Enter a frame of protocol 4, which must lie in the pickle and not in another frame."""
        if self.frame_end > self.position:
            raise self.fault(f"a frame inside a frame at offset {self.start:,}")
        if nbytes > len(self.data) - self.position:
            raise self.truncated()
        self.frame_end = self.position + nbytes
        self.frames.append(self.start)

    def line(self) -> str:
        """The opcode's next argument line."""
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise self.truncated()
        text = self.data[self.position : end].decode("utf-8")
        self.advance(end + 1)
        return text

    def push(self, value: object) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def pop(self) -> object:
        """Take the topmost value, which must not be a mark."""
        value = self.stack.pop()
        if value is MARK:
            raise ValueError("found a mark, expected a value")
        return value

    def to_mark(self) -> list[object]:
        """Take all values down to the topmost mark."""
        index = len(self.stack) - 1
        while self.stack[index] is not MARK:
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
        if self.stack[-1] is MARK:
            raise ValueError("a mark for the memo")
        self.memo.put(slot, self.stack[-1])

    def recall(self, slot: int) -> None:
        """Push the value in a slot of the memo."""
        value = self.memo.get(slot)
        if value is MARK:
            raise ValueError(f"memo {slot} is empty")
        if isinstance(value, Text):
            self.recall_text(value)
        else:
            self.push(
                value.remembered(slot - value.begin) if isinstance(value, TensorCall) else value
            )

    def push_tensor(self, tensor: TensorCall) -> None:
        """Push a tensor, and fill the slots that its opcodes would fill."""
        self.recalled += tensor.recalled
        if self.recalled > RECALLED_LIMIT:
            raise self.fault(_RECALLED)
        self.tensors.append(tensor)
        self.memo.slots += [tensor] * REMEMBERED
        self.stack.append(tensor)

    def recall_text(self, text: Text) -> None:
        """Push a copy of a text of the memo, with its own place in the pickle."""
        self.recalled += len(text)
        if self.recalled > RECALLED_LIMIT:
            raise self.fault(_RECALLED)
        recalled = Text.at(text, self.start, self.position, text.origin)
        self.looked_up.append(recalled)
        self.stack.append(recalled)

    def text(self, data: bytes) -> None:
        """Push a literal."""
        text = data.decode("utf-8", "surrogatepass")
        self.push(Text.at(text, self.start, self.position, self.start))

    def refer(self, identity: object) -> Persistent:
        """A reference to something outside the pickle."""
        persistent = Persistent(identity)
        self.persistents.append(persistent)
        return persistent

    def name_global(self, module: str, attribute: str) -> None:
        """Push a global of the allow-list."""
        name = f"{module}.{attribute}".replace("__builtin__.", "builtins.", 1)
        if name not in self.allowed or "." in attribute:
            raise RefusedGlobalError(
                f"{self.name}: refused global {excerpt(name, 100)} at offset {self.start:,}",
                hint=_OTHERS if self.stack or self.start > _EARLY else _WHOLE,
            )
        self.push(Global(name))

    def call(self, function: object, arguments: object) -> None:
        """Push the description of a call."""
        if not isinstance(function, Global) or not isinstance(arguments, ListNode):
            raise self.fault(f"calls something other than a global at offset {self.start:,}")
        if function.name == "collections.OrderedDict":
            self.push(DictNode(_pairs(arguments.items), ordered=True))
        elif function.name in DICTS:
            self.push(_dict(arguments.items))
        elif function.name in FACTORIES:
            raise self.fault(f"calls {function.name} at offset {self.start:,}")
        else:
            self.push(Call(function.name, arguments.items))


def _dict(arguments: list[object]) -> DictNode:
    """An empty dict of another class; a defaultdict takes its factory."""
    for item in arguments:
        if item is not None and not (isinstance(item, Global) and item.name in FACTORIES):
            raise TypeError("a dict of another class with arguments")
    return DictNode()


def _pairs(arguments: list[object]) -> list[tuple[object, object]]:
    """The items of an OrderedDict made of a list of pairs, as before Python 2.7."""
    if not arguments:
        return []
    (items,) = arguments
    if not isinstance(items, ListNode):
        raise TypeError("an OrderedDict of something other than pairs")
    pairs = []
    for pair in items.items:
        if not isinstance(pair, ListNode) or len(pair.items) != 2:
            raise TypeError("an OrderedDict of something other than pairs")
        pairs.append((pair.items[0], pair.items[1]))
    return pairs
