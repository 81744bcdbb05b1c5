"""Folders that four processes have saved, whose tensors are in chunks; torch loads the renamed."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp

from tests.effort import PATIENCE
from tests.formats.distributed.save_distributed import whole
from tests.formats.distributed.test_folder import read, renamed
from tests.formats.support import expected

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that four processes have saved."""
    root = tmp_path_factory.mktemp("four")
    script = Path(__file__).with_name("save_distributed.py")
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}  # noqa: PTH109
    saved = subprocess.run(
        [sys.executable, script, root / "out", root / "meeting"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert saved.returncode == 0, saved.stderr
    return root / "out"


def test_tensors_cut_by_four_processes_are_whole_again(four: Path) -> None:
    assert len(list(four.glob("*.distcp"))) > 1
    assert read(four, "model") == expected(whole())


def test_renamed_to_the_same_keys_is_the_same_folder(four: Path, tmp_path: Path) -> None:
    again = renamed(four, {}, tmp_path / "again")
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {
        path.name: path.read_bytes() for path in four.iterdir()
    }


def test_torch_loads_what_was_renamed(four: Path, tmp_path: Path) -> None:
    """By its own reader, whole and in place: keys, offsets and nested paths have all moved."""
    new = {f"model.{key}": f"net.block.{key}" for key in whole()}
    out = renamed(four, new, tmp_path / "out")
    wanted = {key: torch.zeros_like(tensor) for key, tensor in whole().items()}
    into = {"net": {f"block.{key}": tensor for key, tensor in wanted.items()}, "epoch": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(into, checkpoint_id=out)
        from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

        dcp_to_torch_save(out, tmp_path / "one.pt")
    assert expected(wanted) == expected(whole())
    assert into["epoch"] == 3
    nested = torch.load(tmp_path / "one.pt", weights_only=True)
    assert expected({k.removeprefix("block."): t for k, t in nested["net"].items()}) == expected(
        whole()
    )
