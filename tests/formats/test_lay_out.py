"""New files that hold the entries of another: torch and safetensors open them."""

import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save

from ckpt.errors import FormatError, KeyCollisionError
from ckpt.formats import format_for
from ckpt.formats.checkpoint import Checkpoint, expect_keys
from ckpt.tensors import TensorEntry
from tests.formats.support import contents, expected, loaded, opened, saved, written

DTYPES = [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.bool, torch.uint16]
STATE = {
    "transposed": torch.arange(6.0).reshape(2, 3).T,
    **{f"{dtype}": torch.tensor([0, 1, 1]).to(dtype) for dtype in DTYPES},
    "scalar": torch.tensor(2.5, dtype=torch.float64),
    "empty": torch.zeros(0, 4),
    "expanded": torch.ones(1, 3).expand(2, 3),
    "slice": torch.arange(10)[2:8:2],
    "ünïcode": torch.ones(1),
}


def laid_out(
    checkpoint: Checkpoint, suffix: str, entries: Sequence[TensorEntry] | None = None
) -> bytes:
    form = format_for(Path(f"x{suffix}"))
    layout = form.lay_out(checkpoint.entries if entries is None else entries, name="weights")
    return written(layout, checkpoint)


def test_new_pt_file_holds_the_same() -> None:
    data = laid_out(opened(saved(STATE)), ".pt")
    assert contents(opened(data)) == expected(STATE) == expected(loaded(data))
    assert type(loaded(data)).__name__ == "OrderedDict"
    with zipfile.ZipFile(BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert {name.partition("/")[0] for name in archive.namelist()} == {"weights"}


def test_new_pt_file_can_be_mapped_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_SERIALIZATION_DEBUG", "1")
    path = tmp_path / "weights.pt"
    path.write_bytes(laid_out(opened(saved(STATE)), ".pt"))
    assert expected(torch.load(path, weights_only=True, mmap=True)) == expected(STATE)
    assert expected(torch.load(path, weights_only=True)) == expected(STATE)


def test_new_pt_file_is_what_torch_would_write() -> None:
    """But for the memo's numbers and the id that torch makes up."""
    state = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}
    ours = opened(laid_out(opened(saved(state)), ".pt"))
    theirs = opened(saved(state))
    assert [entry.nbytes for entry in ours.entries] == [entry.nbytes for entry in theirs.entries]
    with zipfile.ZipFile(BytesIO(laid_out(theirs, ".pt"))) as archive:
        names = [name.partition("/")[2] for name in archive.namelist()]
    with zipfile.ZipFile(BytesIO(saved(state))) as archive:
        assert [*names, ".data/serialization_id"] == [
            name.partition("/")[2] for name in archive.namelist()
        ]


def test_new_safetensors_file_holds_the_same(tmp_path: Path) -> None:
    state = {key: tensor for key, tensor in STATE.items() if key != "ünïcode"}
    path = tmp_path / "x.safetensors"
    path.write_bytes(laid_out(opened(saved(state)), ".safetensors"))
    checkpoint = opened(path.read_bytes())
    assert contents(checkpoint) == expected(state) == expected(load(path.read_bytes()))
    assert [entry.key for entry in checkpoint.entries] == list(state)
    assert checkpoint.rest == {"format": "pt"}
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    for entry in checkpoint.entries:
        assert entry.offset % torch.empty(0, dtype=getattr(torch, entry.dtype)).itemsize == 0


def test_from_safetensors_to_pt_and_back() -> None:
    state = {key: tensor.contiguous() for key, tensor in STATE.items()}
    there = laid_out(opened(save(state)), ".pt")
    back = laid_out(opened(there), ".safetensors")
    assert contents(opened(back)) == contents(opened(save(state)))


def test_no_entries() -> None:
    for suffix in (".pt", ".safetensors"):
        assert opened(laid_out(opened(save({})), suffix)).entries == ()
    assert loaded(laid_out(opened(save({})), ".pt")) == {}


def test_ties_share_a_storage_in_a_pt_file() -> None:
    tied = torch.arange(1000.0)
    state = {"a": tied, "b": tied, "c": tied[:10], "e": torch.zeros(0), "f": torch.zeros(0)}
    data = laid_out(opened(saved(state)), ".pt")
    assert contents(opened(data)) == expected(state)
    first, second, *_ = opened(data).entries
    assert first.span == second.span
    assert len(data) < 7000
    new = loaded(data)
    assert new["a"].data_ptr() == new["b"].data_ptr() != new["c"].data_ptr()


@pytest.mark.filterwarnings("ignore:ComplexHalf support")
@pytest.mark.parametrize("dtype", [torch.complex128, torch.complex32])
def test_dtype_that_safetensors_lacks_is_refused_by_name(dtype: torch.dtype) -> None:
    state = {"a": torch.zeros(2).to(dtype)}
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(FormatError, match=f"a: safetensors cannot hold {name}"):
        laid_out(opened(saved(state)), ".safetensors")
    assert expected(loaded(laid_out(opened(saved(state)), ".pt"))) == expected(state)


def test_two_numbers_in_an_element_need_a_dimension_in_safetensors() -> None:
    form, dtype = format_for(Path("x.safetensors")), "float4_e2m1fn_x2"
    assert list(form.lay_out([TensorEntry("a", dtype, (2,), 0)], name="x"))
    with pytest.raises(FormatError, match=f"a: safetensors cannot hold {dtype} without dimensions"):
        list(form.lay_out([TensorEntry("a", dtype, (), 0)], name="x"))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    ("keys", "error"),
    [(["a", "a"], KeyCollisionError), (["a", ""], FormatError), (["\ud800"], FormatError)],
)
def test_keys_that_no_file_can_hold_are_refused(
    suffix: str, keys: list[str], error: type[Exception]
) -> None:
    checkpoint = opened(saved({"a": torch.ones(1)}))
    with pytest.raises(error):
        laid_out(checkpoint, suffix, [TensorEntry(key, "float32", (1,), 0) for key in keys])


@pytest.mark.parametrize("point", [0xD800, 0xDBFF, 0xDFFF], ids=hex)
def test_half_of_a_surrogate_pair_is_not_in_a_key(point: int) -> None:
    expect_keys("new", ["\ud7ff", "\ue000", "ü"])
    with pytest.raises(FormatError, match="is not valid Unicode"):
        expect_keys("new", ["a", f"a{chr(point)}"])


def test_key_that_safetensors_reserves_is_refused() -> None:
    checkpoint = opened(saved({"__metadata__": torch.ones(1)}))
    with pytest.raises(FormatError, match="safetensors cannot hold the key __metadata__"):
        laid_out(checkpoint, ".safetensors")


@pytest.mark.parametrize("name", ["", "ä", "\udc80", "a/b"])
def test_folder_of_a_name_that_torch_would_not_take(name: str) -> None:
    checkpoint = opened(saved({"a": torch.ones(1)}))
    layout = format_for(Path("x.pt")).lay_out(checkpoint.entries, name=name)
    data = written(layout, checkpoint)
    assert expected(loaded(data)) == expected({"a": torch.ones(1)})
    assert zipfile.ZipFile(BytesIO(data)).namelist()[0] == "archive/data.pkl"
