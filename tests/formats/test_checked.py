"""Damage that a container's own checksums tell of is not handed on to what has none."""

from pathlib import Path

import pytest
import torch

import ckpt
from ckpt.errors import FormatError, IntegrityError
from ckpt.rules.document import read_rules
from tests.cli.support import tree

WHOLE = torch.arange(2_000_000.0)
STATE = {
    "plain": torch.arange(1000.0),
    "view": WHOLE[5:1000],
    "turned": torch.arange(6000.0).reshape(60, 100).t(),
    "other": torch.ones(3),
}


def damaged(folder: Path, key: str) -> Path:
    """A file with one flipped bit in the record of a tensor."""
    path = folder / f"{key}.pt"
    torch.save({"model": STATE, "beside": [torch.full((500,), 7.0)]}, path)
    offset = {"beside": path.read_bytes().index(torch.full((2,), 7.0).numpy().tobytes())}
    with ckpt.open(f"{path}::model") as lazy:
        offset |= {entry.key: entry.offset for entry in lazy.entries if entry.offset}
    data = bytearray(path.read_bytes())
    data[offset[key] + 8] ^= 1
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("key", ["plain", "view", "turned"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_fault_08_damaged_tensor_is_not_converted(tmp_path: Path, key: str, suffix: str) -> None:
    path, out = damaged(tmp_path, key), tmp_path / f"out{suffix}"
    with pytest.raises(FormatError, match=f"{key}.* is damaged: its CRC-32 is"):
        ckpt.export(f"{path}::model", out)
    assert not out.exists()


def test_damage_beside_the_state_dict_does_not_hinder_its_export(tmp_path: Path) -> None:
    ckpt.export(f"{damaged(tmp_path, 'beside')}::model", tmp_path / "out.safetensors")


@pytest.mark.parametrize("key", ["plain", "view", "turned", "beside"])
def test_fault_08_damaged_file_is_not_registered(tmp_path: Path, key: str) -> None:
    path = damaged(tmp_path, key)
    before = tree(tmp_path)
    with pytest.raises(FormatError, match="is damaged: its CRC-32 is"):
        ckpt.register(f"{path}::model", registry=ckpt.Registry(tmp_path))
    assert {k: v for k, v in tree(tmp_path).items() if not k.startswith(".ckpt/objects")} == before


def test_fault_08_damaged_tensor_goes_into_no_operation(tmp_path: Path) -> None:
    path = damaged(tmp_path, "plain")
    rules = read_rules([{"reshape": "plain", "shape": [10, 100]}], name="r")
    with pytest.raises(FormatError, match=r"plain.* is damaged"):
        ckpt.rename(f"{path}::model", rules, out=tmp_path / "out.pt")
    rules = read_rules([{"reshape": "other", "shape": [3, 1]}, {"drop": "plain"}], name="r")
    ckpt.rename(f"{path}::model", rules, out=tmp_path / "out.pt")
    assert torch.load(tmp_path / "out.pt")["model"]["other"].shape == (3, 1)


def test_rename_of_the_container_keeps_the_sums_that_tell(tmp_path: Path) -> None:
    path = damaged(tmp_path, "plain")
    ckpt.rename(f"{path}::model", ["plain->p"], out=tmp_path / "out.pt")
    from ckpt.ops.show import show

    with pytest.raises((FormatError, IntegrityError), match=r"p: .* is damaged"):
        show(f"{tmp_path / 'out.pt'}::model", deep=True)
