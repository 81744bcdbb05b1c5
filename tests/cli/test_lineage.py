"""Lineage: how each version was made of the one before."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.cli.support import Run, weights


def kinds(ckpt: Run, ref: str) -> list[tuple[str, str]]:
    return [(step["version"], step["kind"]) for step in ckpt("log", ref, "--json").data]


def test_same_tensors_in_another_container_are_a_conversion(ckpt: Run, folder: Path) -> None:
    torch.save(weights(), folder / "net.pt")
    assert ckpt("register", "net.pt").code == 0
    torch.save(weights(1), folder / "net.pt")
    assert ckpt("register", "net.pt").code == 0
    safetensors.torch.save_file(dict(weights()), folder / "net.safetensors")
    assert ckpt("register", "net.safetensors").code == 0
    assert kinds(ckpt, "v3") == [("v3", "converted"), ("v1", "registered")]
    assert "  converted: register net.safetensors\n" in ckpt("log", "v3").out


def test_parent_that_is_named_is_fine_tuning_or_a_conversion(ckpt: Run, folder: Path) -> None:
    torch.save(weights(), folder / "net.pt")
    assert ckpt("register", "net.pt").code == 0
    torch.save({**weights(), "fc2.bias": torch.zeros(10)}, folder / "tuned.pt")
    assert ckpt("register", "tuned.pt", "--name", "other", "--parent", "net:v1").code == 0
    assert kinds(ckpt, "other:v1") == [("v1", "fine-tuned"), ("v1", "registered")]
    assert ckpt("rename", "other:v1", "--rule", "fc=head").code == 0
    assert kinds(ckpt, "other:v2")[0] == ("v2", "renamed")
    ran = ckpt("register", "tuned.pt", "--name", "third", "--parent", "net:v9")
    assert (ran.code, "v9" in ran.err) == (2, True)


TRAIN = ("train", "--dataset", "digits", "--epochs", "1", "--precision", "fp32", "-q")


@pytest.mark.long
def test_training_that_begins_with_a_version_is_fine_tuning(ckpt: Run, folder: Path) -> None:
    assert ckpt(*TRAIN, "--register", "--name", "net").code == 0
    assert ckpt(*TRAIN, "--register", "--name", "net", "--init", "net").code == 0
    assert kinds(ckpt, "net") == [("v2", "fine-tuned"), ("v1", "trained")]
    record = ckpt("show", "net:v2", "--json").data["record"]
    assert record["training"]["recipe"]["init"] == "net:v1", "what it was then"
    accuracy = [row["metrics"]["accuracy"] for row in ckpt("ls", "--json").data]
    assert accuracy[0] > accuracy[1], "it went on from there"


@pytest.mark.long
def test_training_begins_with_a_file_strictly(ckpt: Run, folder: Path) -> None:
    torch.save(weights(), folder / "begin.pt")
    assert ckpt(*TRAIN, "--lr", "1e-30", "--init", "begin.pt", "-o", "out.pt").code == 0
    assert torch.equal(torch.load(folder / "out.pt")["fc1.weight"], weights()["fc1.weight"])
    state = {key.replace("conv", "embed"): each for key, each in weights().items()}
    torch.save(state, folder / "renamed.pt")
    ran = ckpt(*TRAIN, "--init", "renamed.pt", "-o", "no.pt")
    assert ran.code == 3
    assert "renamed.pt does not fit ckpt.models.mnist_cnn:Net" in ran.err
    assert "ckpt diff renamed.pt ckpt.models.mnist_cnn:Net" in ran.err
    assert not (folder / "no.pt").exists()


@pytest.mark.parametrize("init", ["absent.pt", "net:v7"])
def test_training_does_not_begin_with_nothing(init: str, ckpt: Run) -> None:
    assert ckpt(*TRAIN, "--init", init, "-o", "no.pt").code == 2


def test_metrics_stay_with_the_weights_that_they_describe(ckpt: Run, folder: Path) -> None:
    torch.save(weights(), folder / "net.pt")
    assert ckpt("register", "net.pt", "--metric", "accuracy=0.9694").code == 0
    assert ckpt("rename", "v1", "--rule", "conv=embed").code == 0  # v2: the same weights
    assert ckpt("rename", "v2", "--drop", "^fc").code == 0  # v3: other weights
    assert ckpt("rename", "v3", "--rule", "embed=conv").code == 0  # v4: renames v3
    found = {row["version"]: row["metrics"] for row in ckpt("ls", "--json").data}
    assert found == {"v1": {"accuracy": 0.9694}, "v2": {"accuracy": 0.9694}, "v3": {}, "v4": {}}
    matching = ckpt("ls", "--where", "accuracy>0.95", "--json").data
    assert [row["version"] for row in matching] == ["v2", "v1"]
    for ref in ("v3", "v4"):
        assert "  metrics   of net:v2: accuracy 96.94%\n" in ckpt("show", ref).out
        shown = ckpt("show", ref, "--json").data
        assert shown["measured"] == {"version": "net:v2", "metrics": {"accuracy": 0.9694}}
    assert "measured" not in ckpt("show", "v2", "--json").data
    assert "  metrics   accuracy 96.94%\n" in ckpt("show", "v2").out


def test_versions_that_name_each_other_as_parents_come_once(ckpt: Run, folder: Path) -> None:
    """As a merge can leave it: two people made the same two files, each from the other one."""
    renamed = {key.replace("conv", "embed"): each for key, each in weights().items()}
    lines = {}
    for name, state, rule in (("a", weights(), "conv=embed"), ("b", renamed, "embed=conv")):
        torch.save(state, folder / "net.pt")
        assert ckpt("register", "net.pt", "--name", name).code == 0
        assert ckpt("rename", f"{name}:v1", "--rule", rule).code == 0
        lines[name] = json.loads((folder / "registry.json").read_text())["models"][name]["versions"]
    index = json.loads((folder / "registry.json").read_text())
    versions = index["models"]["a"]["versions"]
    for number, other in (("v1", "v2"), ("v2", "v1")):
        versions[number]["also"] = [lines["b"][other]["manifest"]]
    versions["v1"]["manifest"], versions["v1"]["also"] = (
        versions["v1"]["also"][0],
        [versions["v1"]["manifest"]],
    )
    del index["models"]["b"]
    (folder / "registry.json").write_text(json.dumps(index))
    assert kinds(ckpt, "a:v2") == [("v2", "renamed"), ("v1", "renamed")]
    assert kinds(ckpt, "a:v1") == [("v1", "renamed"), ("v2", "renamed")]
    assert ckpt("show", "a:v1").code == 0
    assert ckpt("log", "a:v1", "--", "conv1.bias").code == 0
    assert ckpt("blame", "conv1.bias", "a:v1").code == 0
