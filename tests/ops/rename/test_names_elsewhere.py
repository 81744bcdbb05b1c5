"""Names of tensors outside of the keys follow a rename, or are named: metadata, lists, configs.

The oracles are the libraries that wrote the names: they load the result.
"""

import json
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from safetensors.torch import save_file
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter

import ckpt
from ckpt.rules.document import read_rules
from tests.effort import PATIENCE

# Written by `flatten_tensor_state_dict` of torchao 0.18.
FLOAT8 = json.dumps({
    "_type": "Float8Tensor",
    "_data": {
        "block_size": [1, 64], "mm_config": None, "act_quant_kwargs": None,
        "kernel_preference": {"_type": "KernelPreference", "_data": "AUTO"},
        "dtype": {"_type": "torch.dtype", "_data": "float32"},
    },
    "_tensor_data_names": ["qdata", "scale"],
})  # fmt: skip
PLAIN = '{"_type": "Tensor"}'
PARTS = {
    "enc.q._weight_qdata": torch.zeros(64, 64, dtype=torch.float8_e4m3fn),
    "enc.q._weight_scale": torch.ones(64, 1),
    "enc.q.bias": torch.ones(64),
}
UNFLATTEN = """
import sys
from safetensors import safe_open
from torchao.prototype.safetensors.safetensors_support import unflatten_tensor_state_dict
with safe_open(sys.argv[1], "pt") as file:
    tensors = {key: file.get_tensor(key) for key in file.keys()}
    found, left = unflatten_tensor_state_dict(tensors, file.metadata())
assert not left
print(*(f"{key}={type(tensor).__name__}" for key, tensor in found.items()))
"""
STATE = {key: torch.ones(2, 2) for key in ("enc.q.weight", "enc.q.bias", "head.weight")}
RULE = ["enc->encoder"]


@pytest.fixture
def quantized(tmp_path: Path) -> Path:
    """A file with the metadata that torchao writes."""
    path = tmp_path / "q.safetensors"
    names = {"enc.q.weight": FLOAT8, "enc.q.bias": PLAIN}
    metadata = {**names, "tensor_names": json.dumps([*names]), "note": "enc.q.weight is split"}
    save_file(PARTS, path, metadata=metadata)
    return path


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


@pytest.mark.parametrize(
    ("rules", "weight", "bias"),
    [
        (["enc.q->layer.query"], "layer.query.weight", "layer.query.bias"),
        (["_weight_->_w_"], "enc.q.w", "enc.q.bias"),
        (["bias->b"], "enc.q.weight", "enc.q.b"),
    ],
    ids=["module", "last word", "whole tensor"],
)
def test_torchao_names_follow(quantized: Path, rules: list[str], weight: str, bias: str) -> None:
    out = quantized.with_name("out.safetensors")
    renamed = ckpt.rename(quantized, rules, out=out)
    assert renamed.written
    assert renamed.written.also_named == ("__metadata__",)
    found = metadata_of(out)
    assert json.loads(found["tensor_names"]) == [weight, bias]
    assert (found[weight], found[bias]) == (FLOAT8, PLAIN)
    assert set(found) == {weight, bias, "tensor_names", "note"}


def test_torchao_names_follow_where_tensors_are_made(quantized: Path) -> None:
    out = quantized.with_name("out.safetensors")
    document = [{"rename": RULE[0]}, {"cast": "bias", "dtype": "float16"}]
    rules = read_rules(document, name="rules")
    ckpt.rename(quantized, rules, out=out)
    assert json.loads(metadata_of(out)["tensor_names"])[0] == "encoder.q.weight"


def test_torchao_name_whose_parts_go_apart_is_named(quantized: Path) -> None:
    out = quantized.with_name("out.safetensors")
    renamed = ckpt.rename(quantized, ["enc.q._weight_scale->enc.s"], out=out)
    assert renamed.mentions == ("__metadata__ (enc.q._weight_scale)",)
    assert json.loads(metadata_of(out)["tensor_names"])[0] == "enc.q.weight"


def test_torchao_name_of_which_nothing_is_left_is_named(tmp_path: Path) -> None:
    described = json.dumps({"_tensor_data_names": ["ab", "cd"]})
    parts = {"q._weight_ab": torch.ones(2), "q._weight_cd": torch.ones(2)}
    metadata = {"q.weight": described, "tensor_names": json.dumps(["q.weight"])}
    save_file(parts, tmp_path / "q.safetensors", metadata=metadata)
    out = tmp_path / "out.safetensors"
    ckpt.rename(tmp_path / "q.safetensors", ["_weight_->_"], out=out)
    assert json.loads(metadata_of(out)["tensor_names"]) == ["q.weight"]


@pytest.mark.long
@pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
def test_torchao_loads_a_renamed_file(quantized: Path) -> None:
    out = quantized.with_name("out.safetensors")
    ckpt.rename(quantized, RULE, out=out)
    command = [sys.executable, "-W", "ignore", "-c", UNFLATTEN, str(out)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert ran.stdout.split() == ["encoder.q.weight=Float8Tensor", "encoder.q.bias=Tensor"]


@pytest.mark.filterwarnings("ignore")
def test_distributed_reader_finds_renamed_keys(tmp_path: Path) -> None:
    """Without its name in DCP_SHARDING_INFO, torch's reader fails on a key."""
    state = {"fc.weight": torch.arange(12.0).reshape(3, 4), "fc.bias": torch.ones(3)}
    writer = HuggingFaceStorageWriter(str(tmp_path / "old"), save_distributed=True)
    dcp.save(state, storage_writer=writer, no_dist=True)
    (file,) = (tmp_path / "old").glob("*.safetensors")
    (tmp_path / "new").mkdir()
    ckpt.rename(file, ["fc->head"], out=tmp_path / "new" / file.name)
    loaded = {key.replace("fc", "head"): torch.zeros_like(it) for key, it in state.items()}
    reader = HuggingFaceStorageReader(str(tmp_path / "new"))
    dcp.load(loaded, storage_reader=reader, no_dist=True)
    assert all(loaded[key.replace("fc", "head")].equal(it) for key, it in state.items())


def deepspeed() -> dict[str, Any]:
    """As `save_checkpoint` of DeepSpeed lays out the states of a model."""
    return {
        "module": OrderedDict(STATE),
        "buffer_names": ["enc.q.bias"],
        "param_shapes": [OrderedDict((key, it.shape) for key, it in STATE.items())],
        "shared_params": {"head.weight": "enc.q.weight"},
        "skipped_steps": 0,
    }


def test_lists_of_keys_follow(tmp_path: Path) -> None:
    old, new = tmp_path / "mp_rank_00_model_states.pt", tmp_path / "new.pt"
    torch.save(deepspeed(), old)
    renamed = ckpt.rename(old, RULE, out=new)
    assert renamed.written
    assert renamed.written.also_named == ("buffer_names", "param_shapes.0", "shared_params")
    found = torch.load(new, weights_only=True)
    keys = ["encoder.q.weight", "encoder.q.bias", "head.weight"]
    assert [*found["module"]] == [*found["param_shapes"][0]] == keys
    assert found["param_shapes"][0]["head.weight"] == torch.Size([2, 2])
    assert found["buffer_names"] == ["encoder.q.bias"]
    assert found["shared_params"] == {"head.weight": "encoder.q.weight"}
    one = ckpt.rename(f"{old}::module", RULE, dry_run=True)
    assert one.left_behind == ("buffer_names", "param_shapes.0", "shared_params")


def as_torch(rest: dict[str, Any]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        torch.save({"state_dict": STATE, **rest}, folder / "a.pt")
        return folder / "a.pt"

    return write


def as_safetensors(metadata: dict[str, str]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        save_file(STATE, folder / "a.safetensors", metadata=metadata)
        return folder / "a.safetensors"

    return write


@pytest.mark.parametrize(
    ("write", "rule", "said"),
    [
        (as_torch({"args": {"frozen": ["enc.q", "x"]}}), "enc->e", ("args (enc.q)",)),
        (as_torch({"args": {"lr": {"enc.q.bias": 0.1, "b": 1}}}), "enc->e", ("args (enc.q.bias)",)),
        (as_torch({"args": {"frozen": ["head.weight"]}}), "enc->e", ()),
        (as_torch({"enc": 3, "args": {"encoder": 1}}), "enc->e", ()),
        (as_torch({"args": {"enc": 4}}), r"^enc\.(.*)->\1", ()),
        (as_safetensors({"config": '{"targets": ["enc.q"]}'}), "enc->e", ("__metadata__ (enc.q)",)),
        (as_safetensors({"enc.q": "int8"}), "enc->e", ("__metadata__ (enc.q)",)),
        (as_safetensors({"format": "pt", "config": '["head"]'}), "enc->e", ()),
    ],
    ids=["module in a list", "one key of a dict", "another key", "a key of the root, another word",
         "a prefix", "JSON", "name in metadata", "another module"],
)  # fmt: skip
def test_what_stays_is_named(
    tmp_path: Path, write: Callable[[Path], Path], rule: str, said: tuple[str, ...]
) -> None:
    assert ckpt.rename(write(tmp_path), [rule], dry_run=True).mentions == said


@pytest.mark.parametrize("output", [{"in_place": True}, {}], ids=["in place", "beside"])
def test_index_and_config_beside_are_named(tmp_path: Path, output: dict[str, Any]) -> None:
    path = tmp_path / "model-00001-of-00002.safetensors"
    save_file(STATE, path)
    index = {"weight_map": dict.fromkeys(STATE, path.name)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text('{"modules_to_not_convert": ["enc.q"]}')
    (tmp_path / "words.json").write_text('["enc.q"]')
    names = ["config.json (enc.q)", "model.safetensors.index.json (enc.q.bias, enc.q.weight)"]
    (tmp_path / "sub").mkdir()
    assert ckpt.rename(path, RULE, out=tmp_path / "sub" / "b.safetensors").mentions == ()
    assert [*ckpt.rename(path, RULE, **output).mentions] == names
