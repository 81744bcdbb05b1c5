"""Whole pickles of torch files: most are usual, each is strange somewhere."""

import struct
from collections.abc import Callable

from tests.formats.fuzz import opcodes, storages, tensors
from tests.formats.fuzz.opcodes import FALSE, MARK, NONE, STOP, TRUE, float_
from tests.formats.fuzz.storages import DTYPES
from tests.formats.fuzz.tensors import Tensors

TRICKS = (
    *(*opcodes.TRICKS, *storages.TRICKS, *tensors.TRICKS),
    *("ordered dict", "ordered dict of pairs", "ordered dict by newobj", "dict with a state"),
    *("Counter", "defaultdict", "set", "lists", "nested dicts", "Namespace", "key twice"),
    *("alias of a container", "container changed after use", "keys that are no text"),
    *("equal numbers as keys", "calls as keys", "attributes changed after use"),
    *("tensor dropped", "tensor in a call", "attributes in pairs"),
    *("strange text", "root of another type", "empty containers", "tensor as key"),
    *("numpy values", "plain values", "torch values", "dup and pop", "list and dict opcodes"),
    *("protocol", "frame", "trailing bytes", "left on the stack"),
)


class Assembler(Tensors):
    """Assembles one pickle."""

    def pickle(self) -> bytes:
        """The whole pickle."""
        draw = self._draw
        root = self._root()
        body = root + STOP
        if draw.trick("left on the stack", 0.3):
            body = draw.one(NONE, MARK, MARK + NONE) + body
        if draw.trick("frame"):
            nbytes = len(body) + draw.one(0, 0, 0, -1, 1)
            body = b"\x95" + struct.pack("<Q", max(nbytes, 0)) + body
        proto = draw.one(0, 1, 2, 3, 4, 5) if draw.trick("protocol") else 2
        head = b"" if proto == 0 and draw.chance(0.5) else b"\x80" + bytes([proto])
        tail = b"\0" if draw.trick("trailing bytes", 0.2) else b""
        return head + body + tail

    def _root(self) -> bytes:
        draw = self._draw
        if draw.trick("root of another type"):
            return draw.make(self.tensor, self.listed, self.tuple_of_values, self.parameter)
        if draw.trick("nested dicts", 0.6):
            items = [self.text("model") + self.mapping()]
            if draw.chance(0.6):
                items.append(self.text("optimizer") + self.mapping())
            if draw.chance(0.5):
                items.append(self.text("epoch") + self.value())
            return b"}" + MARK + b"".join(items) + b"u"
        return self.mapping()

    def mapping(self) -> bytes:
        """A mapping of keys to tensors, most of all."""
        draw = self._draw
        self._depth += 1
        kind, code = "dict", b"}"
        if draw.trick("ordered dict"):
            kind, code = "ordered", self.call("collections", "OrderedDict")
        elif draw.trick("ordered dict by newobj"):
            kind, code = "ordered", self.call("collections", "OrderedDict", new=True)
        elif draw.trick("ordered dict of pairs"):
            kind, code = "ordered", self._of_pairs()
        elif draw.trick("Counter"):
            counted = [self.mapping][: draw.one(0, 1)] if self._depth < 4 else []
            kind, code = "counter", self.call("collections", "Counter", *counted)
        elif draw.trick("defaultdict"):
            made = self.named("builtins", draw.one("list", "int", "dict"))
            kind, code = "default", self.call("collections", "defaultdict", lambda: made)
        code = self._keep(code, (kind,))
        if not draw.trick("empty containers", 0.2):
            code += self._items(draw.rng.randrange(1, 5))
        if draw.trick("dict with a state"):
            code += self._dict_state() + b"b"
        self._depth -= 1
        return code

    def _of_pairs(self) -> bytes:
        pairs = [self.tupled(key, self.value()) for key in self._keys(self._draw.one(1, 2))]
        code = self._keep(b"]" + MARK + b"".join(pairs) + b"e", ("list of pairs",))
        return self.named("collections", "OrderedDict") + code + b"\x85R"

    def _items(self, count: int) -> bytes:
        items = []
        for at in range(count):
            (key,) = self._keys(1, at)
            items.append(key + (self.tensor() if self._draw.chance(0.7) else self.value()))
        if self._draw.chance(0.8):
            return MARK + b"".join(items) + b"u"
        return b"".join(item + b"s" for item in items)

    def _keys(self, count: int, first: int = 0) -> list[bytes]:
        return [self._key(first + at) for at in range(count)]

    def _key(self, at: int) -> bytes:
        draw = self._draw
        if draw.trick("tensor as key", 0.1):
            return self.tensor()
        if draw.trick("keys that are no text"):
            return draw.make(
                lambda: self.integer(at),
                lambda: draw.one(float_(at + 0.5), TRUE, NONE, b"C\x01k"),
                lambda: self.tupled(self.integer(at), self.text("k")),
                lambda: self.text(str(at)),
            )
        if draw.trick("equal numbers as keys"):
            return draw.make(
                lambda: self.integer(draw.one(0, 1)),
                lambda: draw.one(TRUE, FALSE, float_(1.0)),
                lambda: self.text("1"),
            )
        if draw.trick("calls as keys", 0.3):
            return draw.make(*self._calls_as_keys())
        if draw.trick("strange text"):
            return self.text(
                draw.one("", "a.b", ".", "é", "\ud800", "a\0b", "\x1b[1m", "K" * 200, "k.0")
            )
        name = draw.one("weight", "bias", "k") if draw.trick("key twice") else f"k.{at}"
        return self.text(name)

    def _calls_as_keys(self) -> list[Callable[[], bytes]]:
        """Calls, some of which equal other keys."""
        one, word = float_(1), "weight"
        return [
            lambda: self.call("__builtin__", "complex", lambda: one, lambda: float_(0)),
            lambda: self.call("torch", "Size", lambda: self.tupled(self.tupled(self.integer(1)))),
            lambda: self.call("torch", "device", lambda: self.text("cpu")),
            lambda: self._numpy_scalar("f8", struct.pack("<d", 1)),
            lambda: self._numpy_scalar(
                f"U{self._draw.one(len(word), 1)}", word.encode("utf-32-le")
            ),
            lambda: self.tupled(self._numpy_scalar("f8", struct.pack("<d", 1))),
            lambda: self.tupled(self.integer(1)),
            lambda: self._latin(b"k"),
        ]

    def _dict_state(self) -> bytes:
        draw = self._draw
        if draw.trick("attributes in pairs"):
            return draw.make(
                lambda: b"]" + self.tupled(self.text("extra"), self.value()) + b"a",
                lambda: self.tupled(self.tupled(self.text("extra"), self.tensor())),
            )
        text, name = self.text, draw.one("items", "__class__", "keys")
        return draw.make(
            lambda: (
                b"}"
                + text("_metadata")
                + b"}"
                + text("")
                + b"}"
                + text("version")
                + self.integer(1)
                + b"sss"
            ),
            lambda: b"}" + text("extra") + self.value() + b"s",
            lambda: b"}" + text(name) + NONE + b"s",
            lambda: b"}",
        )

    def listed(self) -> bytes:
        """A list, perhaps with tensors."""
        items = [
            self.tensor() if self._draw.chance(0.4) else self.value()
            for _ in range(self._draw.rng.randrange(0, 3))
        ]
        if self._draw.trick("list and dict opcodes", 0.1):
            return MARK + b"".join(items) + b"l"
        code = self._keep(b"]", ("list",))
        return code + MARK + b"".join(items) + b"e"

    def tuple_of_values(self) -> bytes:
        """A tuple, perhaps with tensors."""
        items = [self.tensor(), self.value()][: self._draw.rng.randrange(0, 3)]
        return self._keep(MARK + b"".join(items) + b"t", ("tuple",))

    def _set(self) -> bytes:
        draw = self._draw
        if draw.chance(0.5):
            return self.call("__builtin__", "set", self.listed)
        return b"\x8f" + MARK + self.value() + b"\x90" if draw.chance(0.3) else b"\x8f"

    def value(self) -> bytes:
        """A value beside the tensors."""
        draw = self._draw
        self._depth += 1
        ways: list[Callable[[], bytes]] = [
            lambda: self.integer(draw.rng.randrange(-5, 300)),
            lambda: self.text("value"),
            lambda: draw.one(NONE, TRUE, FALSE, float_(0.5)),
        ]
        if self._depth < 5:
            ways += [make for name, make in self._values().items() if draw.trick(name, 0.6)]
        code = draw.rng.choice(ways)()
        self._depth -= 1
        if draw.trick("dup and pop", 0.05):
            code += draw.one(b"2\x86", NONE + b"0", MARK + NONE + b"1")
        return code

    def _values(self) -> dict[str, Callable[[], bytes]]:
        return {
            "lists": self.listed,
            "nested dicts": self.mapping,
            "set": self._set,
            "Namespace": lambda: self.call("argparse", "Namespace") + self._state() + b"b",
            "attributes changed after use": self._state_changed,
            "tensor dropped": lambda: self.tensor() + b"0" + NONE,
            "tensor in a call": self._with_tensor,
            "alias of a container": self._alias,
            "container changed after use": self._changed,
            "list that grows": self._grown,
            "numpy values": self._numpy,
            "plain values": self._plain_value,
            "torch values": self._torch_value,
            "list and dict opcodes": lambda: MARK + b"".join(self._items_of_dict()) + b"d",
        }

    def _items_of_dict(self) -> list[bytes]:
        return [key + self.tensor() for key in self._keys(2)]

    def _alias(self) -> bytes:
        wanted = ("dict", "ordered", "counter", "list", "tuple", "default")
        return self._recall(lambda kind: kind[0] in wanted) or NONE

    def _changed(self) -> bytes:
        """A container that stands elsewhere too, with one more item."""
        draw = self._draw
        wanted = draw.one(("list", "list of pairs"), ("dict", "ordered", "counter"))
        found = self._recall(lambda kind: kind[0] in wanted)
        if not found:
            return NONE
        if "list" in wanted:
            late = draw.make(self.tensor, lambda: self.tupled(self.text("late"), self.tensor()))
            return found + late + b"a"
        return found + self._key(draw.one(0, 9)) + self.tensor() + b"s"

    def _state_changed(self) -> bytes:
        """Attributes of something else, with one more."""
        found = self._recall(lambda kind: kind == ("attributes",))
        return found + self.text("late") + self.tensor() + b"s" if found else NONE

    def _with_tensor(self) -> bytes:
        """A call that makes something else of a tensor."""
        tensor = self.tensor
        return self._draw.make(
            lambda: self.call("torch", "Size", lambda: self.tupled(tensor())),
            lambda: self.call("__builtin__", "set", lambda: self.tupled(tensor(), tensor())),
            lambda: self.call("__builtin__", "bytearray", tensor),
            lambda: self.call("__builtin__", "complex", tensor),
        )

    def _grown(self) -> bytes:
        """All lists of sizes and strides, with one more dimension."""
        slots = [slot for slot, kind in self._memo.items() if kind == ("list of sizes",)]
        lists = (b"j" + struct.pack("<I", slot) + b"K\x01a" for slot in slots)
        return MARK + b"".join(lists) + b"t"

    def _numpy(self) -> bytes:
        if self._draw.chance(0.5):
            return self._numpy_array()
        return self._numpy_scalar("f8", struct.pack("<d", 0.5))

    def _numpy_scalar(self, kind: str, data: bytes) -> bytes:
        return self.call(
            "numpy._core.multiarray",
            "scalar",
            lambda: self._numpy_dtype(kind),
            lambda: self._latin(data),
        )

    def _plain_value(self) -> bytes:
        draw = self._draw
        ways = [
            lambda: self._latin(b"data"),
            lambda: self.call("__builtin__", "bytearray", lambda: self._latin(b"data")),
            lambda: self.call("__builtin__", "complex", lambda: float_(1), lambda: float_(2)),
            lambda: b"B\x02\0\0\0ab",
            lambda: self.text("x" * 300),
        ]
        return draw.rng.choice(ways)()

    def _torch_value(self) -> bytes:
        draw = self._draw
        ways = [
            lambda: self.named("torch", draw.rng.choice(DTYPES)),
            lambda: self.call("torch", "device", lambda: self.text("cpu")),
            lambda: self.call("torch", "Size", lambda: self._small_tuple(2)),
            lambda: self.storage()[0],
            lambda: self.named("torch", "FloatStorage"),
        ]
        return draw.rng.choice(ways)()
