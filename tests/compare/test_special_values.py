"""NaN and infinity by their bits: as torch sees them, for every pattern of 8 and 16 bits."""

import struct

import pytest
import torch

from ckpt.compare.numbers import has_special_values
from ckpt.compare.special_values import SpecialValues
from ckpt.dtypes import DTYPES, itemsize
from tests.effort import long_but

FLOAT8 = ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"]
NOTED_32 = [
    0x00000000, 0x80000000, 0x00000001, 0x807FFFFF, 0x00800000, 0x3F800000, 0x7F7FFFFF, 0xFF7FFFFF,
    0x7F800000, 0xFF800000, 0x7F800001, 0xFF800001, 0x7FC00000, 0xFFC00001, 0x7FFFFFFF, 0xFFFFFFFF,
]  # fmt: skip


def counts(dtype: str, data: bytes, chunk: int | None = None) -> tuple[int, int]:
    special = SpecialValues(dtype)
    for first in range(0, len(data), chunk or len(data)):
        special.add(data[first : first + (chunk or len(data))])
    return special.nan, special.inf


def by_torch(dtype: str, data: bytes) -> list[tuple[int, int]]:
    values = torch.frombuffer(bytearray(data), dtype=getattr(torch, dtype))
    if itemsize(dtype) == 1:
        values = values.to(torch.float32)
    return list(zip(values.isnan().int().tolist(), values.isinf().int().tolist(), strict=True))


def one_by_one(dtype: str, data: bytes) -> list[tuple[int, int]]:
    width = itemsize(dtype)
    return [counts(dtype, data[at : at + width]) for at in range(0, len(data), width)]


@pytest.mark.parametrize("dtype", FLOAT8)
def test_all_256_patterns_are_what_torch_says(dtype: str) -> None:
    data = bytes(range(256))
    expected = by_torch(dtype, data)
    assert one_by_one(dtype, data) == expected
    assert counts(dtype, data) == tuple(map(sum, zip(*expected, strict=True)))


@pytest.mark.parametrize("dtype", long_but(["float16"], ["float16", "bfloat16"]))
def test_all_65536_patterns_are_what_torch_says(dtype: str) -> None:
    data = struct.pack("<65536H", *range(65536))
    expected = by_torch(dtype, data)
    assert one_by_one(dtype, data) == expected
    assert counts(dtype, data) == tuple(map(sum, zip(*expected, strict=True)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_wide_floats_are_what_torch_says(dtype: str) -> None:
    if dtype == "float32":
        data = struct.pack(f"<{len(NOTED_32)}I", *NOTED_32)
    else:
        wide = [
            sign << 63 | exponent << 52 | mantissa
            for sign in (0, 1)
            for exponent in (0, 1, 0x3FF, 0x7FE, 0x7FF)
            for mantissa in (0, 1, 1 << 51, (1 << 52) - 1)
        ]
        data = struct.pack(f"<{len(wide)}Q", *wide)
    expected = by_torch(dtype, data)
    assert one_by_one(dtype, data) == expected
    assert {(0, 0), (1, 0), (0, 1)} == set(expected)


@pytest.mark.parametrize(
    ("dtype", "part"),
    [("complex64", "float32"), ("complex128", "float64"), ("complex32", "float16")],
)
def test_complex_counts_elements_not_parts(dtype: str, part: str) -> None:
    nan, inf = float("nan"), float("inf")
    pairs = [(1, 2), (nan, 0), (0, nan), (nan, nan), (inf, 0), (nan, -inf), (-inf, inf)]
    values = torch.tensor(pairs, dtype=getattr(torch, part))
    assert counts(dtype, bytes(values.view(torch.uint8).flatten().tolist())) == (4, 3)
    if dtype != "complex32":  # torch has no isnan for it
        seen = torch.view_as_complex(values)
        assert (int(seen.isnan().sum()), int(seen.isinf().sum())) == (4, 3)


def test_four_bit_floats_have_none() -> None:
    assert counts("float4_e2m1fn_x2", bytes(range(256))) == (0, 0)


@pytest.mark.parametrize("dtype", ["float64", "float16", "float8_e5m2", "complex128"])
@pytest.mark.parametrize("chunk", [1, 3, 7, 1000, 65536])
def test_chunks_may_end_anywhere(dtype: str, chunk: int) -> None:
    generator = torch.Generator().manual_seed(3)
    data = b"\xff" * 16 + b"\0\x7c" * 8
    data += bytes(torch.randint(0, 256, (160_000,), generator=generator).tolist())
    data = data[: 32 + 1600] if chunk < 1000 else data
    assert counts(dtype, data, chunk) == counts(dtype, data)
    assert sum(counts(dtype, data)) > 0


def test_every_floating_dtype_of_torch_is_known() -> None:
    floating = {name for name in DTYPES if getattr(torch, name).is_floating_point}
    floating |= {name for name in DTYPES if getattr(torch, name).is_complex}
    assert {name for name in DTYPES if has_special_values(name)} == floating
