"""A training checkpoint holds copies of its weights: a rename takes them along, or says so."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import ckpt as api
from tests.cli.support import Run


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"conv": nn.Conv2d(1, 4, 3), "norm": nn.BatchNorm2d(4)})


def averaged() -> dict[str, Any]:
    """torch's own average, saved beside the model."""
    return {"model": network().state_dict(), "swa": AveragedModel(network()).state_dict()}


def averaged_first() -> dict[str, Any]:
    return dict(reversed(averaged().items()))


def of_timm() -> dict[str, Any]:
    state, ema = network().state_dict(), network().state_dict()
    return {"epoch": 3, "arch": "net", "state_dict": state, "state_dict_ema": ema}


def of_lightning() -> dict[str, Any]:
    """What Lightning's callback WeightAveraging saves."""
    average = AveragedModel(network()).state_dict()
    inner = OrderedDict((k.removeprefix("module."), v) for k, v in average.items() if "." in k)
    return {
        "pytorch-lightning_version": "2.6.0",
        "state_dict": inner,
        "current_model_state": network().state_dict(),
        "averaging_state": {"n_averaged": average["n_averaged"]},
    }


def compiled() -> dict[str, Any]:
    state = network().state_dict()
    return {"model": state, "ema": {f"_orig_mod.{key}": value for key, value in state.items()}}


FILES = [averaged, averaged_first, of_timm, of_lightning, compiled]


def conv_keys(checkpoint: dict[str, Any]) -> set[str]:
    return {
        key
        for value in checkpoint.values()
        if isinstance(value, dict)
        for key in [*value, *getattr(value, "_metadata", {})]
        if "conv" in key.split(".")
    }


@pytest.mark.parametrize("make", FILES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("named", [False, True], ids=["whole file", "--all"])
def test_all_copies_are_renamed_by_one_command(
    make: Callable[[], dict[str, Any]], named: bool, ckpt: Run, folder: Path
) -> None:
    torch.save(make(), folder / "run.pt")
    main = "model" if "model" in make() else "state_dict"
    words = (f"run.pt::{main}", "--all") if named else ("run.pt",)
    ran = ckpt("rename", *words, "--rule", "conv=stem", "--word", "-o", "new.pt")
    assert ran.code == 0, ran
    assert "also renamed in " in ran.out
    assert "not renamed" not in ran.out
    before, after = torch.load(folder / "run.pt"), torch.load(folder / "new.pt")
    assert not conv_keys(after)
    assert [len(it) if isinstance(it, dict) else it for it in after.values()] == [
        len(it) if isinstance(it, dict) else it for it in before.values()
    ]
    if "swa" in after:
        stem = nn.ModuleDict({"stem": nn.Conv2d(1, 4, 3), "norm": nn.BatchNorm2d(4)})
        AveragedModel(stem).load_state_dict(after["swa"], strict=True)


@pytest.mark.parametrize("make", FILES, ids=lambda make: make.__name__)
def test_copy_that_keeps_the_old_keys_is_named(
    make: Callable[[], dict[str, Any]], ckpt: Run, folder: Path
) -> None:
    torch.save(make(), folder / "run.pt")
    main = "model" if "model" in make() else "state_dict"
    ran = ckpt("rename", f"run.pt::{main}", "--rule", "conv=stem", "--word", "-o", "new.pt")
    assert ran.code == 0, ran
    other = {"averaged": "swa", "averaged_first": "swa", "of_timm": "state_dict_ema",
             "of_lightning": "current_model_state", "compiled": "ema"}[make.__name__]  # fmt: skip
    assert f"not renamed in {other}, which has the old keys; --all  renames them too" in ran.out
    assert torch.load(folder / "new.pt")[other].keys() == make()[other].keys()
    data = ckpt("rename", f"run.pt::{main}", "--rule", "conv=stem", "--dry-run", "--json").data
    assert data["left_behind"] == [other]


def test_version_of_one_state_dict_is_renamed_with_its_copies(ckpt: Run, folder: Path) -> None:
    torch.save(averaged(), folder / "run.pt")
    assert ckpt("register", "run.pt::model", "--name", "net").code == 0
    ran = ckpt("rename", "net:v1", "--rule", "conv=stem", "--word")
    assert "not renamed in swa" in ran.out
    assert ckpt("rename", "net:v1", "--rule", "conv=stem", "--word", "--all").code == 0
    assert ckpt("export", "net:v3", "-o", "new.pt").code == 0
    assert not conv_keys(torch.load(folder / "new.pt"))


def test_settings_with_a_tensor_are_not_a_state_dict(ckpt: Run, folder: Path) -> None:
    config = {"lr": 0.1, "name": "net", "class_weights": torch.ones(3)}
    torch.save({"model": network().state_dict(), "config": config}, folder / "run.pt")
    assert "7 keys under 'model'" in ckpt("show", "run.pt").out
    torch.save({"config": config}, folder / "config.pt")
    assert "1 key under 'config'" in ckpt("show", "config.pt").out, "it is all that there is"


@pytest.mark.parametrize(
    ("other", "counts"),
    [
        ({"w": torch.ones(3)}, False),
        ({"w": torch.ones(3), "lr": 0.1}, False),
        ({"mean": torch.ones(3), "std": torch.ones(3)}, False),
        (torch.nn.Linear(2, 2).state_dict(), True),
        (torch.nn.LSTM(2, 2).state_dict(), True),
        ({"loss.w": torch.ones(3)}, True),
    ],
    ids=["one tensor", "one and a number", "statistics", "linear", "lstm", "dotted"],
)
def test_other_mapping_counts_if_its_keys_are_those_of_modules(
    other: dict[str, Any], counts: bool, ckpt: Run, folder: Path
) -> None:
    torch.save({"model": network().state_dict(), "other": other}, folder / "run.pt")
    ran = ckpt("show", "run.pt")
    assert ("run.pt::model  or  run.pt::other" in ran.err) == counts
    assert ("7 keys under 'model'" in ran.out) != counts
    assert ckpt("rename", "run.pt::model", "--rule", "conv=stem", "-o", "new.pt").code == 0
    assert {*torch.load(folder / "new.pt")["other"]} == {*other}


def test_one_state_dict_of_a_version_has_a_ref(ckpt: Run, folder: Path) -> None:
    checkpoint = {"model": network().state_dict(), "ema": network().state_dict()}
    checkpoint["ema"]["conv.bias"] += 1
    torch.save(checkpoint, folder / "run.pt")
    assert ckpt("register", "run.pt::model", "--name", "net").code == 0
    assert "7 keys" in ckpt("show", "net:v1::ema").out
    assert ckpt("diff", "net:v1", "v1::ema", "--json").data["changed"] == ["conv.bias"]
    assert "no difference" in ckpt("diff", "net:v1", "net:v1::model").out
    assert "no difference" in ckpt("diff", "net:v1::ema", "run.pt::ema").out
    assert ckpt("export", "net:v1::ema", "-o", "ema.safetensors").code == 0
    assert "no difference" in ckpt("diff", "ema.safetensors", "net:v1::ema").out
    assert api.load("net:v1::ema")["conv.bias"].equal(checkpoint["ema"]["conv.bias"])
    ran = ckpt("diff", "net:v1", "net:v1::teacher")
    assert (ran.code, "holds no state_dict 'teacher'" in ran.err) == (3, True)


@pytest.mark.parametrize(
    "words",
    [
        *(("rename", "net:v1::swa", "--rule", "conv=stem"), ("rm", "net:v1::ema", "--yes")),
        *(("alias", "prod", "net:v1::ema"), ("log", "net:v1::ema"), ("rm", "net:v1::model")),
    ],
    ids=" ".join,
)
def test_part_of_a_version_is_refused_where_a_whole_one_is_meant(
    words: tuple[str, ...], ckpt: Run, folder: Path
) -> None:
    torch.save(averaged(), folder / "run.pt")
    assert ckpt("register", "run.pt::model", "--name", "net").code == 0
    index = (folder / "registry.json").read_bytes()
    ran = ckpt(*words)
    assert ran.code == 2, ran
    assert "version" in ran.err
    assert (folder / "registry.json").read_bytes() == index
