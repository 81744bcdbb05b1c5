"""Files that are named like one part of a distributed save."""

from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint._hf_utils import _gen_file_name

from ckpt.formats.folders import shard_of
from tests.cli.support import Run


@pytest.mark.parametrize(
    ("name", "beside", "what"),
    [
        ("model-00001-of-00003.safetensors", (), "shard 1 of 3"),
        ("pytorch_model-00002-of-00002.bin", (), "shard 2 of 2"),
        ("model-00001-of-00001.safetensors", (), None),
        ("zero_pp_rank_0_mp_rank_00_optim_states.pt", (), "a shard"),
        ("bf16_zero_pp_rank_3_mp_rank_00_optim_states.pt", (), "a shard"),
        ("mp_rank_00_model_states.pt", (), None),
        ("mp_rank_00_model_states.pt", ("mp_rank_01_model_states.pt",), "a shard"),
        ("mp_rank_01_model_states.pt", (), "a shard"),
        ("model-00001-of-00000.safetensors", (), None),
        ("consolidated.00.pth", (), None),
        ("consolidated.01.pth", (), "a shard"),
        ("consolidated.00.pth", ("consolidated.01.pth",), "a shard"),
        (_gen_file_name(1, 1, 0), (), None),
        (_gen_file_name(1, 1, 1), (), None),
        (_gen_file_name(1, 1, 1), (_gen_file_name(1, 1, 2),), "a shard"),
        (_gen_file_name(1, 1, 2), (), "a shard"),
        ("net.pt", (), None),
    ],
)
def test_shard_is_known_by_its_name(
    tmp_path: Path, name: str, beside: tuple[str, ...], what: str | None
) -> None:
    for each in (name, *beside):
        (tmp_path / each).touch()
    assert shard_of(tmp_path / name) == what


def test_commands_call_a_shard_one(ckpt: Run, folder: Path) -> None:
    name = "pytorch_model-00001-of-00002.bin"
    torch.save({"a.w": torch.ones(2)}, folder / name)
    said = f"{name}: shard 1 of 2, not the whole model"
    for command in (("show", name), ("diff", name, name), ("register", name, "--name", "m")):
        assert said in ckpt(*command).err
    assert said in ckpt("rename", name, "--rule", "a=b", "--dry-run").err
    ran = ckpt("rename", name, "--rule", "none=b")
    assert (ran.code, said in ran.err) == (3, True), "an error, too"
    assert "shard" not in ckpt("show", "m:v1").err
