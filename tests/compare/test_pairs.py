"""Two files compared tensor by tensor: what was planted is reported, and nothing else."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import ckpt
from ckpt.compare import pairs as compare
from ckpt.compare.keys import compare_entries
from ckpt.errors import UsageError
from ckpt.io import sources
from ckpt.ops.diff import RefDiff
from ckpt.tensors import TensorEntry
from tests import zoo
from tests.effort import examples

Tensors = dict[str, torch.Tensor]
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def state() -> Tensors:
    """A tensor of every dtype, and of odd forms."""
    torch.manual_seed(7)
    plain = {name: torch.randn(40).to(each.dtype) for name, each in zoo.dtypes().items()}
    whole = torch.randn(30, 20)
    return plain | {
        "turned": whole.t(),
        "rows": torch.randn(9, 4)[1:8:2],
        "expanded": torch.ones(1).expand(3, 4),
        "scalar": torch.tensor(1.5),
        "nothing": torch.zeros(0, 7),
        "first of two": whole,
        "second of two": whole,
        "zeros": torch.zeros(5),
    }


def saved(before: Tensors, after: Tensors, folder: Path) -> tuple[Path, Path]:
    for name, tensors in (("a.pt", before), ("b.pt", after)):
        torch.save(tensors, folder / name)
    return folder / "a.pt", folder / "b.pt"


def compared(before: Tensors, after: Tensors, folder: Path) -> RefDiff:
    return ckpt.diff(*saved(before, after, folder), values=True)


def flip(tensor: torch.Tensor, element: int, bit: int) -> torch.Tensor:
    """A copy with one other bit."""
    flat = tensor.contiguous().clone().reshape(-1)
    width = min(tensor.dtype.itemsize, 8)
    bits = flat.view(BITS[width])
    mask = 1 << bit % (8 * width)
    mask -= (1 << 8 * width) if mask == 1 << (8 * width - 1) and width > 1 else 0
    bits[element * len(bits) // flat.numel()] ^= mask
    return flat.reshape(tensor.shape)


CHANGEABLE = [
    key for key, tensor in state().items() if tensor.numel() and tensor.dtype != torch.bool
]


@given(
    st.dictionaries(
        st.sampled_from(CHANGEABLE), st.tuples(st.integers(0, 10**6), st.integers(0, 63))
    )
)
@settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_planted_bit_is_found_and_nothing_else(tmp_path: Path, planted) -> None:
    before = state()
    after = {
        key: flip(tensor, planted[key][0] % tensor.numel(), planted[key][1])
        if key in planted
        else tensor
        for key, tensor in before.items()
    }
    comparison = compared(before, after, tmp_path)
    assert {a.key for a, _ in comparison.diff.changed} == set(planted)
    assert {
        pair.before.key: pair.found.differ for pair in comparison.values or ()
    } == dict.fromkeys(planted, 1)
    assert len(comparison.diff.same) == len(before) - len(planted)
    assert comparison.differs == bool(planted)


def test_what_all_elements_moved_by_is_what_torch_says(tmp_path: Path) -> None:
    before = {key: tensor for key, tensor in state().items() if tensor.dtype == torch.float32}
    after = {key: tensor * 1.01 + 0.001 for key, tensor in before.items()}
    comparison = compared(before, after, tmp_path)
    found = {pair.before.key: pair.found for pair in comparison.values or ()}
    assert set(found) == {key for key, tensor in before.items() if tensor.numel()}
    for key, values in found.items():
        x, y = before[key].double().flatten(), after[key].double().flatten()
        apart = (y - x).abs()
        assert (values.differ, values.elements) == (len(x), len(x))
        assert values.max_abs == float(apart.max())
        assert values.mean_abs == pytest.approx(float(apart.mean()), rel=1e-12)
        if key != "zeros":
            assert values.relative_l2 == pytest.approx(float(apart.norm() / x.norm()), rel=1e-12)
            assert values.cosine == pytest.approx(float(x @ y / x.norm() / y.norm()), rel=1e-12)
        else:
            assert (values.relative_l2, values.cosine) == (None, None)


def test_pieces_and_threads_change_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {f"{n}": torch.randn(5000) for n in range(6)} | {"big": torch.randn(300, 700)}
    after = {key: tensor + 1e-3 * torch.randn_like(tensor) for key, tensor in before.items()}
    after["2"] = before["2"]
    whole = compared(before, after, tmp_path)
    monkeypatch.setattr(compare, "PIECE_ELEMENTS", 4096)
    monkeypatch.setattr(compare, "JOB_BYTES", 10_000)
    told: list[tuple[int, int]] = []
    pieces = ckpt.diff(
        tmp_path / "a.pt", tmp_path / "b.pt", values=True, told=lambda *n: told.append(n)
    )
    assert [a.key for a, _ in pieces.diff.same] == ["2"]
    assert {pair.before.key for pair in pieces.values or ()} == set(before) - {"2"}
    for mine, other in zip(pieces.values or (), whole.values or (), strict=True):
        assert mine.before.key == other.before.key
        assert mine.found.max_abs == other.found.max_abs
        assert mine.found.relative_l2 == pytest.approx(other.found.relative_l2, rel=1e-12)
    assert len(told) > 10
    assert told[-1][0] == told[-1][1]
    again = ckpt.diff(tmp_path / "a.pt", tmp_path / "b.pt", values=True)
    assert again.values == pieces.values, "the order in which threads end is no part of it"


def test_tied_tensors_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = torch.randn(1000), torch.randn(1000)
    paths = saved({"a": one, "b": one}, {"a": two, "b": two}, tmp_path)
    tallied: list[int] = []
    add = compare.Tally.add

    def counting(self: compare.Tally, before: bytes, after: bytes) -> None:
        tallied.append(len(before))
        add(self, before, after)

    monkeypatch.setattr(compare.Tally, "add", counting)
    comparison = ckpt.diff(*paths, values=True)
    assert sum(tallied) == 4000
    first, second = comparison.values or ()
    assert {first.before.key, second.before.key} == {"a", "b"}
    assert first.found == second.found


def test_equal_files_are_compared_without_digests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = saved(state(), state(), tmp_path)
    monkeypatch.setattr(compare, "hashed", None)
    monkeypatch.setattr(compare.digest, "of_chunks", None)
    comparison = ckpt.diff(*paths, values=True)
    assert len(comparison.diff.same) == len(state())
    assert comparison.values == ()


def test_rename_between_files_is_found_by_the_bytes(tmp_path: Path) -> None:
    before = state()
    after = {("new " + key if key == "scalar" else key): each for key, each in before.items()}
    comparison = compared(before, after, tmp_path)
    assert [(a.key, b.key) for a, b in comparison.diff.renamed] == [("scalar", "new scalar")]
    assert comparison.values == ()


def test_containers_may_differ(tmp_path: Path) -> None:
    tensors = {"w": torch.randn(30, 20), "b": torch.randn(7)}
    torch.save(tensors, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    save_file(tensors | {"b": tensors["b"] * 2}, tmp_path / "b.safetensors")
    (pair,) = ckpt.diff(tmp_path / "a.pt", tmp_path / "b.safetensors", values=True).values or ()
    assert pair.before.key == "b"
    assert pair.found.relative_l2 == 1.0


@pytest.mark.parametrize("kind", ["deflated", "sharded bin", "distributed model"])
def test_tensors_that_stand_nowhere_as_they_are_can_be_compared(kind: str, tmp_path: Path) -> None:
    specimen = zoo.KINDS[kind](tmp_path)
    key = max(specimen.tensors, key=lambda key: specimen.tensors[key].numel())
    moved = {name: each.clone() for name, each in specimen.tensors.items()}
    moved[key] = moved[key] + 1
    torch.save(moved, tmp_path / "moved.pt")
    comparison = ckpt.diff(specimen.ref, tmp_path / "moved.pt", values=True)
    assert [pair.before.key for pair in comparison.values or ()] == [key]
    assert (comparison.values or ())[0].found.max_abs == pytest.approx(1.0, rel=1e-5)


def test_retyped_floats_of_one_shape_are_compared_and_others_are_not(tmp_path: Path) -> None:
    weight = torch.randn(50)
    before = {"cast": weight, "shape": weight, "int": torch.arange(3.0), "half": weight}
    after = {
        "cast": weight.bfloat16(),
        "shape": weight.reshape(5, 10).half(),
        "int": torch.arange(3),
        "half": weight.half() * 2,
    }
    comparison = compared(before, after, tmp_path)
    found = {pair.before.key: pair.found for pair in comparison.values or ()}
    assert {key: values.exact_cast for key, values in found.items()} == {
        "cast": True,
        "half": False,
    }
    assert found["half"].relative_l2 == pytest.approx(1.0, rel=1e-3)


def test_what_changed_most_is_first_and_what_broke_before_it(tmp_path: Path) -> None:
    base = torch.ones(10)
    before = dict.fromkeys(("little", "broken", "much", "signs", "from zero"), base) | {
        "signs": torch.zeros(10),
        "from zero": torch.zeros(10),
    }
    broken = base.clone()
    broken[3] = math.nan
    after = {"little": base * 1.01, "broken": broken, "much": base * 3}
    after |= {"signs": -torch.zeros(10), "from zero": base}
    comparison = compared({key: each.clone() for key, each in before.items()}, after, tmp_path)
    order = [pair.before.key for pair in comparison.values or ()]
    assert order == ["broken", "from zero", "much", "little", "signs"]


def test_tolerance_is_a_verdict_on_changed_values_alone(tmp_path: Path) -> None:
    weight = torch.ones(100)
    off = weight.clone()
    off[7] += 0.5
    paths = saved({"a": weight, "b": weight}, {"a": off, "b": weight}, tmp_path)
    for tolerance, differs in ((0.5, False), (0.25, True), (0.0, True)):
        comparison = ckpt.diff(*paths, tolerance=tolerance)
        assert comparison.differs == differs
        assert len(comparison.within) == (not differs)
    more = saved({"a": weight}, {"a": off, "c": weight}, tmp_path)
    assert ckpt.diff(*more, tolerance=1).differs, "a key was added"
    cast = saved({"a": weight}, {"a": weight.half()}, tmp_path)
    assert not ckpt.diff(*cast, tolerance=0).differs, "ones are the same in float16"
    narrow = saved({"a": weight / 3}, {"a": (weight / 3).half()}, tmp_path)
    assert ckpt.diff(*narrow, tolerance=0).differs
    assert not ckpt.diff(*narrow, tolerance=1e-4).differs
    whole = saved({"a": weight}, {"a": weight.int()}, tmp_path)
    assert ckpt.diff(*whole, tolerance=1).differs, "another kind of number is no matter of values"


@pytest.mark.parametrize("tolerance", [-1.0, math.nan, math.inf])
def test_tolerance_is_a_number_from_0_on(tolerance: float) -> None:
    with pytest.raises(UsageError, match="expected a finite number, 0 or greater"):
        ckpt.diff("a.pt", "b.pt", tolerance=tolerance)


def test_verdict_of_who_compared_bytes_stands_where_there_is_no_digest() -> None:
    entries = [TensorEntry(key, "float32", (2,)) for key in "abc"]
    diff = compare_entries(entries, entries, equal={"a": True, "b": False})
    groups = (diff.same, diff.changed, diff.unread)
    assert [[a.key for a, _ in group] for group in groups] == [["a"], ["b"], ["c"]]


def test_chunks_of_two_sides_need_not_be_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gathered tensor comes in other chunks than one that lies as it is."""
    whole = torch.randn(257, 129, dtype=torch.complex128)
    other = whole.t().contiguous()
    other[100, 200] += 1
    paths = saved({"a": whole.t()}, {"a": other}, tmp_path)
    monkeypatch.setattr(sources, "CHUNK", 1000)
    (pair,) = ckpt.diff(*paths, values=True).values or ()
    assert (pair.found.differ, pair.found.max_abs) == (1, pytest.approx(1.0))


def test_empty_chunk_is_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream may well yield nothing for a while, an inflater for example."""
    before = torch.randn(40_000)
    after = before.clone()
    after[-1] += 1
    paths = saved({"a": before}, {"a": after}, tmp_path)
    stream = sources.FileSource.stream

    def halting(self: sources.FileSource, offset: int, nbytes: int) -> Iterator[bytes]:
        for chunk in stream(self, offset, nbytes):
            yield b""
            yield chunk

    monkeypatch.setattr(sources.FileSource, "stream", halting)
    comparison = ckpt.diff(*paths, values=True)
    assert [pair.found.differ for pair in comparison.values or ()] == [1]
