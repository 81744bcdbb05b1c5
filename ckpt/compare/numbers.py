"""The numbers that a tensor's bytes stand for, without torch: numpy lacks bfloat16 and float8.

Of a complex number both parts are numbers, real part first, and of a byte of two four-bit floats
both of these, low half first. What has no numbers: the `bits` dtypes. Sources: as in
`special_values`; OCP Microscaling Formats 1.0, section 5.3.3, for e2m1.
"""

from functools import cache
from math import inf, nan
from typing import TYPE_CHECKING, Any

from ckpt.compare.special_values import COMPLEX, INFINITIES, NANS
from ckpt.dtypes import DTYPES, itemsize

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

INTEGERS = frozenset(name for name in DTYPES if name.startswith(("int", "uint")))
FLOATS = frozenset({*INFINITIES, *NANS} - {"float4_e2m1fn_x2"})  # real ones, one an element
_WITHOUT_NUMBERS = frozenset(name for name in DTYPES if name.startswith("bits"))
_WIDE = {"float64": "<f8", "float32": "<f4", "float16": "<f2"}
# Bits of mantissa, and what is taken off the exponent.
_NARROW = {
    "float8_e4m3fn": (3, 7),
    "float8_e4m3fnuz": (3, 8),
    "float8_e5m2": (2, 15),
    "float8_e5m2fnuz": (2, 16),
    "float4_e2m1fn_x2": (1, 1),
}


def has_numbers(dtype: str) -> bool:
    """Whether the bytes stand for numbers at all."""
    return dtype not in _WITHOUT_NUMBERS


def parts_of(dtype: str) -> int:
    """Numbers in one element: 2 of a complex one and of two four-bit floats in a byte."""
    return 2 if dtype in COMPLEX else DTYPES[dtype].numbers


def numbers(dtype: str, data: bytes) -> "Numbers":
    """All of them as float64, which is exact for all but integers from 2^53 on."""
    import numpy as np

    real = COMPLEX.get(dtype, dtype)
    if real in _WIDE:
        return np.frombuffer(data, _WIDE[real]).astype(np.float64)
    if real == "bfloat16":
        wide = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        return wide.view(np.float32).astype(np.float64)
    if real in INTEGERS:
        return integers(real, data).astype(np.float64)
    if real == "bool":
        true: NDArray[np.bool] = np.frombuffer(data, np.uint8) != 0
        return true.astype(np.float64)
    return _values(real)[np.frombuffer(data, np.uint8)].reshape(-1)


def integers(dtype: str, data: bytes) -> "NDArray[np.integer[Any]]":
    """The numbers of an integer dtype, as they are."""
    import numpy as np

    return np.frombuffer(data, f"<{'u' if dtype[0] == 'u' else 'i'}{itemsize(dtype)}")


def ranks(dtype: str, data: bytes) -> "NDArray[np.int64]":
    """The place of each number in the order of all that its floating dtype has.

    Neighbours are 1 apart, -0 and +0 among them. What NaN has means nothing.
    """
    import numpy as np

    real = COMPLEX.get(dtype, dtype)
    if real in _WIDE or real == "bfloat16":
        width = itemsize(real)
        bits = np.frombuffer(data, f"<i{width}").astype(np.int64)
        return bits ^ ((bits >> 63) & ((1 << (8 * width - 1)) - 1))  # where negative: all but sign
    return _ranks(real)[np.frombuffer(data, np.uint8)].reshape(-1)


def rounded(values: "Numbers", dtype: str) -> "Numbers | None":
    """`values` as torch converts them to a floating dtype, by way of float32.

    None for the dtypes of eight bits and fewer: libraries scale and saturate there as they like.
    """
    import numpy as np

    if dtype == "float64":
        return values
    single = values.astype(np.float32)
    if dtype == "bfloat16":
        bits = single.view(np.uint32)
        half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))  # ties to even
        kept = (bits + half) & np.uint32(0xFFFF_0000)
        single = np.where(np.isnan(single), single, kept.view(np.float32))
    elif dtype in _WIDE:
        single = single.astype(_WIDE[dtype])
    else:
        return None
    return single.astype(np.float64)


@cache
def _values(dtype: str) -> "Numbers":
    """What each byte stands for, `(256, numbers in a byte)`."""
    import numpy as np

    if dtype == "float8_e8m0fnu":
        found = [[2.0 ** (byte - 127)] for byte in range(255)] + [[nan]]
    elif dtype == "float4_e2m1fn_x2":
        halves = [_value(dtype, half, 8) for half in range(16)]
        found = [[halves[byte & 15], halves[byte >> 4]] for byte in range(256)]
    else:
        found = [[_value(dtype, byte, 128)] for byte in range(256)]
    return np.array(found, np.float64)


def _value(dtype: str, bits: int, sign_bit: int) -> float:
    mantissa_bits, bias = _NARROW[dtype]
    magnitude = bits & (sign_bit - 1)
    infinity = INFINITIES.get(dtype, 256)
    if bits in NANS.get(dtype, ()) or magnitude > infinity:
        return nan
    exponent, mantissa = divmod(magnitude, 1 << mantissa_bits)
    implied = 1 << mantissa_bits if exponent else 0
    value = (implied + mantissa) * 2.0 ** (max(exponent, 1) - bias - mantissa_bits)
    value = inf if magnitude == infinity else value
    return -value if bits & sign_bit else value


@cache
def _ranks(dtype: str) -> "NDArray[np.int64]":
    """The place of each byte, or of the halves of each byte, in the shape of `_values`."""
    import numpy as np

    if dtype == "float8_e8m0fnu":
        found = [[byte] for byte in range(256)]
    elif dtype == "float4_e2m1fn_x2":
        halves = [half if half < 8 else 7 - half for half in range(16)]
        found = [[halves[byte & 15], halves[byte >> 4]] for byte in range(256)]
    else:
        first = 128 if dtype.endswith("fnuz") else 127  # without a -0 no place is kept for it
        found = [[byte if byte < 128 else first - byte] for byte in range(256)]
    return np.array(found, np.int64)
