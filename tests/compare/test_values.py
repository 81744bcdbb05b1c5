"""The figures of `Tally`, against a naive computation by torch, over all dtypes."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt.compare.numbers import COMPLEX, FLOATS, INTEGERS
from ckpt.compare.values import Tally, ValueDiff, comparable
from ckpt.dtypes import DTYPES, itemsize
from tests.effort import examples

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")

NUMERIC = sorted({*FLOATS, *INTEGERS, *COMPLEX, "bool"})
FLOATING = sorted(FLOATS)


def diff(before: torch.Tensor, after: torch.Tensor, cuts: tuple[int, ...] = ()) -> ValueDiff:
    """The figures, added in pieces that end at `cuts` and joined."""
    names = [str(tensor.dtype).removeprefix("torch.") for tensor in (before, after)]
    whole = Tally(*names)
    for first, end in pairwise([0, *sorted(cuts), before.numel()]):
        part = Tally(*names)
        part.add(*(raw(tensor.reshape(-1)[first:end]) for tensor in (before, after)))
        whole.join(part)
    return whole.found()


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def of_bytes(dtype: str, data: bytes) -> torch.Tensor:
    if not data:
        return torch.empty(0, dtype=getattr(torch, dtype))
    return torch.frombuffer(bytearray(data), dtype=getattr(torch, dtype))


def parts(tensor: torch.Tensor) -> torch.Tensor:
    """`(elements, parts)` float64."""
    if tensor.is_complex():
        half = {torch.complex32: torch.half, torch.complex64: torch.float}
        return tensor.view(half.get(tensor.dtype, torch.double)).double().view(-1, 2)
    if tensor.dtype.itemsize == 1 and tensor.is_floating_point():
        tensor = tensor.float()
    return tensor.double().view(-1, 1)


def naive(a: torch.Tensor, b: torch.Tensor) -> ValueDiff:
    """What the docstring of `ValueDiff` says, one after the other."""
    x, y = parts(a), parts(b)
    width = a.dtype.itemsize
    differ = (a.view(torch.uint8).view(-1, width) != b.view(torch.uint8).view(-1, width)).any(1)
    finite = (x.isfinite() & y.isfinite()).all(1)
    alike = ((x == y) | (x.isnan() & y.isnan()) | (x.isfinite() & y.isfinite())).all(1)
    special = a.is_floating_point() or a.is_complex()
    counts = ValueDiff(
        elements=len(x),
        differ=int(differ.sum()),
        left_out=int((~finite).sum()),
        incomparable=int((~alike).sum()),
        nan=(int(x.isnan().any(1).sum()), int(y.isnan().any(1).sum())) if special else None,
        inf=(int(x.isinf().any(1).sum()), int(y.isinf().any(1).sum())) if special else None,
    )
    x, y = x[finite].view(-1), y[finite].view(-1)
    if not x.numel():
        return counts
    apart, norms = (y - x).abs(), (x.norm(), y.norm())
    return replace(
        counts,
        max_abs=float(apart.max()),
        mean_abs=float(apart.mean()),
        relative_l2=float(apart.norm() / norms[0]) if norms[0] else (None if apart.any() else 0.0),
        cosine=float(x @ y / norms[0] / norms[1]) if all(norms) else None,
    )


def assert_close(found: ValueDiff, expected: ValueDiff) -> None:
    exact = ("elements", "differ", "left_out", "incomparable", "nan", "inf", "max_abs")
    for name in exact:
        assert getattr(found, name) == getattr(expected, name), name
    for name in ("mean_abs", "relative_l2", "cosine"):
        mine, other = getattr(found, name), getattr(expected, name)
        assert (mine is None) == (other is None), name
        assert mine is None or mine == pytest.approx(other, rel=1e-9, abs=1e-12), name


def moderate(dtype: str, data: bytes) -> bytes:
    """Without the float64 whose squares a naive sum cannot hold; they have a test of their own."""
    if dtype not in ("float64", "complex128"):
        return data
    values = of_bytes("float64", data).clone()
    tame = (values.abs() < 1e100) & (values.abs() > 1e-100) | ~values.isfinite()
    return raw(torch.where(tame, values, torch.zeros_like(values)))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[str, bytes, bytes]:
    """Two tensors of any bits, of which some are the same."""
    dtype = draw(st.sampled_from(NUMERIC))
    count, width = draw(st.integers(0, 40)), itemsize(dtype)
    before = draw(st.binary(min_size=count * width, max_size=count * width))
    after = bytearray(before)
    for _ in range(draw(st.integers(0, 4)) if count else 0):
        place = draw(st.integers(0, count - 1)) * width
        after[place : place + width] = draw(st.binary(min_size=width, max_size=width))
    if dtype == "bool":
        before, after = (bytes(each & 1 for each in data) for data in (before, after))
    return dtype, moderate(dtype, before), moderate(dtype, bytes(after))


@given(pairs(), st.lists(st.integers(0, 40), max_size=3))
@settings(max_examples=examples(300), deadline=None)
def test_figures_are_those_of_a_naive_computation(pair, cuts) -> None:
    dtype, before, after = pair
    a, b = of_bytes(dtype, before), of_bytes(dtype, after)
    found = diff(a, b, tuple(cut for cut in cuts if cut <= a.numel()))
    if dtype in INTEGERS and itemsize(dtype) == 8:
        exact = [abs(x - y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
        assert found.max_abs == (float(max(exact)) if exact else None)
        assert found.differ == sum(map(bool, exact))
    else:
        assert_close(found, naive(a, b))
    figures = [getattr(found, name) for name in ("max_abs", "mean_abs", "relative_l2", "cosine")]
    assert not any(figure is not None and math.isnan(figure) for figure in figures)


@pytest.mark.parametrize("dtype", NUMERIC)
def test_many_blocks_are_one_tensor(dtype: str) -> None:
    generator = torch.Generator().manual_seed(4)
    a = torch.randn(20_000, generator=generator).mul(3).to(getattr(torch, dtype))
    b = a.clone()
    b[5000:12000] = a[5001:12001]
    assert_close(diff(a, b), naive(a, b))
    assert_close(diff(a, b, (1, 8192, 8193, 15_000)), naive(a, b))


def flipped(dtype: str, bits: int, flip: int) -> ValueDiff:
    """Of ten numbers, of which one has other bits."""
    width = itemsize(dtype)
    filled = [bits.to_bytes(width, "little")] * 10
    other = [*filled[:4], (bits ^ flip).to_bytes(width, "little"), *filled[5:]]
    return diff(of_bytes(dtype, b"".join(filled)), of_bytes(dtype, b"".join(other)))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_one_ulp_is_a_change(dtype: str) -> None:
    one = int.from_bytes(raw(torch.ones(1, dtype=getattr(torch, dtype))), "little")
    found = flipped(dtype, one, 1)
    assert (found.differ, found.max_ulps) == (1, 1)
    assert found.max_abs == torch.finfo(getattr(torch, dtype)).eps


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn"])
def test_sign_of_zero_is_a_change_by_one_ulp_and_by_nothing(dtype: str) -> None:
    found = flipped(dtype, 0, 1 << (8 * itemsize(dtype) - 1))
    assert (found.differ, found.max_ulps, found.max_abs, found.relative_l2) == (1, 1, 0.0, 0.0)
    assert found.cosine is None
    assert found.within(0)


@pytest.mark.parametrize(
    ("dtype", "nan"), [("float64", 0x7FF8 << 48), ("float32", 0x7FC00000), ("float16", 0x7E00)]
)
def test_what_a_nan_carries_is_a_change_of_bits_alone(dtype: str, nan: int) -> None:
    found = flipped(dtype, nan, 1)
    assert (found.differ, found.left_out, found.incomparable) == (1, 10, 0)
    assert found.nan == (10, 10)
    assert (found.max_abs, found.max_ulps, found.cosine) == (None, None, None)
    assert found.within(0), "both are no number"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "float8_e5m2"])
def test_what_is_not_finite_enters_no_sum(dtype: str, value: float) -> None:
    a = torch.tensor([1.0, 2.0, 3.0, 4.0]).to(getattr(torch, dtype))
    b = a.clone()
    b[1:3] = torch.tensor([value, 2.5]).to(b.dtype)
    found = diff(a, b)
    assert (found.elements, found.differ, found.left_out, found.incomparable) == (4, 2, 1, 1)
    assert (found.max_abs, found.mean_abs) == (0.5, 0.5 / 3)
    assert found.relative_l2 == pytest.approx(0.5 / math.sqrt(26))
    assert found.nan == (0, int(math.isnan(value)))
    assert found.inf == (0, int(math.isinf(value)))
    assert not found.within(1e300)


def test_infinities_of_two_signs_are_not_alike() -> None:
    found = diff(torch.tensor([math.inf, 1]), torch.tensor([-math.inf, 1]))
    assert (found.differ, found.left_out, found.incomparable, found.max_abs) == (1, 1, 1, 0.0)


@pytest.mark.parametrize("scale", [1e300, 1e-300, 1e160, 1e-160])
def test_squares_of_float64_neither_overflow_nor_vanish(scale: float) -> None:
    generator = torch.Generator().manual_seed(5)
    a = torch.randn(10_000, dtype=torch.float64, generator=generator)
    b = a + 1e-3 * torch.randn(10_000, dtype=torch.float64, generator=generator)
    found, expected = diff(a * scale, b * scale), diff(a, b)
    assert found.relative_l2 == pytest.approx(expected.relative_l2, rel=1e-9)
    assert found.cosine == pytest.approx(expected.cosine, rel=1e-12)
    assert found.mean_abs == pytest.approx(expected.mean_abs * scale, rel=1e-9)


def test_greatest_float64_are_further_apart_than_one_can_say() -> None:
    top = torch.finfo(torch.float64).max
    a = torch.full((9000,), top, dtype=torch.float64)
    found = diff(a, -a)
    assert (found.max_abs, found.mean_abs) == (math.inf, math.inf)
    assert (found.relative_l2, found.cosine) == (2.0, -1.0)
    assert found.max_ulps == 2 * 0x7FEF_FFFF_FFFF_FFFF + 1
    assert diff(a, a * 0).mean_abs == pytest.approx(top)


def test_distances_of_integers_are_exact() -> None:
    low, high = -(2**63), 2**63 - 1
    a, b = torch.tensor([low, high, 7]), torch.tensor([high, high - 1, 7])
    found = diff(a, b)
    assert (found.differ, found.max_abs, found.max_ulps) == (2, float(2**64 - 1), None)
    assert diff(a[1:], b[1:]).max_abs == 1.0
    assert diff(torch.tensor([0], dtype=torch.uint64), b[:1].to(torch.uint64)).max_abs == 2.0**63


def test_four_bit_floats_are_compared_by_halves_and_counted_by_bytes() -> None:
    tally = Tally("float4_e2m1fn_x2", "float4_e2m1fn_x2")
    tally.add(bytes([0x00, 0x21]), bytes([0x70, 0x21]))  # 0, 0, 0.5, 1 and 0, 6, 0.5, 1
    found = tally.found()
    assert (found.elements, found.differ, found.max_abs, found.mean_abs) == (2, 1, 6.0, 1.5)
    assert (found.max_ulps, found.nan) == (7, (0, 0))


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name.startswith("bits")])
def test_bits_are_counted_and_are_no_numbers(dtype: str) -> None:
    width = itemsize(dtype)
    tally = Tally(dtype, dtype)
    tally.add(bytes(4 * width), bytes(3 * width) + b"\1" * width)
    found = tally.found()
    assert found == ValueDiff(4, 1)
    assert not found.within(1e300)


def test_difference_beyond_the_tolerance_is_not_within() -> None:
    found = diff(torch.tensor([1.0, 2.0]), torch.tensor([1.5, 2.0]))
    assert found.within(0.5)
    assert not found.within(0.49)


@pytest.mark.parametrize("after", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("before", FLOATING)
def test_cast_is_recognised(before: str, after: str) -> None:
    generator = torch.Generator().manual_seed(6)
    a = torch.randn(9000, generator=generator).abs().to(getattr(torch, before))
    b = a.float().to(getattr(torch, after)) if before != "float64" else a.to(getattr(torch, after))
    if before == after:
        return
    found = diff(a, b)
    assert found.exact_cast is True
    assert found.max_abs == float((parts(a) - parts(b)).abs().max())
    assert found.differ == int((parts(a) != parts(b)).sum())
    b[8500] += 0.25
    assert diff(a, b).exact_cast is False


def test_cast_to_eight_bits_is_not_judged() -> None:
    found = diff(torch.ones(3), torch.ones(3).to(torch.float8_e4m3fn))
    assert (found.exact_cast, found.differ, found.max_ulps) == (None, 0, None)


def test_only_real_floats_of_two_dtypes_are_comparable() -> None:
    assert comparable("float32", "float8_e5m2")
    assert comparable("bits8", "bits8")
    assert not comparable("float32", "int32")
    assert not comparable("complex64", "float32")
