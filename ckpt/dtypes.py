"""The dtype table: torch's spelling, the width in bits, and the name in safetensors.

torch's spelling without ``torch.`` is used everywhere; the short names (`BF16`) appear
only inside the safetensors module. Law: it holds every dtype that `torch.save` writes except the
quantised ones, whose bytes are not values without a scale. These, int1 to int7 and uint1 to uint7
are refused by name. Sources: torch 2.13, the members of type `torch.dtype`, each tried with its
`save`; safetensors 0.8, `Dtype` of its Rust part, whose six-bit floats torch lacks.
"""

from dataclasses import dataclass

from ckpt.errors import FormatError


@dataclass(frozen=True, slots=True)
class DType:
    """One dtype.

    Attributes:
        name: torch's spelling.
        bits: Width of one element as torch counts elements.
        safetensors: Its name there, if it has one.
        numbers: Numbers packed into an element; safetensors counts these, in the last
            dimension.
    """

    name: str
    bits: int
    safetensors: str | None = None
    numbers: int = 1


_TABLE = (
    DType("float64", 64, "F64"),
    DType("float32", 32, "F32"),
    DType("float16", 16, "F16"),
    DType("bfloat16", 16, "BF16"),
    DType("float8_e4m3fn", 8, "F8_E4M3"),
    DType("float8_e4m3fnuz", 8, "F8_E4M3FNUZ"),
    DType("float8_e5m2", 8, "F8_E5M2"),
    DType("float8_e5m2fnuz", 8, "F8_E5M2FNUZ"),
    DType("float8_e8m0fnu", 8, "F8_E8M0"),
    DType("float4_e2m1fn_x2", 8, "F4", numbers=2),
    DType("complex128", 128),
    DType("complex64", 64, "C64"),
    DType("complex32", 32),
    DType("int64", 64, "I64"),
    DType("int32", 32, "I32"),
    DType("int16", 16, "I16"),
    DType("int8", 8, "I8"),
    DType("uint64", 64, "U64"),
    DType("uint32", 32, "U32"),
    DType("uint16", 16, "U16"),
    DType("uint8", 8, "U8"),
    DType("bool", 8, "BOOL"),
    DType("bits16", 16),
    *(DType(name, 8) for name in ("bits8", "bits1x8", "bits2x4", "bits4x2")),
)

DTYPES = {dtype.name: dtype for dtype in _TABLE}
_ITEMSIZES = {dtype.name: dtype.bits // 8 for dtype in _TABLE}
FROM_SAFETENSORS = {dtype.safetensors: dtype for dtype in _TABLE if dtype.safetensors}


def itemsize(name: str) -> int:
    """Bytes of one element, e.g. 2 for ``bfloat16``; a `FormatError` if the table lacks it."""
    try:
        return _ITEMSIZES[name]
    except KeyError:
        raise FormatError(f"ckpt cannot read dtype {name} yet") from None
