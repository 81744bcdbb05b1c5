"""Every dtype of torch: read and written bit by bit, or refused by name."""

import io
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save as library_save

from ckpt.dtypes import DTYPES, itemsize
from ckpt.errors import FormatError
from ckpt.formats import format_for
from ckpt.formats.pickle.writer import pickle_state_dict
from ckpt.tensors import TensorEntry
from tests.formats.support import contents, loaded, opened, saved, torch_file, written

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support")
NAMES = sorted(
    {str(each).removeprefix("torch.") for each in vars(torch).values() if type(each) is torch.dtype}
)
QUANTISED = {"qint8", "qint32", "quint8", "quint4x2", "quint2x4"}
# torch 2.13 has them, and its save says "dtype torch.uint1 is not recognized".
NOT_SAVED = {f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)}
NOT_IN_SAFETENSORS = sorted(name for name in DTYPES if DTYPES[name].safetensors is None)
IN_SAFETENSORS = sorted(set(DTYPES) - set(NOT_IN_SAFETENSORS))


def tensor(name: str) -> torch.Tensor:
    """48 different bytes in three rows; of bool 0 and 1."""
    data = torch.arange(3, 51, dtype=torch.uint8)
    data = data % 2 if name == "bool" else data * 5
    return data.reshape(3, 16).view(getattr(torch, name))


def bits(tensor: torch.Tensor) -> tuple[str, tuple[int, ...], bytes]:
    name = str(tensor.dtype).removeprefix("torch.")
    data = bytes(tensor.contiguous().view(torch.uint8).flatten().tolist())
    return name, tuple(tensor.shape), data


def converted(data: bytes, suffix: str) -> bytes:
    """The same tensors in a new file."""
    checkpoint = opened(data)
    layout = format_for(Path(f"x{suffix}")).lay_out(checkpoint.entries, name="x")
    return written(layout, checkpoint)


def read_by_library(data: bytes, tmp_path: Path) -> dict[str, torch.Tensor]:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def test_every_dtype_of_torch_is_in_the_table_or_known_to_be_refused() -> None:
    assert set(NAMES) == set(DTYPES) | QUANTISED | NOT_SAVED
    assert not set(DTYPES) & (QUANTISED | NOT_SAVED)


@pytest.mark.parametrize("name", sorted(DTYPES))
def test_itemsize_is_what_torch_says(name: str) -> None:
    assert itemsize(name) == getattr(torch, name).itemsize


@pytest.mark.parametrize("name", sorted(QUANTISED | NOT_SAVED))
def test_fault_15_itemsize_of_another_dtype_is_refused_by_name(name: str) -> None:
    with pytest.raises(FormatError, match=f"ckpt cannot read dtype {name} yet"):
        itemsize(name)


@pytest.mark.parametrize("name", sorted(NOT_SAVED))
def test_fault_15_dtype_that_torch_cannot_save_is_refused_by_name(name: str) -> None:
    with pytest.raises(KeyError, match="not recognized"):
        saved({"a": tensor(name)})
    pickle = pickle_state_dict([TensorEntry("a", "bits8", (48,))], ["0"])
    data = torch_file(pickle.replace(b"\nbits8\n", f"\n{name}\n".encode()), {"0": bytes(48)})
    with pytest.raises(FormatError, match=f"a: ckpt cannot read dtype {name} yet"):
        opened(data)


@pytest.mark.parametrize("name", sorted(DTYPES))
def test_fault_15_what_torch_saves_is_read_as_torch_does(name: str) -> None:
    data = saved({"a": tensor(name)})
    assert contents(opened(data)) == {"a": bits(loaded(data)["a"])} == {"a": bits(tensor(name))}


@pytest.mark.parametrize("name", sorted(QUANTISED))
def test_fault_15_quantised_tensor_is_refused_by_name(name: str) -> None:
    data = saved({"a": tensor(name)})
    with pytest.raises(FormatError, match=f"(?i)a: .*{name}") as refused:
        opened(data)
    assert refused.value.exit_code == 3


@pytest.mark.parametrize("name", sorted(DTYPES))
def test_fault_15_written_pt_is_loaded_by_torch(name: str) -> None:
    # What the dtype of the source is called makes no difference to the bytes.
    source = opened(saved({"a": tensor("uint8")}))
    shape = (3, 16 // itemsize(name))
    entry = TensorEntry("a", name, shape, source.entries[0].offset)
    data = written(format_for(Path("x.pt")).lay_out([entry], name="x"), source)
    found = loaded(data)["a"]
    assert bits(found) == (name, shape, bits(tensor("uint8"))[2])
    assert contents(opened(data)) == {"a": bits(found)}


@pytest.mark.parametrize("name", IN_SAFETENSORS)
def test_fault_15_safetensors_of_the_library_and_ours_are_the_same(
    name: str, tmp_path: Path
) -> None:
    theirs = library_save({"a": tensor(name)}, {"format": "pt"})
    assert contents(opened(theirs)) == {"a": bits(tensor(name))}
    ours = converted(saved({"a": tensor(name)}), ".safetensors")
    assert ours == theirs
    assert bits(read_by_library(ours, tmp_path)["a"]) == bits(tensor(name))


@pytest.mark.parametrize("name", IN_SAFETENSORS)
def test_fault_15_round_trip_through_both_containers(name: str) -> None:
    there = converted(library_save({"a": tensor(name)}), ".pt")
    assert bits(loaded(there)["a"]) == bits(tensor(name))
    assert contents(opened(converted(there, ".safetensors"))) == {"a": bits(tensor(name))}


@pytest.mark.parametrize("name", NOT_IN_SAFETENSORS)
def test_fault_15_dtype_that_safetensors_lacks_is_refused_by_name(name: str) -> None:
    with pytest.raises(KeyError, match=name):
        library_save({"a": tensor(name)})
    with pytest.raises(FormatError, match=f"a: safetensors cannot hold {name}") as refused:
        converted(saved({"a": tensor(name)}), ".safetensors")
    assert refused.value.hint == "write a .pt file instead"


def test_fault_15_four_bit_floats_are_counted_by_two() -> None:
    data = converted(saved({"a": tensor("float4_e2m1fn_x2")}), ".safetensors")
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["a"] == {"dtype": "F4", "shape": [3, 32], "data_offsets": [0, 48]}
    assert opened(data).entries[0].shape == (3, 16)


def test_fault_15_four_bit_float_without_a_dimension_is_refused() -> None:
    out = io.BytesIO()
    scalar = torch.tensor(7, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    torch.save({"a": scalar}, out)
    with pytest.raises(FormatError, match="cannot hold float4_e2m1fn_x2 without dimensions"):
        converted(out.getvalue(), ".safetensors")


@pytest.mark.parametrize("shape", [[], [3], [2, 3], [0, 3]], ids=str)
def test_fault_15_odd_number_of_four_bit_floats_is_refused(
    shape: list[int], tmp_path: Path
) -> None:
    nbytes = (torch.Size(shape).numel() + 1) // 2
    fields = {"dtype": "F4", "shape": shape, "data_offsets": [0, nbytes]}
    header = json.dumps({"a": fields}).encode()
    data = len(header).to_bytes(8, "little") + header + bytes(nbytes)
    with pytest.raises(Exception, match=r"last dim|byte boundary"):
        read_by_library(data, tmp_path)
    with pytest.raises(FormatError, match="a: F4 of shape"):
        opened(data)


@pytest.mark.parametrize("name", ["F6_E2M3", "F6_E3M2"])
def test_fault_15_dtype_of_safetensors_that_torch_lacks_is_refused_by_name(
    name: str, tmp_path: Path
) -> None:
    fields = {"dtype": name, "shape": [4], "data_offsets": [0, 3]}
    header = json.dumps({"a": fields}).encode()
    data = len(header).to_bytes(8, "little") + header + bytes(3)
    with pytest.raises(Exception, match=name):
        read_by_library(data, tmp_path)
    with pytest.raises(FormatError, match=f"a: unknown dtype '{name}'"):
        opened(data)
