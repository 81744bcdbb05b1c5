"""The pickle machine: a pickle becomes plain descriptions, and nothing in it is run.

Source of the opcodes: CPython's `Lib/pickletools.py`; `opcodes` has the table. A global that is
not on the allow-list is refused, or makes an opaque node where those are asked for. The loop is
iterative, and bounded in opcodes, memo and copies.

An operation gets the offset after its opcode and returns the offset of the next one. Foreign
bytes drive it: a stack that is too short, a wrong type or a truncated argument raises an error
that `Machine.run` turns into a FormatError with the offset.
"""

import struct
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # names of Python 2, as torch maps them
from collections.abc import Callable, Sequence
from types import MethodType

from ckpt.errors import RefusedGlobalError, excerpt
from ckpt.formats.pickle.globals import (
    ATTRIBUTED,
    BY_NEWOBJ,
    DICTS,
    FACTORIES,
    TENSORS,
    can_be_opaque,
    is_own_subclass,
)
from ckpt.formats.pickle.nodes import Call, DictNode, Global, Opaque, Persistent
from ckpt.formats.pickle.stack import Stack

_OTHERS = (
    "in a stranger's file it may be harmful; save a file of your own again with tensors and "
    "plain values only"
)
_STOP = ord(".")
_u8 = struct.Struct("<Q").unpack_from


class Machine(Stack):
    """The pickle machine.

    Args:
        data: The pickle, possibly incomplete or with bytes after it.
        name: Of the pickle, for messages.
        allowed: The globals that it may name.
        opaque: Whether others become opaque nodes; so do torch's own subclasses of tensors, which
            `subclasses` refuses.

    Attributes:
        opcodes: The number of opcodes so far.
        persistents: Every reference to something outside the pickle.
        attributed: Every tensor that gets attributes; setting them may change other tensors.
        frames: Offsets of the FRAME opcodes of protocol 4.
        named: Every global, with the offset of the first opcode that names it.
    """

    __slots__ = (
        *("allowed", "attributed", "frames", "named", "opaque", "opcodes", "persistents"),
        *("_copied", "_end", "_in_frame"),
    )

    def __init__(
        self, data: bytes, name: str, allowed: frozenset[str], *, opaque: bool = False
    ) -> None:
        super().__init__(data, name)
        self.allowed, self.opaque = allowed, opaque
        self.opcodes = 0
        self.persistents: list[Persistent] = []
        self.attributed: list[Call] = []
        self.frames: list[int] = []
        self.named: dict[str, int] = {}
        self._end, self._in_frame = len(data), False  # of the frame, or of the data
        self._copied = 0  # items of dicts

    def run(
        self, table: Sequence[Callable[["Machine", int], int]], opcode_limit: int
    ) -> tuple[object, int]:
        """Execute until STOP. Returns the value on the stack, and the offset after STOP.

        Args:
            table: An operation for each opcode.
            opcode_limit: More opcodes than this are refused, and more slots of the memo.

        Raises:
            RefusedGlobalError: The pickle names a global that is not allowed.
            TruncatedError: It goes on after the data.
            FormatError: It is damaged, has unknown opcodes, or more of them than the limit.
        """
        data, position, self.most_slots = self.data, 0, opcode_limit
        if data[:1] != b"\x80":
            raise self._fault("does not begin with a protocol, as pickles of protocol 2 to 5 do")
        steps = [MethodType(operation, self) for operation in table]
        try:
            for count in range(1, opcode_limit + 1):
                if position >= self._end:
                    self._leave_frame(position)
                code = data[position]
                if code == _STOP:
                    self.opcodes = count
                    return self._result(), position + 1
                position = steps[code](position + 1)
        except struct.error:
            raise self._truncated(position) from None
        except (IndexError, ValueError, TypeError) as error:
            # No opcode but STOP may be the last byte, whatever else is wrong with it.
            if isinstance(error, IndexError) and position + 1 >= len(data):
                raise self._truncated(position) from None
            raise self._fault(f"damaged at offset {position:,}: {error}") from error
        raise self._fault(f"over {opcode_limit:,} opcodes, more than its tensors need")

    def _result(self) -> object:
        if self._below or len(self._stack) != 1:
            count = len(self._stack) + sum(len(stack) + 1 for stack in self._below)
            raise self._fault(f"leaves {count} values, expected one")
        return self._stack[0]

    def unknown(self, at: int) -> int:
        """Refuse an opcode that is not in the table."""
        raise self._fault(
            f"opcode {self.data[at - 1 : at]!r} at offset {at - 1:,}, which torch.save does not "
            "write"
        )

    def protocol(self, at: int) -> int:
        """PROTO, which is at the beginning only."""
        number = self.data[at]
        if not 2 <= number <= 5 or at > 1:
            raise self._fault(f"pickle protocol {number}, expected 2 to 5")
        return at + 1

    def frame(self, at: int) -> int:
        """FRAME, which must lie in the pickle and not in another frame."""
        begin, (nbytes,) = at + 8, _u8(self.data, at)
        if self._in_frame:
            raise self._fault(f"a frame inside a frame at offset {at - 1:,}")
        if nbytes > len(self.data) - begin:
            raise self._truncated(at - 1)
        self._end, self._in_frame = begin + nbytes, True
        self.frames.append(at - 1)
        return begin

    def _leave_frame(self, position: int) -> None:
        """Go on after a frame; an opcode that crosses its end is refused as ambiguous."""
        if position > self._end:
            raise self._fault(f"an opcode crosses its frame's end at offset {self._end:,}")
        self._end, self._in_frame = len(self.data), False

    # Containers

    def group(self, at: int) -> int:
        """TUPLE."""
        items, self._stack = tuple(self._stack), self._below.pop()
        self._stack.append(items)
        return at

    def single(self, at: int) -> int:
        """TUPLE1."""
        stack = self._stack
        stack[-1] = (stack[-1],)
        return at

    def pair(self, at: int) -> int:
        """TUPLE2."""
        stack = self._stack
        stack[-2:] = [(stack[-2], stack[-1])]
        return at

    def triple(self, at: int) -> int:
        """TUPLE3."""
        items = tuple(self._stack[-3:])
        if len(items) != 3:
            raise ValueError(f"found {len(items)} values, expected 3")
        self._stack[-3:] = [items]
        return at

    def append(self, at: int) -> int:
        """APPEND."""
        value = self._stack.pop()
        self._list().append(value)
        return at

    def extend(self, at: int) -> int:
        """APPENDS."""
        values = self.to_mark()
        self._list().extend(values)
        return at

    def _list(self) -> list[object]:
        target = self._stack[-1]
        if type(target) is Opaque:
            return target.given
        if type(target) is not list:
            raise TypeError("appends to something other than a list")
        return target

    def add_items(self, at: int) -> int:
        """ADDITEMS of a set."""
        values = self.to_mark()
        match self._stack[-1]:
            case Call(function="builtins.set", arguments=(list() as items,)):
                items.extend(values)
                return at
            case Opaque(given=given):
                given.extend(values)
                return at
        raise TypeError("adds items to something other than a set")

    def set_item(self, at: int) -> int:
        """SETITEM."""
        value, key = self._stack.pop(), self._stack.pop()
        self._dict().append((key, value))
        return at

    def set_items(self, at: int) -> int:
        """SETITEMS."""
        values = self.to_mark()
        self._dict().extend(zip(values[::2], values[1::2], strict=True))
        return at

    def _dict(self) -> list[tuple[object, object]] | list[object]:
        target = self._stack[-1]
        if type(target) is Opaque:
            return target.given
        if type(target) is not DictNode:
            raise TypeError("sets items of something other than a dict")
        return target.items

    # Objects

    def global_lines(self, at: int) -> int:
        """GLOBAL: a module and a name in lines of their own."""
        middle = self.data.find(b"\n", at)
        end = self.data.find(b"\n", middle + 1)
        if middle < 0 or end < 0:
            raise self._truncated(at - 1)
        module, name = self.data[at:middle], self.data[middle + 1 : end]
        self._name(module.decode("utf-8"), name.decode("utf-8"), at - 1)
        return end + 1

    def stack_global(self, at: int) -> int:
        """STACK_GLOBAL: a module and a name from the stack."""
        attribute, module = self._stack.pop(), self._stack.pop()
        if not isinstance(attribute, str) or not isinstance(module, str):
            raise TypeError("a global whose name is not text")
        self._name(module, attribute, at - 1)
        return at

    def _name(self, module: str, attribute: str, start: int) -> None:
        module, attribute = NAME_MAPPING.get(
            (module, attribute), (IMPORT_MAPPING.get(module, module), attribute)
        )
        name = f"{module}.{attribute}"
        self.named.setdefault(name, start)
        if name in self.allowed and "." not in attribute:
            self._stack.append(Global(name))
        elif self.opaque and (can_be_opaque(name) or is_own_subclass(name)):
            self._stack.append(Opaque(name, start))
        else:
            raise refused_global(name, start, self.name)

    def reduce(self, at: int) -> int:
        """REDUCE: a call of a function or class."""
        arguments = self._stack.pop()
        self._stack[-1] = self._call(self._stack[-1], arguments, at)
        return at

    def new_object(self, at: int) -> int:
        """NEWOBJ: an object without a call of `__init__`, which makes dicts and sets empty."""
        arguments, kind = self._stack.pop(), self._stack[-1]
        if arguments != () and isinstance(kind, Global) and kind.name not in BY_NEWOBJ:
            raise self._fault(f"makes {kind.name} with arguments at offset {at - 1:,}")
        self._stack[-1] = self._call(kind, arguments, at)
        return at

    def _call(self, function: object, arguments: object, at: int) -> object:
        if type(function) is Opaque and type(arguments) is tuple:
            return self._opaque_call(function, arguments)
        if type(function) is not Global or type(arguments) is not tuple:
            raise self._fault(f"calls something other than a global at offset {at - 1:,}")
        make = _MAKERS.get(function.name)
        if make is None:
            if function.name in FACTORIES:
                raise self._fault(f"calls {function.name} at offset {at - 1:,}")
            call = Call(function.name, arguments)
            if function.name in ATTRIBUTED:
                self.attributed.append(call)
            return call
        if not arguments:
            return make(arguments)
        factory = next((item for item in arguments if type(item) is Opaque), None)
        if factory is not None and function.name in DICTS:
            return Opaque(factory.name, factory.offset, [arguments])
        return self._counted(make(arguments), at)

    def _counted(self, copy: DictNode, at: int) -> DictNode:
        self._copied += len(copy.items)
        if self._copied > at:
            raise self._fault(f"copies its own parts too often at offset {at - 1:,}")
        return copy

    def _opaque_call(self, function: Opaque, *given: object) -> Opaque:
        """An object of a foreign global, or of what such a call gave."""
        if function.given or function.state is not None:
            given = (function, *given)
        return Opaque(function.name, function.offset, [*given])

    def new_object_ex(self, at: int) -> int:
        """NEWOBJ_EX, which no known global needs."""
        keywords, arguments, kind = self._stack.pop(), self._stack.pop(), self._stack[-1]
        if type(kind) is not Opaque:
            raise self._fault(f"makes an object with keywords at offset {at - 1:,}")
        self._stack[-1] = self._opaque_call(kind, arguments, keywords)
        return at

    def build(self, at: int) -> int:
        """BUILD: attributes, which are copied."""
        state = self._stack.pop()
        if isinstance(state, DictNode):
            state = self._counted(DictNode([*state.items]), at)
        target = self._stack[-1]
        if type(target) is Opaque:
            target.given += [] if target.state is None else [target.state]
            target.state = state
            return at
        if type(target) is Call and target.function in TENSORS:
            raise self._fault(
                f"sets attributes of a tensor at offset {at - 1:,}, which torch.save does not write"
            )
        if not isinstance(target, Call | DictNode) or target.state is not None:
            raise TypeError("sets state on something that cannot have it")
        if isinstance(target, DictNode) and not (target.ordered and isinstance(state, DictNode)):
            raise TypeError("sets state on a dict, or state that is not a dict")
        target.state = state
        return at

    def refer(self, at: int) -> int:
        """BINPERSID: a reference to something outside the pickle.

        In a legacy file it may be a class of a whole module, with its source text.
        """
        match self._stack[-1]:
            case ("module", Opaque() as kind, _, _):
                self._stack[-1] = kind
                return at
        self._stack[-1] = persistent = Persistent(self._stack[-1])
        self.persistents.append(persistent)
        return at


def refused_global(name: str, start: int, where: str) -> RefusedGlobalError:
    """The error about a global that is not allowed."""
    return RefusedGlobalError(
        f"{where}: refused global {excerpt(name, 100)} at offset {start:,}", hint=_OTHERS
    )


def _ordered_dict(arguments: tuple[object, ...]) -> DictNode:
    """Empty, or made of a list of pairs, as before Python 2.7."""
    if not arguments:
        return DictNode([], ordered=True)
    (items,) = arguments
    pairs = []
    for pair in items if isinstance(items, list | tuple) else (items,):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise TypeError("an OrderedDict of something other than pairs")
        pairs.append((pair[0], pair[1]))
    return DictNode(pairs, ordered=True)


def _counter(arguments: tuple[object, ...]) -> DictNode:
    """Empty, or a copy of a dict."""
    if not arguments:
        return DictNode([])
    (counts,) = arguments
    if not isinstance(counts, DictNode):
        raise TypeError("a Counter of something other than a dict")
    return DictNode([*counts.items])


def _other_dict(arguments: tuple[object, ...]) -> DictNode:
    """An empty dict of another class; a defaultdict takes its factory."""
    for item in arguments:
        if item is not None and not (isinstance(item, Global) and item.name in FACTORIES):
            raise TypeError("a dict of another class with arguments")
    return DictNode([])


_MAKERS: dict[str, Callable[[tuple[object, ...]], DictNode]] = {
    "collections.OrderedDict": _ordered_dict,
    "collections.Counter": _counter,
    **dict.fromkeys(DICTS, _other_dict),
}
