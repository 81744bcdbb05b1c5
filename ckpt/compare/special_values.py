"""NaN and infinity, counted by their bits: numpy knows few of the dtypes that torch has.

Of a complex number either part counts. Sources: IEEE 754 for the wide ones and bfloat16; OCP
8-bit Floating Point Specification 1.0, table 1, for e4m3 and e5m2; OCP Microscaling Formats 1.0,
section 5.4.1, for e8m0; PyTorch's `c10/util/Float8_*.h`, `isnan` and `isinf`, for all of them.
"""

from typing import TYPE_CHECKING

from ckpt.dtypes import itemsize

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Without the sign: infinity has these bits, a NaN is greater, a number less.
INFINITIES = {
    "float64": 0x7FF0_0000_0000_0000,
    "float32": 0x7F80_0000,
    "float16": 0x7C00,
    "bfloat16": 0x7F80,
    "float8_e5m2": 0x7C,
}
# Without infinity: all bytes that are NaN.
NANS: dict[str, tuple[int, ...]] = {
    "float8_e4m3fn": (0x7F, 0xFF),
    "float8_e4m3fnuz": (0x80,),
    "float8_e5m2fnuz": (0x80,),
    "float8_e8m0fnu": (0xFF,),
    "float4_e2m1fn_x2": (),
}
COMPLEX = {"complex128": "float64", "complex64": "float32", "complex32": "float16"}
_PART = 1 << 16  # bytes; what is worked out of it stays in the processor's cache


def has_special_values(dtype: str) -> bool:
    """Whether it makes sense to ask: integers have none, nor has bool."""
    return dtype in INFINITIES or dtype in NANS or dtype in COMPLEX


class SpecialValues:
    """Counts the NaN and the infinities of one tensor, chunk after chunk.

    Args:
        dtype: One that has such values.

    Attributes:
        nan: Elements that are NaN.
        inf: Elements that are infinite.
    """

    def __init__(self, dtype: str) -> None:
        self.nan = 0
        self.inf = 0
        self._width = itemsize(dtype)
        self._parts = 2 if dtype in COMPLEX else 1
        self._real = COMPLEX.get(dtype, dtype)
        self._left = b""  # the beginning of an element that a chunk did not end

    def add(self, chunk: bytes) -> None:
        """The next bytes of the tensor."""
        import numpy as np

        data = self._left + chunk if self._left else chunk
        whole = len(data) - len(data) % self._width
        self._left = data[whole:]
        numbers = np.frombuffer(
            data, f"<u{self._width // self._parts}", whole * self._parts // self._width
        )
        step = _PART // numbers.itemsize
        for begin in range(0, len(numbers), step):
            self._count(numbers[begin : begin + step])

    def _count(self, numbers: "NDArray[np.unsignedinteger]") -> None:
        infinity = INFINITIES.get(self._real)
        if infinity is None:
            self.nan += sum(int((numbers == each).sum()) for each in NANS[self._real])
            return
        magnitudes = numbers & ((1 << (8 * numbers.itemsize - 1)) - 1)
        if magnitudes.max() < infinity:  # nearly always
            return
        self.nan += self._elements(magnitudes > infinity)
        self.inf += self._elements(magnitudes == infinity)

    def _elements(self, found: "NDArray[np.bool]") -> int:
        return int(found.reshape(-1, self._parts).any(axis=1).sum())
