"""Pickle opcodes: numbers, texts, tuples, globals and calls, each in several spellings; the memo.

Opcodes: CPython's `Lib/pickletools.py`. Nothing here is ever unpickled by Python's own pickle.
Every method returns opcodes that push one value; they are built in the order in which they run,
since the memo is followed on the way.
"""

import struct
from collections.abc import Callable, Sequence

from tests.formats.fuzz.draw import Draw

TRICKS = (
    *("integers by any opcode", "integers of old opcodes", "text as bytes", "text of new opcodes"),
    *("memo overwritten", "memo with gaps", "memoize"),
)
MARK, STOP = b"(", b"."
NONE, TRUE, FALSE = b"N", b"\x88", b"\x89"


class Opcodes:
    """Makes opcodes.

    Args:
        draw: The choices.
    """

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._memo: dict[int, tuple[object, ...]] = {}

    def integer(self, value: int) -> bytes:
        """An integer."""
        long = long1(value)
        forms = [long]
        forms += [b"J" + struct.pack("<i", value)] if -(2**31) <= value < 2**31 else []
        forms += [b"M" + struct.pack("<H", value)] if 0 <= value < 1 << 16 else []
        forms += [b"K" + bytes([value])] if 0 <= value < 256 else []
        if self._draw.trick("integers by any opcode"):
            sign = b"\xff" if value < 0 else b"\0"
            longer = b"\x8a" + bytes([long[1] + 3]) + long[2:] + 3 * (sign if value else b"\0")
            return self._draw.one(*forms, longer)
        if self._draw.trick("integers of old opcodes", 0.1):
            long4 = b"\x8b" + struct.pack("<i", long[1]) + long[2:]
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


def long1(value: int) -> bytes:
    nbytes = (value.bit_length() + 8) // 8 if value else 0
    return b"\x8a" + bytes([nbytes]) + value.to_bytes(nbytes, "little", signed=True)


def float_(value: float) -> bytes:
    return b"G" + struct.pack(">d", value)


def small(numbers: Sequence[int]) -> bytes:
    return b"".join(b"K" + bytes([number]) for number in numbers)


def usual_tuple(numbers: Sequence[int]) -> bytes:
    if len(numbers) < 4:
        return small(numbers) + (b")", b"\x85", b"\x86", b"\x87")[len(numbers)]
    return MARK + small(numbers) + b"t"
