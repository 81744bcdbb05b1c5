"""Reads a whole tensor of protocol 2 at once, if it has exactly the form that `torch.save` writes.

Some thirty opcodes describe every tensor, and differ only in a few numbers. A regular expression
matches them all; their nodes are made only when they are needed, since the table of a file's
tensors needs the numbers alone. Law: the opcodes one by one would give the same nodes; any other
form is left to them.

Source: `torch._utils._rebuild_tensor_v2` and `torch.serialization._save` of torch 2.13, as
Python's pickler writes them: every node is remembered, in the order of its slots.
"""

import re
from typing import NamedTuple

from ckpt.formats.pickle.globals import TENSOR_V2
from ckpt.formats.pickle.nodes import Call, DictNode, Global, ListNode, Persistent, Text

_NUMBER = rb"(?:K.|M..|J.{4})"
_TUPLE = rb"(" + _NUMBER + rb"{1,3}[\x85\x86\x87]|\(" + _NUMBER + rb"{4,8}t)r(.{4})"
_WORDS = rb"(?s)h.\(\(h(.)h(.)X(.{4})(\d{1,10})r(.{4})h(.)(" + _NUMBER + rb")tr(.{4})"
_TENSOR = re.compile(
    _WORDS + rb"Q(" + _NUMBER + rb")" + _TUPLE + _TUPLE + rb"\x89h(.)\)Rr(.{4})tr(.{4})Rr(.{4})"
)
# The groups of the pattern.
_WORD, _KIND, _LENGTH, _KEY, _PLACE, _NUMEL, _FIRST, _SHAPE, _STRIDE, _HOOKS = (
    *(1, 2, 3, 4, 6, 7, 9, 10, 12, 14),
)
_SLOTS = (5, 8, 11, 13, 15, 16, 17)
REMEMBERED = len(_SLOTS)
_OPCODES = 22  # and those of the two tuples
# Seven consecutive slots, of 32 bits each, as one number: begin × _EACH + _NEXT.
_EACH = sum(1 << 32 * number for number in range(REMEMBERED))
_NEXT = sum(number << 32 * number for number in range(REMEMBERED))

# The numbers of a tuple and its count of opcodes, by their bytes; most tensors share a few.
Tuples = dict[bytes, tuple[tuple[int, ...], int]]
_KNOWN = 10_000


class _Nodes(NamedTuple):
    """The nodes of a tensor in the order of their slots, and its reference to a storage."""

    name: Text
    identity: ListNode
    shape: ListNode
    stride: ListNode
    hooks: DictNode
    arguments: ListNode
    persistent: Persistent


class TensorCall(Call):
    """The call that rebuilds a tensor; its arguments are described on demand.

    Attributes:
        begin: The first of its slots in the memo.
        end: Offset of the opcode after it.
        opcodes: The number of its opcodes.
        kind: The storage's global.
        key: The storage's name in the file.
        numel: Elements of the storage.
        first: Index of the tensor's first element in the storage.
        shape: Of the tensor.
        stride: Of the tensor, in elements.
    """

    __slots__ = (
        *("begin", "end", "opcodes", "kind", "key", "numel", "first", "shape", "stride"),
        *("_described", "_found", "_places", "_words"),
    )

    begin: int
    end: int
    opcodes: int
    kind: Global
    key: str
    numel: int
    first: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    _found: "re.Match[bytes]"
    _words: Text
    _places: Text
    _described: _Nodes | None

    def __init__(self) -> None:
        self.function, self.state, self._described = TENSOR_V2, None, None

    @property
    def arguments(self) -> list[object]:  # type: ignore[override]
        """Those of the call."""
        return self._nodes.arguments.items

    def remembered(self, number: int) -> object:
        """The node in one of its slots of the memo, counted from `begin`."""
        return self if number == REMEMBERED - 1 else self._nodes[number]

    @property
    def recalled(self) -> int:
        """Characters that it looks up in the memo."""
        return len(self._words) + len(self._places)

    def texts(self) -> list[Text]:
        """The texts that it looks up in the memo."""
        items = self._nodes.identity.items
        return [text for text in (items[0], items[3]) if isinstance(text, Text)]

    @property
    def persistent(self) -> Persistent:
        """Its reference to a storage."""
        return self._nodes.persistent

    @property
    def _nodes(self) -> _Nodes:
        if self._described is None:
            self._described = self._describe()
        return self._described

    def _describe(self) -> _Nodes:
        found = self._found
        at = found.start(_LENGTH) - 1
        name = Text.at(self.key, at, found.end(_KEY), at)
        identity = ListNode(
            "tuple",
            [_recalled(self._words, found, _WORD), self.kind, name,
             _recalled(self._places, found, _PLACE), self.numel],
        )  # fmt: skip
        shape, stride = ListNode("tuple", [*self.shape]), ListNode("tuple", [*self.stride])
        hooks = DictNode([], ordered=True)
        persistent = Persistent(identity)
        arguments = ListNode("tuple", [persistent, self.first, shape, stride, False, hooks])
        return _Nodes(name, identity, shape, stride, hooks, arguments, persistent)


def tensor_at(data: bytes, position: int, memo: list[object], tuples: Tuples) -> TensorCall | None:
    """The tensor whose opcodes begin at `position`, if they have the usual form.

    Args:
        data: The pickle.
        position: Of a look-up of the rebuilding function.
        memo: The remembered values, by slot.
        tuples: Numbers that were read before, by their bytes.
    """
    found = _TENSOR.match(data, position)
    if found is None:
        return None
    begin = len(memo)
    slots = int.from_bytes(b"".join(found.group(*_SLOTS)), "little")
    if slots != begin * _EACH + _NEXT:
        return None
    word, kind, length, key, place, shape, stride, hooks = found.group(
        _WORD, _KIND, _LENGTH, _KEY, _PLACE, _SHAPE, _STRIDE, _HOOKS
    )
    if max(word, kind, place, hooks)[0] >= begin or int.from_bytes(length, "little") != len(key):
        return None
    words, storage, places, maker = memo[word[0]], memo[kind[0]], memo[place[0]], memo[hooks[0]]
    known = type(words) is Text and type(places) is Text and type(storage) is Global
    if not known or type(maker) is not Global or maker.name != "collections.OrderedDict":
        return None
    sizes, steps = _sizes(shape, tuples), _sizes(stride, tuples)
    numel, first = _integer(found[_NUMEL]), _integer(found[_FIRST])
    if not sizes[0] or not steps[0] or numel < 0 or first < 0:
        return None
    tensor = TensorCall()
    tensor.begin, tensor.end, tensor.opcodes = begin, found.end(), _OPCODES + sizes[1] + steps[1]
    tensor.key, tensor.numel, tensor.first = key.decode("ascii"), numel, first
    tensor.kind, tensor.shape, tensor.stride = storage, sizes[0], steps[0]  # type: ignore[assignment]
    tensor._found, tensor._words, tensor._places = found, words, places  # type: ignore[assignment]
    return tensor


def _recalled(text: Text, found: "re.Match[bytes]", group: int) -> Text:
    at = found.start(group) - 1
    return Text.at(text, at, at + 2, text.origin)


def _integer(code: bytes) -> int:
    return int.from_bytes(code[1:], "little", signed=code[0] == 0x4A)  # J alone is signed


def _sizes(code: bytes, tuples: Tuples) -> tuple[tuple[int, ...], int]:
    """The numbers of a tuple, and its count of opcodes; no numbers if one is not a size."""
    known = tuples.get(code)
    if known is not None:
        return known
    marked = code[:1] == b"("
    at, numbers = int(marked), list[int]()
    while at < len(code) - 1:
        size = {0x4B: 2, 0x4D: 3, 0x4A: 5}[code[at]]
        numbers.append(_integer(code[at : at + size]))
        at += size
    if min(numbers) < 0 or (not marked and code[-1] != 0x84 + len(numbers)):
        numbers = []
    if len(tuples) >= _KNOWN:
        tuples.clear()
    tuples[code] = tuple(numbers), len(numbers) + 2 + marked
    return tuples[code]
