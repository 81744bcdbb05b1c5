"""Assembles pickles of torch files, opcode by opcode: most are usual, each is strange somewhere.

Opcodes: CPython's `Lib/pickletools.py`. Nothing here is ever unpickled by Python's own pickle.
Every method returns opcodes that push one value; they are built in the order in which they run,
since the memo is followed on the way.
"""

import struct
from collections.abc import Callable, Sequence
from math import prod

from tests.formats.fuzz.draw import Draw

TRICKS = (
    # storages
    *("storage of another dtype", "storage of another size", "storage by the memo"),
    *("storage key that is no text", "storage id of another length", "location meta"),
    *("location of another device", "storages without bytes", "untyped storages"),
    # geometry
    *("offset", "views", "broadcast", "beyond the storage", "huge", "numbers of other types"),
    *("sizes in a list", "sizes in a Size", "sizes by the memo", "list that grows"),
    # makers of tensors
    *("usual form", "usual form altered", "v1", "v3", "v3 of another dtype", "metadata"),
    "bit that is false",
    *("requires grad", "hooks", "parameter", "parameter with state", "from type"),
    *("state that sets data", "state that sets others", "state in two parts", "state by build"),
    *("Parameter by newobj", "Parameter by reduce", "Tensor by newobj", "Tensor by reduce"),
    *("tensor of a class", "sparse", "quantised", "nested", "meta tensor", "wrapper subclass"),
    *("tensor of numpy", "set_ by build", "tensor aliased"),
    # containers
    *("ordered dict", "ordered dict of pairs", "ordered dict by newobj", "dict with a state"),
    *(
        "Counter",
        "defaultdict",
        "set",
        "lists",
        "nested dicts",
        "Namespace",
        "alias of a container",
    ),
    *("container changed after use", "key twice", "keys that are no text", "equal numbers as keys"),
    *("strange text", "root of another type", "empty containers", "tensor as key"),
    # values
    *("numpy values", "plain values", "torch values"),
    # opcodes
    *("integers by any opcode", "integers of old opcodes", "text as bytes", "text of new opcodes"),
    *("memo overwritten", "memo with gaps", "memoize", "dup and pop", "list and dict opcodes"),
    *("protocol", "frame", "trailing bytes", "left on the stack", "persid of protocol 0"),
)

KINDS = {
    **{"FloatStorage": 4, "DoubleStorage": 8, "HalfStorage": 2, "BFloat16Storage": 2},
    **{"LongStorage": 8, "IntStorage": 4, "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1},
    **{"BoolStorage": 1, "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16},
}
DTYPES = (
    *("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8"),
    *("bool", "complex64", "uint16", "uint32", "float8_e4m3fn", "float8_e5m2", "qint8", "bits8"),
)
UNTYPED = "UntypedStorage"
MARK, STOP = b"(", b"."
NONE, TRUE, FALSE = b"N", b"\x88", b"\x89"
Stored = tuple[str, str, int]  # key, kind, elements


class Assembler:
    """Assembles one pickle.

    Attributes:
        storages: The kind and the number of elements of each storage, by key.
    """

    def __init__(self, draw: Draw, *, legacy: bool = False) -> None:
        self.storages: dict[str, tuple[str, int]] = {}
        self._draw, self._legacy = draw, legacy
        self._memo: dict[int, tuple[object, ...]] = {}
        self._depth = 0

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

    # opcodes

    def integer(self, value: int) -> bytes:
        """An integer."""
        long1 = _long1(value)
        forms = [long1]
        forms += [b"J" + struct.pack("<i", value)] if -(2**31) <= value < 2**31 else []
        forms += [b"M" + struct.pack("<H", value)] if 0 <= value < 1 << 16 else []
        forms += [b"K" + bytes([value])] if 0 <= value < 256 else []
        if self._draw.trick("integers by any opcode"):
            sign = b"\xff" if value < 0 else b"\0"
            longer = b"\x8a" + bytes([long1[1] + 3]) + long1[2:] + 3 * (sign if value else b"\0")
            return self._draw.one(*forms, longer)
        if self._draw.trick("integers of old opcodes", 0.1):
            long4 = b"\x8b" + struct.pack("<i", long1[1]) + long1[2:]
            return self._draw.one(b"I%d\n" % value, b"L%dL\n" % value, long4)
        return forms[-1]

    def text(self, value: str) -> bytes:
        """A text, perhaps from the memo."""
        found = self._recall(lambda kind: kind == ("text", value))
        if found and self._draw.chance(0.5):
            return found
        data = value.encode("utf-8", "surrogatepass")
        code = b"X" + struct.pack("<I", len(data)) + data
        if len(data) < 256 and self._draw.trick("text as bytes", 0.2):
            code = b"U" + bytes([len(data)]) + data
        elif self._draw.trick("text of new opcodes", 0.1):
            code = self._draw.one(
                b"\x8c" + bytes([len(data) & 255]) + data,
                b"\x8d" + struct.pack("<Q", len(data)) + data,
                b"V" + value.encode("raw_unicode_escape") + b"\n",
                b"S" + repr(value).encode("ascii", "replace") + b"\n",
                b"T" + struct.pack("<i", len(data)) + data,
            )
        return self._keep(code, ("text", value))

    def named(self, module: str, name: str) -> bytes:
        """A global, perhaps from the memo."""
        kind = ("global", module, name)
        found = self._recall(lambda it: it == kind)
        if found and self._draw.chance(0.7):
            return found
        return self._keep(f"c{module}\n{name}\n".encode(), kind)

    def tupled(self, *items: bytes) -> bytes:
        """A tuple."""
        if len(items) < 4 and self._draw.chance(0.5):
            return b"".join(items) + (b")", b"\x85", b"\x86", b"\x87")[len(items)]
        return MARK + b"".join(items) + b"t"

    def call(self, module: str, name: str, *make: Callable[[], bytes], new: bool = False) -> bytes:
        """A call, its arguments made in order."""
        code = self.named(module, name)
        if len(make) < 4 and self._draw.chance(0.5):
            arguments = b"".join(each() for each in make)
            arguments += (b")", b"\x85", b"\x86", b"\x87")[len(make)]
        else:
            arguments = MARK + b"".join(each() for each in make) + b"t"
        return code + arguments + (b"\x81" if new else b"R")

    def _keep(self, code: bytes, kind: tuple[object, ...], often: float = 0.5) -> bytes:
        draw = self._draw
        if not draw.chance(often):
            return code
        slot = len(self._memo)
        while slot in self._memo:
            slot += 1
        if draw.trick("memoize", 0.1):
            self._memo[slot] = kind
            return code + b"\x94"
        if self._memo and draw.trick("memo overwritten"):
            slot = draw.rng.choice(list(self._memo))
        elif draw.trick("memo with gaps", 0.2):
            slot += draw.rng.randrange(1, 300)
        self._memo[slot] = kind
        short = slot < 256 and draw.chance(0.5)
        return code + (b"q" + bytes([slot]) if short else b"r" + struct.pack("<I", slot))

    def _recall(self, fits: Callable[[tuple[object, ...]], bool]) -> bytes:
        """A look-up of a value in the memo; empty if there is none."""
        slots = [slot for slot, kind in self._memo.items() if fits(kind)]
        if not slots:
            return b""
        slot = self._draw.rng.choice(slots)
        short = slot < 256 and self._draw.chance(0.7)
        return b"h" + bytes([slot]) if short else b"j" + struct.pack("<I", slot)

    # storages

    def storage(self) -> tuple[bytes, Stored]:
        """A reference to a storage, old or new."""
        draw = self._draw
        if draw.trick("storage by the memo"):
            known = [kind for kind in self._memo.values() if kind[0] == "storage"]
            if known:
                kind = draw.rng.choice(known)
                return self._recall(lambda it: it == kind), kind[1:]  # type: ignore[return-value]
        stored = self._stored()
        return self._keep(self._reference(*stored), ("storage", *stored), 0.4), stored

    def _stored(self) -> Stored:
        draw = self._draw
        if self.storages and draw.chance(0.4):
            key = draw.rng.choice(list(self.storages))
        else:
            key = str(len(self.storages))
            kind = UNTYPED if draw.trick("untyped storages") else draw.rng.choice(list(KINDS))
            numel = 0 if draw.trick("storages without bytes", 0.3) else draw.rng.randrange(1, 13)
            self.storages[key] = (kind, numel)
        kind, numel = self.storages[key]
        if draw.trick("storage of another dtype"):
            nbytes = numel * KINDS.get(kind, 1)
            kind = draw.rng.choice([*KINDS, UNTYPED])
            numel = nbytes // KINDS.get(kind, 1)
        if draw.trick("storage of another size", 0.2):
            numel = max(0, numel + draw.one(-2, -1, 1, 2))
        return key, kind, numel

    def _reference(self, key: str, kind: str, numel: int) -> bytes:
        draw = self._draw
        location = "cpu"
        if draw.trick("location meta", 0.3):
            location = "meta"
        elif draw.trick("location of another device", 0.3):
            location = draw.one("cuda:0", "mps", "", "xla:1", "CPU", "cpu:0")
        parts = [self.text("storage")]
        parts.append(self.named("torch.storage" if kind == UNTYPED else "torch", kind))
        if draw.trick("storage key that is no text", 0.3):
            parts.append(draw.one(self.integer(int(key)), b"C\x01" + key[:1].encode()))
        else:
            parts.append(self.text(key))
        parts += [self.text(location), self.integer(numel)]
        if self._legacy:
            parts.append(self._view(key, numel))
        if draw.trick("storage id of another length", 0.2):
            parts = draw.one(parts[:-1], [*parts, NONE], [*parts, NONE, NONE])
        if draw.trick("persid of protocol 0", 0.05):
            return b"P0\n"
        return MARK + b"".join(parts) + b"tQ"

    def _view(self, key: str, numel: int) -> bytes:
        """The view that a legacy id ends with: None, or its key, first element and length."""
        draw = self._draw
        if not draw.trick("legacy views"):
            return NONE
        first = draw.rng.randrange(0, numel + 1)
        count = draw.rng.randrange(0, numel + 1 - first)
        name = f"{key}.{first}.{count}"
        if draw.trick("legacy views that collide"):
            name = draw.one("v", key, *self.storages)
        if draw.trick("legacy views beyond", 0.3):
            count += draw.one(1, numel)
        return self.tupled(self.text(name), self.integer(first), self.integer(count))

    # tensors

    def tensor(self) -> bytes:
        """A tensor by one of its makers."""
        draw = self._draw
        if draw.trick("tensor aliased", 0.3):
            found = self._recall(lambda kind: kind[0] == "tensor")
            if found:
                return self._built(found)
        self._depth += 1
        makers = [make for name, make in self._makers().items() if draw.trick(name, 0.5)]
        code = draw.rng.choice(makers)() if makers and self._depth < 6 else self.plain()
        self._depth -= 1
        return self._built(self._keep(code, ("tensor",), 0.4))

    def _makers(self) -> dict[str, Callable[[], bytes]]:
        return {
            "usual form": self.usual,
            "v1": lambda: self.plain(1),
            "v3": lambda: self.plain(3),
            "parameter": self.parameter,
            "parameter with state": self._parameter_with_state,
            "from type": self._from_type,
            "Parameter by newobj": lambda: self._parameter_class(new=True),
            "Parameter by reduce": lambda: self._parameter_class(new=False),
            "Tensor by newobj": lambda: self._tensor_class("Tensor", new=True),
            "Tensor by reduce": lambda: self._tensor_class("Tensor", new=False),
            "tensor of a class": lambda: self._tensor_class(
                self._draw.one("FloatTensor", "LongTensor"), new=self._draw.chance(0.5)
            ),
            "sparse": self._sparse,
            "quantised": self._quantised,
            "nested": self._nested,
            "meta tensor": self._meta,
            "wrapper subclass": self._wrapper,
            "tensor of numpy": self._of_numpy,
        }

    def plain(self, version: int = 2) -> bytes:
        """A call of `_rebuild_tensor`, `_rebuild_tensor_v2` or `_rebuild_tensor_v3`."""
        suffix = "" if version == 1 else f"_v{version}"
        code = self.named("torch._utils", f"_rebuild_tensor{suffix}")
        return code + MARK + b"".join(self._plain_arguments(version)) + b"tR"

    def _plain_arguments(self, version: int) -> list[bytes]:
        draw = self._draw
        storage, (_, kind, numel) = self.storage()
        first, shape, stride = self._geometry(numel)
        parts = [storage, self._number(first), self.sizes(shape), self.sizes(stride)]
        if version == 1:
            return parts
        parts.append(TRUE if draw.trick("requires grad") else FALSE)
        if draw.trick("hooks"):
            parts.append(draw.make(lambda: draw.one(NONE, b"}", b"]", b")"), self.listed))
        else:
            parts.append(self.call("collections", "OrderedDict"))
        if version == 3:
            dtype = _dtype_of(kind)
            if dtype is None or draw.trick("v3 of another dtype"):
                dtype = draw.rng.choice(DTYPES)
            parts.append(self.named("torch", dtype))
        if draw.trick("metadata"):
            parts.append(self._metadata())
        return parts

    def _metadata(self) -> bytes:
        draw = self._draw
        if draw.chance(0.4):
            return draw.one(NONE, b"}", b"]")
        bit = self.text(draw.one("conj", "neg", "other"))
        return b"}" + bit + (FALSE if draw.trick("bit that is false") else TRUE) + b"s"

    def usual(self) -> bytes:
        """A tensor with exactly the opcodes of `torch.save`, or nearly so."""
        draw = self._draw
        key, kind, numel = self._stored()
        first, shape, stride = self._geometry(numel)
        if (
            not shape
            or not 0 <= min((first, *shape, *stride)) <= max((first, *shape, *stride)) < 256
        ):
            return self.plain()
        data = key.encode()
        module = "torch.storage" if kind == UNTYPED else "torch"
        parts = [
            self._known("torch._utils", "_rebuild_tensor_v2"),
            *(b"((", self._word("storage"), self._known(module, kind)),
            *(b"X" + struct.pack("<I", len(data)) + data, self._put("text", key)),
            *(
                self._word("cpu"),
                _small([numel]),
                b"t",
                self._put("identity"),
                b"Q",
                _small([first]),
            ),
            *(_usual_tuple(shape), self._put("sizes"), _usual_tuple(stride), self._put("sizes")),
            *(FALSE, self._known("collections", "OrderedDict"), b")R", self._put("dict")),
            *(b"t", self._put("tuple"), b"R", self._put("tensor")),
        ]
        if draw.trick("usual form altered"):
            at = draw.rng.randrange(len(parts))
            parts[at] = draw.one(b"", b"r\0\0\0\0", b"K\x01", parts[at] + parts[at])
        return b"".join(parts)

    def _put(self, *kind: object) -> bytes:
        slot = max(self._memo, default=-1) + 1
        self._memo[slot] = kind
        return b"r" + struct.pack("<I", slot)

    def _known(self, module: str, name: str) -> bytes:
        kind = ("global", module, name)
        return self._recall(lambda it: it == kind) or (
            f"c{module}\n{name}\n".encode() + self._put(*kind)
        )

    def _word(self, word: str) -> bytes:
        found = self._recall(lambda it: it == ("text", word))
        return found or b"X" + struct.pack("<I", len(word)) + word.encode() + self._put(
            "text", word
        )

    def parameter(self) -> bytes:
        """A Parameter of another tensor."""
        return self.call(
            "torch._utils",
            "_rebuild_parameter",
            self.tensor,
            lambda: self._draw.one(TRUE, FALSE),
            lambda: self.call("collections", "OrderedDict"),
        )

    def _parameter_with_state(self) -> bytes:
        return self.call(
            "torch._utils",
            "_rebuild_parameter_with_state",
            self.tensor,
            lambda: FALSE,
            lambda: self.call("collections", "OrderedDict"),
            self._state,
        )

    def _from_type(self) -> bytes:
        draw = self._draw
        version = draw.one(2, 2, 2, 3)
        return self.call(
            "torch._tensor",
            "_rebuild_from_type_v2",
            lambda: self.named("torch._utils", f"_rebuild_tensor_v{version}"),
            lambda: self.named(
                *draw.one(
                    ("torch", "Tensor"), ("torch", "Tensor"), ("torch.nn.parameter", "Parameter")
                )
            ),
            lambda: MARK + b"".join(self._plain_arguments(version)) + b"t",
            self._state,
        )

    def _state(self) -> bytes:
        """The attributes that a tensor is given."""
        draw = self._draw
        if draw.trick("state in two parts"):
            return self.tupled(
                self._attributes(), draw.make(lambda: NONE, lambda: b"}", self._attributes)
            )
        return self._attributes()

    def _attributes(self) -> bytes:
        draw, items = self._draw, []
        if draw.trick("state that sets data"):
            items.append(self.text(draw.one("data", "data", "real", "grad")) + self.tensor())
        if draw.trick("state that sets others"):
            name = draw.one("foo", "requires_grad", "_backward_hooks", "__class__", "shape", "T")
            items.append(
                self.text(name)
                + draw.make(lambda: NONE, lambda: TRUE, lambda: self.integer(3), self.tensor)
            )
        if draw.chance(0.5):
            items.append(self.text("tag") + self.integer(1))
        return b"}" + MARK + b"".join(items) + b"u"

    def _parameter_class(self, *, new: bool) -> bytes:
        flags = [lambda: self._draw.one(TRUE, FALSE)][: self._draw.one(0, 1, 1)]
        return self.call("torch.nn.parameter", "Parameter", self.tensor, *flags, new=new)

    def _tensor_class(self, name: str, *, new: bool) -> bytes:
        draw = self._draw
        numbers = self._small_tuple
        ways = [lambda: numbers(2), self.plain, self.listed, lambda: self.storage()[0]]
        return self.call("torch", name, draw.rng.choice(ways), new=new)

    def _small_tuple(self, count: int) -> bytes:
        return self.tupled(*(self.integer(self._draw.rng.randrange(1, 4)) for _ in range(count)))

    def _sparse(self) -> bytes:
        return self.call(
            "torch._utils",
            "_rebuild_sparse_tensor",
            lambda: self.call(
                "torch.serialization", "_get_layout", lambda: self.text("torch.sparse_coo")
            ),
            lambda: MARK + self.tensor() + self.tensor() + self._small_tuple(1) + b"t",
        )

    def _quantised(self) -> bytes:
        parts = [self.named("torch._utils", "_rebuild_qtensor"), MARK]
        parts += [self._reference("0", "QInt8Storage", 4)]
        self.storages.setdefault("0", ("ByteStorage", 4))
        parts += [self.integer(0), self.tupled(self.integer(4)), self.tupled(self.integer(1))]
        scheme = self.named("torch", "per_tensor_affine")
        parts += [self.tupled(scheme, _float(0.5), self.integer(0)), FALSE]
        return b"".join([*parts, self.call("collections", "OrderedDict"), b"tR"])

    def _nested(self) -> bytes:
        four = [self.tensor] * 4
        return self.call("torch._utils", "_rebuild_nested_tensor", *four)

    def _meta(self) -> bytes:
        return self.call(
            "torch._utils",
            "_rebuild_meta_tensor_no_storage",
            lambda: self.named("torch", "float32"),
            lambda: self._small_tuple(1),
            lambda: self.tupled(self.integer(1)),
            lambda: FALSE,
        )

    def _wrapper(self) -> bytes:
        return self.call(
            "torch._utils",
            "_rebuild_wrapper_subclass",
            lambda: self.named("torch", "Tensor"),
            lambda: self.named("torch", "float32"),
            lambda: self._small_tuple(1),
            lambda: self.tupled(self.integer(1)),
            lambda: self.integer(0),
            lambda: self.call(
                "torch.serialization", "_get_layout", lambda: self.text("torch.strided")
            ),
            lambda: self.text("cpu"),
            lambda: FALSE,
        )

    def _of_numpy(self) -> bytes:
        return self.call(
            "torch._utils",
            "_rebuild_device_tensor_from_numpy",
            self._numpy_array,
            lambda: self.named("torch", self._draw.rng.choice(DTYPES)),
            lambda: self.text("cpu"),
            lambda: FALSE,
        )

    def _built(self, code: bytes) -> bytes:
        """A tensor, perhaps with a state that replaces what it is."""
        draw = self._draw
        if self._depth > 3:
            return code
        if draw.trick("set_ by build", 0.3):
            storage, (_, _, numel) = self.storage()
            first, shape, stride = self._geometry(numel)
            return (
                code
                + self.tupled(storage, self.integer(first), self.sizes(shape), self.sizes(stride))
                + b"b"
            )
        if draw.trick("state by build", 0.3):
            self._depth += 1
            hooks = lambda: self.call("collections", "OrderedDict")  # noqa: E731
            if draw.chance(0.4):
                code += self._state() + b"b"
            elif draw.chance(0.5):
                code += self.tupled(FALSE, NONE, hooks()) + b"b"
            else:
                code += MARK + self.tensor() + NONE + hooks() + FALSE + NONE + b"tb"
            self._depth -= 1
        return code

    # geometry

    def _geometry(self, numel: int) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
        """First element, shape and stride of a tensor, mostly inside its storage."""
        draw, rng = self._draw, self._draw.rng
        first = rng.randrange(0, numel + 1) if draw.trick("offset") else 0
        left = numel - first
        shape = _factors(rng.randrange(0, left + 1) if draw.trick("views") else left, draw)
        stride = tuple(prod(shape[at + 1 :]) for at in range(len(shape)))
        if draw.trick("views"):
            order = rng.sample(range(len(shape)), len(shape))
            shape = tuple(shape[at] for at in order)
            stride = tuple(stride[at] for at in order)
        if shape and draw.trick("broadcast"):
            at = rng.randrange(len(shape))
            shape = (*shape[:at], rng.randrange(0, 5), *shape[at + 1 :])
            stride = (*stride[:at], draw.one(0, 0, 1), *stride[at + 1 :])
        if draw.trick("beyond the storage", 0.2):
            first += draw.one(1, numel, -1)
        if shape and draw.trick("huge", 0.2):
            at = rng.randrange(len(shape))
            shape = (*shape[:at], draw.one(2**20, 2**31, 2**40, 2**62, 2**63), *shape[at + 1 :])
            stride = (*stride[:at], draw.one(0, 1, 2**62), *stride[at + 1 :])
        return first, shape, stride

    def sizes(self, numbers: Sequence[int]) -> bytes:
        """A tuple of numbers, or what passes for one."""
        draw = self._draw
        if draw.trick("sizes by the memo"):
            found = self._recall(lambda kind: kind[0] in ("sizes", "list of sizes"))
            if found:
                return found
        items = [self._number(number) for number in numbers]
        if draw.trick("sizes in a list"):
            return self._keep(b"]" + MARK + b"".join(items) + b"e", ("list of sizes",), 0.8)
        if draw.trick("sizes in a Size"):
            code = self.named("torch", "Size")
            return self._keep(code + MARK + MARK + b"".join(items) + b"ttR", ("sizes",))
        return self._keep(self.tupled(*items), ("sizes",), 0.3)

    def _number(self, value: int) -> bytes:
        draw = self._draw
        if draw.trick("numbers of other types", 0.2):
            return draw.make(
                lambda: draw.one(TRUE, FALSE, _float(value), NONE),
                lambda: self.integer(-value),
                self.tensor,
            )
        return self.integer(value)

    # containers

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
                lambda: draw.one(_float(at + 0.5), TRUE, NONE, b"C\x01k"),
                lambda: self.tupled(self.integer(at), self.text("k")),
                lambda: self.text(str(at)),
            )
        if draw.trick("equal numbers as keys"):
            return draw.make(
                lambda: self.integer(draw.one(0, 1)),
                lambda: draw.one(TRUE, FALSE, _float(1.0)),
                lambda: self.text("1"),
            )
        if draw.trick("strange text"):
            return self.text(
                draw.one("", "a.b", ".", "é", "\ud800", "a\0b", "\x1b[1m", "K" * 200, "k.0")
            )
        name = draw.one("weight", "bias", "k") if draw.trick("key twice") else f"k.{at}"
        return self.text(name)

    def _dict_state(self) -> bytes:
        draw = self._draw
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

    # values

    def value(self) -> bytes:
        """A value beside the tensors."""
        draw = self._draw
        self._depth += 1
        ways: list[Callable[[], bytes]] = [
            lambda: self.integer(draw.rng.randrange(-5, 300)),
            lambda: self.text("value"),
            lambda: draw.one(NONE, TRUE, FALSE, _float(0.5)),
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
            "Namespace": lambda: self.call("argparse", "Namespace") + self._attributes() + b"b",
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

    def _grown(self) -> bytes:
        found = self._recall(lambda kind: kind == ("list of sizes",))
        return found + self.integer(1) + b"a" if found else NONE

    def _numpy(self) -> bytes:
        if self._draw.chance(0.5):
            return self._numpy_array()
        data = struct.pack("<d", 0.5)
        return self.call(
            "numpy._core.multiarray",
            "scalar",
            lambda: self._numpy_dtype("f8"),
            lambda: self._latin(data),
        )

    def _numpy_array(self) -> bytes:
        code = self.call(
            "numpy._core.multiarray",
            "_reconstruct",
            lambda: self.named("numpy", "ndarray"),
            lambda: self.tupled(self.integer(0)),
            lambda: self._latin(b"b"),
        )
        parts = [MARK, self.integer(1), self._small_tuple(1)[:0] + self.tupled(self.integer(2))]
        parts += [self._numpy_dtype("f4"), FALSE, self._latin(struct.pack("<2f", 1, 2))]
        return code + b"".join(parts) + b"tb"

    def _numpy_dtype(self, kind: str) -> bytes:
        code = self.call("numpy", "dtype", lambda: self.text(kind), lambda: FALSE, lambda: TRUE)
        order = self.text(self._draw.one("<", "<", ">"))
        state = [self.integer(3), order, NONE, NONE, NONE, self.integer(-1), self.integer(-1)]
        return code + MARK + b"".join(state) + self.integer(0) + b"tb"

    def _latin(self, data: bytes) -> bytes:
        return self.call(
            "_codecs",
            "encode",
            lambda: self.text(data.decode("latin-1")),
            lambda: self.text("latin1"),
        )

    def _plain_value(self) -> bytes:
        draw = self._draw
        ways = [
            lambda: self._latin(b"data"),
            lambda: self.call("__builtin__", "bytearray", lambda: self._latin(b"data")),
            lambda: self.call("__builtin__", "complex", lambda: _float(1), lambda: _float(2)),
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


def _long1(value: int) -> bytes:
    nbytes = (value.bit_length() + 8) // 8 if value else 0
    return b"\x8a" + bytes([nbytes]) + value.to_bytes(nbytes, "little", signed=True)


def _float(value: float) -> bytes:
    return b"G" + struct.pack(">d", value)


def _small(numbers: Sequence[int]) -> bytes:
    return b"".join(b"K" + bytes([number]) for number in numbers)


def _usual_tuple(numbers: Sequence[int]) -> bytes:
    if len(numbers) < 4:
        return _small(numbers) + (b")", b"\x85", b"\x86", b"\x87")[len(numbers)]
    return MARK + _small(numbers) + b"t"


def _dtype_of(kind: str) -> str | None:
    known = {"FloatStorage": "float32", "DoubleStorage": "float64", "LongStorage": "int64"}
    return known.get(kind)


def _factors(numel: int, draw: Draw) -> tuple[int, ...]:
    """A shape with that many elements."""
    shape: list[int] = []
    for factor in (2, 3):
        while numel and numel % factor == 0 and len(shape) < 3 and draw.chance(0.5):
            shape.append(factor)
            numel //= factor
    if numel != 1 or draw.chance(0.7):
        shape.append(numel)
    draw.rng.shuffle(shape)
    return tuple(shape)
