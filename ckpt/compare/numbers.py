"""The numbers that a tensor's bytes hold, without torch.

numpy lacks bfloat16 and float8. `ml_dtypes` has them, but it would replace the fifteen lines of
`_value` alone, for one more compiled dependency: the bits are read here anyway, for `ranks`.

Both parts of a complex number are numbers, real part first, and so are both four-bit floats of a
byte, low half first. The `bits` dtypes have no numbers. Sources: IEEE 754; OCP 8-bit Floating
Point Specification 1.0, table 1; OCP Microscaling Formats 1.0, sections 5.3.3 (e2m1) and 5.4.1
(e8m0); PyTorch's `c10/util/Float8_*.h`.
"""

from functools import cache
from math import inf, nan
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpt.dtypes import DTYPES, itemsize

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]


class _Narrow(NamedTuple):
    """A float of eight bits or fewer, whose values fit a table."""

    mantissa_bits: int
    bias: int
    nans: frozenset[int] = frozenset()
    infinity: int | None = None


INTEGERS = frozenset(name for name in DTYPES if name.startswith(("int", "uint")))
COMPLEX = {"complex128": "float64", "complex64": "float32", "complex32": "float16"}
_WITHOUT_NUMBERS = frozenset(name for name in DTYPES if name.startswith("bits"))
_WIDE = {"float64": "<f8", "float32": "<f4", "float16": "<f2"}
_NARROW = {
    "float8_e4m3fn": _Narrow(3, 7, frozenset({0x7F, 0xFF})),
    "float8_e4m3fnuz": _Narrow(3, 8, frozenset({0x80})),
    "float8_e5m2": _Narrow(2, 15, frozenset({0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF}), 0x7C),
    "float8_e5m2fnuz": _Narrow(2, 16, frozenset({0x80})),
    "float4_e2m1fn_x2": _Narrow(1, 1),
}
FLOATS = frozenset(  # real ones, one number an element
    {*_WIDE, "bfloat16", "float8_e8m0fnu", *_NARROW} - {"float4_e2m1fn_x2"}
)


def has_numbers(dtype: str) -> bool:
    """Whether the bytes are numbers at all."""
    return dtype not in _WITHOUT_NUMBERS


def has_special_values(dtype: str) -> bool:
    """Whether NaN and infinities can be counted: not in integers and bool."""
    return dtype in FLOATS or dtype in _NARROW or dtype in COMPLEX


def parts_of(dtype: str) -> int:
    """Numbers in one element: 2 in a complex number and in a byte of two four-bit floats."""
    return 2 if dtype in COMPLEX else DTYPES[dtype].numbers


def floats(dtype: str, data: bytes | memoryview) -> "NDArray[np.floating[Any]]":
    """The numbers of a dtype that `has_special_values`, in the narrowest float that numpy has."""
    import numpy as np

    real = COMPLEX.get(dtype, dtype)
    if real in _WIDE:
        return np.frombuffer(data, _WIDE[real])
    if real == "bfloat16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return _values(real).take(np.frombuffer(data, np.uint8), axis=0).reshape(-1)


def numbers(dtype: str, data: bytes) -> "Numbers":
    """All numbers as float64, exactly except for integers from 2^53 on."""
    import numpy as np

    if has_special_values(dtype):
        return floats(dtype, data).astype(np.float64)
    if dtype in INTEGERS:
        return integers(dtype, data).astype(np.float64)
    true: NDArray[np.bool] = np.frombuffer(data, np.uint8) != 0
    return true.astype(np.float64)


def integers(dtype: str, data: bytes) -> "NDArray[np.integer[Any]]":
    """The numbers of an integer dtype, unconverted."""
    import numpy as np

    return np.frombuffer(data, f"<{'u' if dtype[0] == 'u' else 'i'}{itemsize(dtype)}")


def ranks(dtype: str, data: bytes) -> "NDArray[np.int64]":
    """The place of each number in the order of all numbers of its floating dtype.

    Neighbours are 1 apart, also -0 and +0. The rank of a NaN has no meaning.
    """
    import numpy as np

    real = COMPLEX.get(dtype, dtype)
    if real in _WIDE or real == "bfloat16":
        width = itemsize(real)
        bits = np.frombuffer(data, f"<i{width}").astype(np.int64)
        return bits ^ ((bits >> 63) & ((1 << (8 * width - 1)) - 1))  # if negative: flip the rest
    return _ranks(real)[np.frombuffer(data, np.uint8)].reshape(-1)


def rounded(values: "Numbers", dtype: str) -> "Numbers | None":
    """`values` as torch converts them to a floating dtype, by way of float32.

    None for dtypes of eight bits or fewer: libraries scale and saturate them differently.
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
def _values(dtype: str) -> "NDArray[np.float32]":
    """The numbers of each byte, `(256, numbers in a byte)`."""
    import numpy as np

    if dtype == "float8_e8m0fnu":
        found = [[2.0 ** (byte - 127)] for byte in range(255)] + [[nan]]
    elif dtype == "float4_e2m1fn_x2":
        halves = [_value(_NARROW[dtype], half, 8) for half in range(16)]
        found = [[halves[byte & 15], halves[byte >> 4]] for byte in range(256)]
    else:
        found = [[_value(_NARROW[dtype], byte, 128)] for byte in range(256)]
    return np.array(found, np.float32)


def _value(form: _Narrow, bits: int, sign_bit: int) -> float:
    if bits in form.nans:
        return nan
    magnitude = bits & (sign_bit - 1)
    exponent, mantissa = divmod(magnitude, 1 << form.mantissa_bits)
    implied = 1 << form.mantissa_bits if exponent else 0
    value = (implied + mantissa) * 2.0 ** (max(exponent, 1) - form.bias - form.mantissa_bits)
    value = inf if magnitude == form.infinity else value
    return -value if bits & sign_bit else value


@cache
def _ranks(dtype: str) -> "NDArray[np.int64]":
    """The rank of each byte, or of both halves of each byte, in the shape of `_values`."""
    import numpy as np

    if dtype == "float8_e8m0fnu":
        found = [[byte] for byte in range(256)]
    elif dtype == "float4_e2m1fn_x2":
        halves = [half if half < 8 else 7 - half for half in range(16)]
        found = [[halves[byte & 15], halves[byte >> 4]] for byte in range(256)]
    else:
        first = 128 if dtype.endswith("fnuz") else 127  # fnuz has no -0, so no rank for it
        found = [[byte if byte < 128 else first - byte] for byte in range(256)]
    return np.array(found, np.int64)
