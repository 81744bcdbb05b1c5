"""The numbers of every dtype, as torch has them, and their order."""

import struct
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from ckpt.compare.numbers import FLOATS, INTEGERS, has_numbers, numbers, parts_of, ranks, rounded
from ckpt.dtypes import DTYPES, itemsize

ALL_BYTES = bytes(range(256))
ALL_PAIRS = struct.pack("<65536H", *range(65536))
EVERY_PATTERN = [
    *((dtype, ALL_BYTES) for dtype in sorted(FLOATS) if itemsize(dtype) == 1),
    *((dtype, ALL_PAIRS) for dtype in ("float16", "bfloat16")),
]


@pytest.fixture(autouse=True)
def signalling() -> Iterator[None]:
    """Casting a signalling NaN is no news here."""
    with np.errstate(invalid="ignore", over="ignore"):
        yield


def as_torch(dtype: str, data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=getattr(torch, dtype))


@pytest.mark.parametrize(("dtype", "data"), EVERY_PATTERN)
def test_every_pattern_is_the_number_that_torch_has(dtype: str, data: bytes) -> None:
    expected = as_torch(dtype, data).to(torch.float32).double().numpy()
    np.testing.assert_array_equal(numbers(dtype, data), expected)
    assert (np.signbit(numbers(dtype, data)) == np.signbit(expected))[~np.isnan(expected)].all()


@pytest.mark.parametrize("dtype", sorted(INTEGERS | {"float64", "float32"}))
def test_wide_numbers_are_those_of_torch(dtype: str) -> None:
    generator = torch.Generator().manual_seed(1)
    data = bytes(torch.randint(0, 256, (800,), dtype=torch.uint8, generator=generator).tolist())
    expected = as_torch(dtype, data).numpy().astype(np.float64)
    np.testing.assert_array_equal(numbers(dtype, data), expected)


def test_two_four_bit_floats_are_in_a_byte_the_low_half_first() -> None:
    values = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]  # OCP Microscaling Formats 1.0, 5.3.3
    found = numbers("float4_e2m1fn_x2", bytes([0x10, 0x32, 0x54, 0x76, 0xFE]))
    assert found.tolist() == [*values, -4.0, -6.0]


def test_any_byte_of_a_bool_but_0_is_true() -> None:
    assert numbers("bool", b"\0\1\2\xff").tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(("dtype", "data"), EVERY_PATTERN)
def test_neighbours_are_one_apart(dtype: str, data: bytes) -> None:
    """Law of `ranks`: the order of the numbers, without gaps."""
    values, places = numbers(dtype, data), ranks(dtype, data)
    values, places = values[~np.isnan(values)], places[~np.isnan(values)]
    in_order = np.argsort(places)
    assert (np.diff(places[in_order]) == 1).all()
    assert (np.diff(values[in_order]) >= 0).all()


@pytest.mark.parametrize(("dtype", "wide"), [("float32", "<f4"), ("float64", "<f8")])
def test_next_float_is_one_further(dtype: str, wide: str) -> None:
    values = np.array([0.0, 1.0, -1.0, 1e-40, -3e38, 1.9999999], wide)
    further = np.nextafter(values, np.array(np.inf, wide))
    steps = ranks(dtype, further.tobytes()) - ranks(dtype, values.tobytes())
    assert steps.tolist() == [1] * len(values)
    zeros = ranks(dtype, np.array([-0.0, 0.0], wide).tobytes())
    assert zeros.tolist() == [-1, 0]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_rounding_is_that_of_torch(dtype: str) -> None:
    random = np.random.default_rng(2).integers(0, 2**32, 100_000, np.uint32)
    ties = np.arange(65536, dtype=np.uint32) << 16 | 0x8000
    values = np.concatenate([random, ties]).view(np.float32).astype(np.float64)
    expected = torch.from_numpy(values).to(getattr(torch, dtype)).double().numpy()
    np.testing.assert_array_equal(rounded(values, dtype), expected)


def test_rounding_to_eight_bits_is_not_guessed() -> None:
    assert rounded(np.array([1.0]), "float8_e4m3fn") is None


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_every_dtype_has_its_numbers_or_none(dtype: str) -> None:
    data = bytes(itemsize(dtype) * 3)
    if has_numbers(dtype):
        zero = 2.0**-127 if dtype == "float8_e8m0fnu" else 0.0
        assert numbers(dtype, data).tolist() == [zero] * 3 * parts_of(dtype)
    else:
        assert dtype.startswith("bits")
