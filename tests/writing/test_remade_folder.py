"""Folders of torch.distributed.checkpoint in which rules make tensors; torch loads the result."""

import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

import ckpt
from ckpt.formats.distributed import rewritten
from ckpt.ops.rename.rule_files import read_rule_file

RULES = """
[[rules]]
transpose = '^(turned|pair|column)'
[[rules]]
concat = ['^one', '^two']
into = 'both'
[[rules]]
duplicate = '^kept'
into = ['kept', 'again']
[[rules]]
reshape = '^empty'
shape = [3, 0]
[[rules]]
reshape = '^scalar'
shape = []
"""


@pytest.mark.parametrize("most", [None, 1, 30, 64, 140], ids=lambda it: f"chunks of {it}")
def test_new_tensors_are_loaded_by_torch(
    most: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the size of the chunks, of which each rank reads some."""
    if most is not None:
        monkeypatch.setattr(rewritten, "MOST_BYTES", most)
    torch.manual_seed(0)
    old = {
        "turned": torch.randn(5, 7),
        "pair": torch.randn(9, 2),
        "column": torch.randn(1, 7),
        "one": torch.randn(2, 3),
        "two": torch.randn(4, 3),
        "kept": torch.randn(3).bfloat16(),
        "empty": torch.zeros(0, 2),
        "scalar": torch.tensor([2.5]),
    }
    (tmp_path / "r.toml").write_text(RULES)
    new = {
        "turned": old["turned"].t(),
        "pair": old["pair"].t(),
        "column": old["column"].t(),
        "both": torch.cat([old["one"], old["two"]]),
        "kept": old["kept"],
        "again": old["kept"],
        "empty": torch.zeros(3, 0),
        "scalar": torch.tensor(2.5),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, that nothing is distributed here
        dcp.save({"model": old, "step": 7}, checkpoint_id=tmp_path / "run")
        source = f"{tmp_path / 'run'}::model"
        ckpt.rename(source, read_rule_file(tmp_path / "r.toml").rules, out=tmp_path / "new")
        found = {"model": {key: torch.full_like(it, -1) for key, it in new.items()}, "step": 0}
        dcp.load(found, checkpoint_id=tmp_path / "new")
    assert found["step"] == 7
    for key, it in new.items():
        assert torch.equal(found["model"][key], it), key
    metadata = dcp.FileSystemReader(tmp_path / "new").read_metadata()
    counts = {
        key: len(metadata.state_dict_metadata[f"model.{key}"].chunks)
        for key in ("turned", "pair", "column")
    }
    assert (
        counts
        == {
            None: {"turned": 1, "pair": 1, "column": 1},
            1: {"turned": 7, "pair": 2, "column": 7},
            30: {"turned": 7, "pair": 2, "column": 1},
            64: {"turned": 3, "pair": 2, "column": 1},
            140: {"turned": 1, "pair": 1, "column": 1},
        }[most]
    )
    places = {it.fqn: place.relative_path for it, place in metadata.storage_data.items()}
    assert places["model.kept"] == "__0_0.distcp", "where it was"
    assert places["model.again"] == places["model.both"] != "__0_0.distcp"
    dcp_to_torch_save(tmp_path / "new", tmp_path / "one.pt")
    nested = torch.load(tmp_path / "one.pt", weights_only=True)
    assert nested["model"].keys() == new.keys(), "paths are noted as well"
