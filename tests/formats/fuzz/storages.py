"""References to storages, and the sizes of tensors in them, mostly inside."""

from collections.abc import Sequence
from math import prod

from tests.formats.fuzz.draw import Draw
from tests.formats.fuzz.opcodes import FALSE, MARK, NONE, TRUE, Opcodes, float_

TRICKS = (
    *("storage of another dtype", "storage of another size", "storage by the memo"),
    *("storage key that is no text", "storage id of another length", "location meta"),
    *("location of another device", "storages without bytes", "untyped storages"),
    *("offset", "views", "broadcast", "beyond the storage", "huge", "numbers of other types"),
    *("sizes in a list", "sizes in a Size", "sizes by the memo", "list that grows"),
    "persid of protocol 0",
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
Stored = tuple[str, str, int]  # key, kind, elements


class Storages(Opcodes):
    """Makes references to storages.

    Attributes:
        storages: The kind and the number of elements of each storage, by key.
    """

    def __init__(self, draw: Draw, *, legacy: bool = False) -> None:
        super().__init__(draw)
        self.storages: dict[str, tuple[str, int]] = {}
        self._legacy = legacy
        self._viewed: int | None = None  # elements of the view in the last reference

    def storage(self) -> tuple[bytes, Stored]:
        """A reference to a storage, old or new."""
        draw = self._draw
        if draw.trick("storage by the memo"):
            known = [kind for kind in self._memo.values() if kind[0] == "storage"]
            if known:
                kind = draw.rng.choice(known)
                return self._recall(lambda it: it == kind), kind[1:]  # type: ignore[return-value]
        key, kind, numel = self._stored()
        code = self._reference(key, kind, numel)
        stored = key, kind, numel if self._viewed is None else self._viewed
        return self._keep(code, ("storage", *stored), 0.4), stored

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
        self._viewed = None
        if not draw.trick("legacy views"):
            return NONE
        first = draw.rng.randrange(0, numel + 1)
        self._viewed = count = draw.rng.randrange(0, numel + 1 - first)
        name = f"{key}.{first}.{count}"
        if draw.trick("legacy views that collide"):
            name = draw.one("v", key, *self.storages)
        if draw.trick("legacy views beyond", 0.3):
            count += draw.one(1, numel)
        return self.tupled(self.text(name), self.integer(first), self.integer(count))

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
                lambda: draw.one(TRUE, FALSE, float_(value), NONE),
                lambda: self.integer(-value),
                lambda: self.text(str(value)),
            )
        return self.integer(value)


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
