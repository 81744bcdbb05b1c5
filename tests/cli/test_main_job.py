"""The main job, typed at a prompt: a file that no longer loads, and a version likewise."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ckpt as api
from ckpt.definitions import find_definition
from tests.cli.support import Run, tree, weights

EMBED = "ckpt.models.mnist_embed:Net"
CNN = "ckpt.models.mnist_cnn:Net"


def embedded(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.replace("conv", "embed"): value for key, value in state_dict.items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Equal keys and values; safetensors' own reader does not keep the order."""
    return equal(dict(sorted(one.items())), dict(sorted(other.items())))


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


def test_diff_with_a_definition_answers_first_and_ends_with_the_command(
    ckpt: Run, old: Path
) -> None:
    ran = ckpt("diff", "old.pt", EMBED)
    assert ran.code == 0
    assert (
        ran.out
        == f"""\
old.pt does not fit {EMBED}

  only in old.pt    only in Net    shape      match
  ----------------  -------------  ---------  -------
  conv1.weight      embed1.weight  32 1 3 3   certain
  conv1.bias        embed1.bias    32         certain
  conv2.weight      embed2.weight  64 32 3 3  certain
  conv2.bias        embed2.bias    64         certain

  4 keys agree · 4 missing · 4 unexpected

To make it fit:  ckpt rename old.pt --rule 'conv->embed' --check {EMBED}
"""
    )


@pytest.mark.parametrize("rule", ["conv->embed", "conv=embed"])
def test_rename_writes_a_new_file_that_loads(ckpt: Run, old: Path, rule: str) -> None:
    before = old.read_bytes()
    ran = ckpt("rename", "old.pt", "--rule", rule, "--check", EMBED)
    assert ran.code == 0
    assert ran.out.startswith("  conv1.weight  ->  embed1.weight\n")
    assert f"4 keys renamed, 4 kept · fits {EMBED}\n\nwrote old.renamed.pt  2.4 MB\n" in ran.out
    loaded = torch.load("old.renamed.pt", weights_only=True)
    assert equal(loaded, embedded(weights()))
    find_definition(EMBED).build().load_state_dict(loaded, strict=True)
    assert old.read_bytes() == before


def test_rename_keeps_safetensors_what_they_are(ckpt: Run, folder: Path) -> None:
    save_file(weights(), folder / "old.safetensors", metadata={"made": "here"})
    assert ckpt("rename", "old.safetensors", "--rule", "conv=embed").code == 0
    again = load_file(folder / "old.renamed.safetensors")
    assert same(again, embedded(weights()))
    assert ckpt("show", "old.renamed.safetensors", "--json").data["rest"] == {"made": "here"}


def test_rename_by_a_map_swaps(ckpt: Run, old: Path, folder: Path) -> None:
    (folder / "swap.json").write_text(
        json.dumps({"conv1.bias": "fc1.bias", "fc1.bias": "conv1.bias"})
    )
    (folder / "names.toml").write_text('conv2 = "embed2"\n')
    assert ckpt("rename", "old.pt", "--map", "swap.json", "--map", "names.toml").code == 0
    loaded = torch.load("old.renamed.pt", weights_only=True)
    assert torch.equal(loaded["fc1.bias"], weights()["conv1.bias"])
    assert torch.equal(loaded["conv1.bias"], weights()["fc1.bias"])
    assert "embed2.weight" in loaded


def test_rename_converts_where_the_suffix_says_so(ckpt: Run, old: Path) -> None:
    assert ckpt("rename", "old.pt", "--rule", "conv=embed", "-o", "new.safetensors").code == 0
    assert same(load_file("new.safetensors"), embedded(weights()))


def test_dry_run_shows_the_plan_and_writes_nothing(ckpt: Run, old: Path, folder: Path) -> None:
    before = tree(folder)
    ran = ckpt("rename", "old.pt", "--rule", "conv=embed", "--dry-run")
    assert ran.code == 0
    assert "4 keys renamed, 4 kept" in ran.out
    assert tree(folder) == before


def test_wrong_spelling_is_caught_with_the_rule_that_is_right(
    ckpt: Run, old: Path, folder: Path
) -> None:
    """The seed of the tool: conv replaced by one spelling, the class spells it in another."""
    (folder / "net.py").write_text(
        "from torch import nn\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.embded_1 = nn.Conv2d(1, 32, 3)\n"
        "        self.embded_2 = nn.Conv2d(32, 64, 3)\n"
        "        self.fc1 = nn.Linear(9216, 64)\n"
        "        self.fc2 = nn.Linear(64, 10)\n"
    )
    before = tree(folder)
    ran = ckpt("rename", "old.pt", "--rule", "conv->embbed", "--check", "net.py:Net")
    assert ran.code == 3
    assert ran.out == ""
    assert "conv1.weight" in ran.err.partition("error: ")[0], "the plan"
    assert ran.err.endswith(
        "error: the result would not fit net.py:Net: 4 missing (embded_1.weight, embded_1.bias, …)"
        ", 4 unexpected (embbed1.weight, embbed1.bias, …)\n"
        "hint:  this would fit:  --rule 'conv->embded_'\n"
    )
    assert {name: data for name, data in tree(folder).items() if ".pyc" not in name} == before
    assert ckpt("rename", "old.pt", "--rule", "conv->embded_", "--check", "net.py:Net").code == 0


def test_version_is_registered_renamed_and_compared(ckpt: Run, old: Path, folder: Path) -> None:
    ran = ckpt("register", "old.pt", "--name", "mnist-cnn", "--metric", "accuracy=0.9921")
    assert ran.code == 0
    assert ran.out.startswith("registered mnist-cnn:v1  sha256:")
    assert "created a registry" in ran.err
    objects = sorted((folder / ".ckpt" / "objects").rglob("*"))

    ran = ckpt("rename", "v1", "--rule", "conv=embed", "--check", EMBED)
    assert ran.code == 0
    assert "registered mnist-cnn:v2" in ran.out
    assert re.search(r" \d+\.\d kB new", ran.out)
    assert sorted((folder / ".ckpt" / "objects").rglob("*")) == objects

    ran = ckpt("diff", "v1", "v2")
    assert ran.out == (
        "mnist-cnn:v1 -> mnist-cnn:v2\n"
        "  renamed   conv{1,2}.{weight,bias}  ->  embed{1,2}.{weight,bias}"
        "   4 keys, same bytes\n"
        "  same      4 keys\n"
    )
    assert [row["metrics"] for row in ckpt("ls", "--json").data] == [{"accuracy": 0.9921}] * 2
    assert equal(api.load("mnist-cnn:v2"), embedded(weights()))
    assert "4 keys renamed by 'conv=embed'" in ckpt("log", "v2").out


def test_rename_of_a_version_adds_little(ckpt: Run, old: Path, folder: Path) -> None:
    ckpt("register", "old.pt", "--name", "mnist-cnn")
    before = tree(folder)
    ckpt("rename", "v1", "--rule", "conv=embed")
    after = tree(folder)
    grown = sum(map(len, after.values())) - sum(map(len, before.values()))
    assert grown < 16_384
    new = [name for name in after if name not in before]
    assert len(new) == 1
    assert new[0].startswith(".ckpt/manifests/")


@pytest.mark.parametrize("name", ["old.pt", "old.safetensors"])
def test_export_gives_the_registered_file_back(ckpt: Run, folder: Path, name: str) -> None:
    if name.endswith(".pt"):
        torch.save(weights(), folder / name)
    else:
        save_file(weights(), folder / name)
    ckpt("register", name)
    assert ckpt("export", "v1", "-o", "x" + Path(name).suffix).code == 0
    assert (folder / ("x" + Path(name).suffix)).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_export_of_a_rename_in_every_container(ckpt: Run, old: Path, suffix: str) -> None:
    ckpt("register", "old.pt")
    ckpt("rename", "v1", "--rule", "conv=embed")
    assert ckpt("export", "v2", "-o", f"new{suffix}").code == 0
    path = f"new{suffix}"
    loaded = load_file(path) if suffix == ".safetensors" else torch.load(path, weights_only=True)
    assert same(loaded, embedded(weights()))


def test_same_tensors_in_another_container_are_the_same_objects(
    ckpt: Run, old: Path, folder: Path
) -> None:
    save_file(weights(), folder / "same.safetensors")
    ckpt("register", "old.pt", "--name", "m")
    ran = ckpt("register", "same.safetensors", "--name", "m", "--json")
    assert ran.data["new"]
    assert 0 < ran.data["new_bytes"] < 20_000, "the manifest alone"
    assert "no difference" in ckpt("diff", "v1", "v2").out


def test_same_bytes_again_add_nothing(ckpt: Run, old: Path, folder: Path) -> None:
    ckpt("register", "old.pt")
    ckpt("rename", "v1", "--rule", "conv=embed")
    before = tree(folder)
    assert "already registered as old:v1" in ckpt("register", "old.pt").out
    assert "already registered as old:v2" in ckpt("rename", "v1", "--rule", "conv=embed").out
    assert tree(folder) == before


def test_diff_of_files_reads_their_values(ckpt: Run, old: Path, folder: Path) -> None:
    changed = embedded(weights())
    changed["fc1.bias"] = changed["fc1.bias"] + 1
    del changed["fc2.bias"]
    changed["head.bias"] = torch.zeros(3)
    torch.save(changed, folder / "new.pt")
    ran = ckpt("diff", "old.pt", "new.pt", "--exit-code")
    assert ran.code == 1
    assert ran.out == (
        "old.pt -> new.pt\n"
        "  removed   fc2.bias   10  float32\n"
        "  added     head.bias   3  float32\n"
        "  renamed   conv{1,2}.{weight,bias}  ->  embed{1,2}.{weight,bias}"
        "   4 keys, same bytes\n"
        "  changed   fc1.bias   values differ\n"
        "  same      2 keys\n"
    )
    keys = ckpt("diff", "old.pt", "old.pt", "--keys").out
    assert "not compared: 4.9 MB of values; --values reads them" in keys
    assert ckpt("diff", "old.pt", "old.pt", "--exit-code").code == 0


def test_diff_of_two_definitions(ckpt: Run) -> None:
    ran = ckpt("diff", CNN, EMBED)
    assert ran.code == 0
    assert f"{CNN} does not fit {EMBED}" in ran.out


def test_verify_finds_a_flipped_bit_and_names_whom_it_hurts(
    ckpt: Run, old: Path, folder: Path
) -> None:
    ckpt("register", "old.pt", "--name", "mnist-cnn")
    ckpt("rename", "v1", "--rule", "conv=embed")
    ran = ckpt("verify")
    assert ran.code == 0
    assert "2 objects, 2 manifests, registry.json: all good" in ran.out
    largest = max((folder / ".ckpt" / "objects").rglob("*"), key=lambda path: path.stat().st_size)
    largest.chmod(0o644)
    data = bytearray(largest.read_bytes())
    data[1000] ^= 1
    largest.write_bytes(data)
    ran = ckpt("verify")
    assert ran.code == 4
    assert "used by mnist-cnn:v1 fc1.weight" in ran.out
    assert "used by mnist-cnn:v2 fc1.weight" in ran.out
    ran = ckpt("export", "v1", "-o", "x.pt")
    assert ran.code == 4
    assert "fc1.weight is damaged" in ran.err
    assert not (folder / "x.pt").exists()
    assert ckpt("diff", "v1", "v2").code == 0


def test_training_checkpoint_is_renamed_inside(ckpt: Run, folder: Path) -> None:
    state = {"model": weights(), "epoch": 3, "note": "conv is not a key here"}
    torch.save(state, folder / "run.pt")
    assert ckpt("rename", "run.pt::model", "--rule", "conv=embed", "--check", EMBED).code == 0
    loaded = torch.load("run.renamed.pt", weights_only=True)
    assert equal(loaded["model"], embedded(weights()))
    assert loaded["epoch"] == 3
    assert loaded["note"] == "conv is not a key here"


def test_renamed_version_can_be_a_file_and_registered(ckpt: Run, old: Path, folder: Path) -> None:
    ckpt("register", "old.pt", "--name", "mnist-cnn")
    ran = ckpt("rename", "v1", "--rule", "conv=embed", "-o", "new.pt", "--register")
    assert ran.code == 0
    assert "wrote new.pt" in ran.out
    assert "registered mnist-cnn:v2" in ran.out
    assert (folder / "new.pt").exists()
    assert ckpt("rename", "old.pt", "--rule", "fc=head", "--register", "--name", "m").code == 0
    assert ckpt("show", "m:v1", "--json").data["version"]["made_by"] == "rename of old.pt"


def test_views_ties_and_strides_survive_registering(ckpt: Run, folder: Path) -> None:
    base = torch.arange(24, dtype=torch.float32)
    state = {
        "whole": base,
        "tied": base,
        "part": base[4:8],
        "transposed": base.view(4, 6).t(),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(7, dtype=torch.bfloat16),
    }
    torch.save(state, folder / "odd.pt")
    assert ckpt("register", "odd.pt").code == 0
    assert ckpt("rename", "v1", "--rule", "part=piece").code == 0
    assert equal(api.load("v1"), state)
    assert torch.equal(api.load("v2")["piece"], base[4:8])
    assert ckpt("export", "v1", "-o", "x.pt").code == 0
    assert (folder / "x.pt").read_bytes() == (folder / "odd.pt").read_bytes()
    for ref in ("v1", "odd.pt"):
        assert ckpt("export", ref, "-o", "x.safetensors", "--force").code == 0
        stored = {key: tensor for key, tensor in state.items() if key != "tied"}
        assert same(load_file("x.safetensors"), stored)
        with safe_open("x.safetensors", "pt") as opened:
            assert opened.metadata()["tied"] == "whole"
    assert ckpt("verify").code == 0


def test_diff_folds_what_was_retyped_and_reshaped_alike(ckpt: Run, old: Path, folder: Path) -> None:
    other = {key: value.half() for key, value in weights().items()}
    other["fc2.weight"] = torch.zeros(12, 64, dtype=torch.float16)
    torch.save(other, folder / "half.pt")
    assert ckpt("diff", "old.pt", "half.pt").out == (
        "old.pt -> half.pt\n"
        "  reshaped  fc2.weight   10 64  ->  12 64\n"
        "  re-typed  conv{1,2}.{weight,bias}   4 keys, float32  ->  float16\n"
        "  re-typed  fc{1,2}.{weight,bias}   4 keys, float32  ->  float16\n"
    )


def test_wrapper_is_answered_with_what_takes_it_off(ckpt: Run, folder: Path) -> None:
    torch.save({f"module.{key}": value for key, value in weights().items()}, folder / "ddp.pt")
    assert f"ckpt rename ddp.pt --unwrap --check {CNN}" in ckpt("diff", "ddp.pt", CNN).out
    ran = ckpt("rename", "ddp.pt", "--unwrap", "--check", CNN)
    assert ran.code == 0
    assert "unwrapped  module.\n" in ran.out
    ran = ckpt("rename", "ddp.renamed.pt", "--rule", "conv=x", "--check", CNN)
    assert "it already fits, without any rules" in ran.err


def test_file_without_a_suffix_and_a_state_dict_of_several(ckpt: Run, folder: Path) -> None:
    torch.save({"model": weights(), "ema": weights(1)}, folder / "run")
    assert ckpt("register", "run::ema", "--name", "m").code == 0
    assert equal(api.load("m:v1"), weights(1))
    ran = ckpt("rename", "./run::ema", "--rule", "conv=embed", "--register", "--name", "m")
    assert ran.code == 0
    assert "registered m:v2" in ran.out
    assert equal(api.load("m:v2"), embedded(weights(1)))
    assert equal(torch.load("run.renamed", weights_only=True)["model"], weights())
