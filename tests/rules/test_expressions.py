"""Expressions have the shape and dtype that torch gives, and refuse what torch refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckpt.errors import PlanError
from ckpt.rules import expressions as ex

shapes = st.lists(st.integers(0, 3), max_size=4).map(tuple)
dims = st.integers(-6, 6)


def source(*shape: int, dtype: str = "float32") -> ex.Source:
    return ex.Source("w", dtype, shape)


def agree(ours: Callable[[], Any], torchs: Callable[[], Any]) -> None:
    """Both give the same shapes, or both refuse."""
    try:
        wanted = torchs()
    except (RuntimeError, IndexError):
        with pytest.raises(PlanError):
            ours()
        return
    many = isinstance(wanted, (list, tuple))
    made = ours() if many else [ours()]
    expected = wanted if many else [wanted]
    assert [each.shape for each in made] == [tuple(each.shape) for each in expected]
    assert {each.dtype for each in made} <= {"float32"}


@given(shapes, dims, dims)
def test_transpose_is_that_of_torch(shape: tuple[int, ...], one: int, other: int) -> None:
    if not shape:
        return  # torch has dimension 0 even where there is none
    whole = torch.empty(shape)
    agree(lambda: ex.transposed(source(*shape), one, other), lambda: whole.transpose(one, other))


@given(shapes, st.lists(st.integers(-4, 4), max_size=4))
def test_permute_is_that_of_torch(shape: tuple[int, ...], order: list[int]) -> None:
    whole = torch.empty(shape)
    agree(lambda: ex.permuted(source(*shape), order), lambda: whole.permute(order))


@given(shapes, st.lists(st.integers(-1, 6), max_size=4))
def test_reshape_is_that_of_torch(shape: tuple[int, ...], wanted: list[int]) -> None:
    whole = torch.empty(shape)
    agree(lambda: ex.reshaped(source(*shape), wanted), lambda: whole.reshape(wanted))


@given(shapes, dims)
def test_unsqueeze_is_that_of_torch(shape: tuple[int, ...], dim: int) -> None:
    agree(lambda: ex.unsqueezed(source(*shape), dim), lambda: torch.empty(shape).unsqueeze(dim))


@given(shapes, dims)
def test_squeeze_takes_away_one_dimension_of_one_element(shape: tuple[int, ...], dim: int) -> None:
    if -len(shape) <= dim < len(shape) and shape[dim] == 1:
        squeezed = ex.squeezed(source(*shape), dim)
        assert squeezed.shape == tuple(torch.empty(shape).squeeze(dim).shape)
    else:
        with pytest.raises(PlanError):
            ex.squeezed(source(*shape), dim)


@given(shapes, dims, st.lists(st.integers(-1, 3), min_size=1, max_size=3))
def test_split_is_that_of_torch(shape: tuple[int, ...], dim: int, sizes: list[int]) -> None:
    if not shape:
        return
    agree(
        lambda: ex.split(source(*shape), dim, len(sizes), sizes),
        lambda: torch.empty(shape).split(sizes, dim),
    )


def test_split_in_equal_parts_has_as_many_as_were_asked_for() -> None:
    assert [each.shape for each in ex.split(source(2, 6), 1, 3)] == [(2, 2)] * 3
    assert [each.shape for each in ex.split(source(0, 6), 0, 3)] == [(0, 6)] * 3
    with pytest.raises(PlanError, match="into 4 equal parts"):
        ex.split(source(2, 6), 1, 4)
    with pytest.raises(PlanError, match="do not add up to"):
        ex.split(source(2, 6), 1, 3, [3, 3])


@given(st.lists(shapes, min_size=1, max_size=3), dims)
def test_join_is_that_of_torch(parts: list[tuple[int, ...]], dim: int) -> None:
    if (0,) in parts:
        return  # torch lets an empty vector be joined with anything
    agree(
        lambda: ex.joined([source(*part) for part in parts], dim),
        lambda: torch.cat([torch.empty(part) for part in parts], dim),
    )


def test_join_of_two_dtypes_is_refused() -> None:
    with pytest.raises(PlanError, match="float32 and float16"):
        ex.joined([source(2), source(2, dtype="float16")], 0)


def values(made: ex.Expression, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """The expression worked out by torch."""
    match made:
        case ex.Source(key=key):
            return tensors[key]
        case ex.Permuted():
            return values(made.of, tensors).permute(made.dims)
        case ex.Reshaped():
            return values(made.of, tensors).reshape(made.shape)
        case ex.Narrowed():
            return values(made.of, tensors).narrow(made.dim, made.start, made.length)
        case ex.Joined():
            return torch.cat([values(part, tensors) for part in made.parts], made.dim)
        case ex.Cast():
            return values(made.of, tensors).to(getattr(torch, made.dtype))
        case ex.Copied():
            return values(made.of, tensors).clone()
        case ex.Averaged():
            return torch.cat(
                [values(made.of, tensors).mean(made.dim, True)] * made.length, made.dim
            )
        case ex.Filled():
            return torch.full(made.shape, made.value, dtype=getattr(torch, made.dtype))


def test_elements_stand_where_torch_puts_them() -> None:
    whole = torch.arange(24).reshape(2, 3, 4)
    of = ex.Source("w", "int64", (2, 3, 4))

    def same(made: ex.Expression, wanted: torch.Tensor) -> None:
        found = values(made, {"w": whole})
        assert torch.equal(found, wanted)
        assert made.shape == tuple(found.shape)
        assert made.dtype == str(found.dtype).removeprefix("torch.")

    same(ex.transposed(of, 0, -1), whole.transpose(0, -1))
    same(ex.permuted(of, [1, -1, 0]), whole.permute(1, -1, 0))
    same(ex.reshaped(of, [4, -1]), whole.reshape(4, -1))
    for made, wanted in zip(ex.split(of, 2, 2, [1, 3]), whole.split([1, 3], 2), strict=True):
        same(made, wanted)
    for made, wanted in zip(ex.split(of, 1, 3), whole.chunk(3, 1), strict=True):
        same(made, wanted)
    same(ex.joined([of, of], -1), torch.cat([whole, whole], -1))
    same(ex.cast(of, "float64"), whole.double())
    same(ex.Copied(of), whole)
    same(ex.filled("int8", (2, 3), -5), torch.full((2, 3), -5, dtype=torch.int8))


def test_sources_are_those_that_give_elements() -> None:
    a, b = ex.Source("a", "int8", (2,)), ex.Source("b", "int8", (2,))
    both = ex.joined([ex.Copied(a), ex.cast(b, "int8")], 0)
    assert list(ex.sources_of(both)) == ["a", "b"]
    assert list(ex.sources_of(ex.split(both, 0, 2)[1])) == ["a", "b"]
    assert list(ex.sources_of(ex.filled("int8", (), 1))) == []


def test_whole_source_has_all_elements_of_one_tensor() -> None:
    of = ex.Source("a", "int8", (2, 3))
    for made in (of, ex.transposed(of, 0, 1), ex.reshaped(of, [6]), ex.cast(of, "int16")):
        assert ex.whole_source(ex.Copied(made)) == "a"
    for made in (ex.split(of, 0, 2)[0], ex.joined([of, of], 0), ex.filled("int8", (), 1)):
        assert ex.whole_source(made) is None


INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_holds_exactly_what_torch_says(dtype: str) -> None:
    limits = torch.iinfo(getattr(torch, dtype))
    least, most = int(limits.min), int(limits.max)
    for value in (least, most, 0, 1.0):
        assert ex.filled(dtype, (2,), value).value == value
    for value in (least - 1, most + 1, 0.5, float("inf"), float("nan")):
        with pytest.raises(PlanError, match="cannot hold"):
            ex.filled(dtype, (2,), value)


@pytest.mark.parametrize(
    ("dtype", "value", "holds"),
    [
        ("bool", 0, True), ("bool", 1, True), ("bool", 2, False), ("bool", -1, False),
        ("bool", 0.5, False),
        ("float32", float("inf"), True), ("float32", float("-inf"), True),
        ("float32", float("nan"), True), ("float64", 1.7976931348623157e308, True),
        ("float64", -1.7976931348623157e308, True), ("float64", 10**309, False),
        ("float64", -(10**309), False),
    ],
)  # fmt: skip
def test_filled_with_what_a_dtype_holds(dtype: str, value: float, holds: bool) -> None:
    if holds:
        made = ex.filled(dtype, (), value)
        assert (made.dtype, made.shape) == (dtype, ())
    else:
        with pytest.raises(PlanError, match="cannot hold"):
            ex.filled(dtype, (), value)


@pytest.mark.parametrize("shape", [(-1,), (2, -3), (1 << 60,), (1 << 30, 1 << 30)])
def test_shape_that_no_tensor_has_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PlanError, match="is not the shape of a tensor"):
        ex.filled("int8", shape, 0)
    assert ex.filled("int8", ((1 << 60) - 1,), 0).shape == ((1 << 60) - 1,)


def test_packed_dtypes_are_neither_cast_nor_filled() -> None:
    packed = ex.Source("w", "float4_e2m1fn_x2", (2,))
    for made in (lambda: ex.cast(packed, "float32"), lambda: ex.cast(source(2), packed.dtype)):
        with pytest.raises(PlanError, match="no values to cast"):
            made()
    with pytest.raises(PlanError, match="cannot hold"):
        ex.filled(packed.dtype, (2,), 0)
    with pytest.raises(PlanError, match="is not a dtype"):
        ex.cast(source(2), "float33")
