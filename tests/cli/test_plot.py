"""`ckpt plot`: the curves of a real run, as text, as JSON and as pictures."""

import json
from pathlib import Path

import pytest
import torch

from tests.cli.support import Run

TRAIN = ["train", "--dataset", "digits", "--epochs", "3", "--precision", "fp32", "--register"]


@pytest.fixture
def trained(ckpt: Run) -> list[str]:
    ran = ckpt(*TRAIN)
    assert ran.code == 0, ran.err
    assert ckpt("rename", "v1", "--rule", "conv=embed").code == 0
    return ["v1", "v2"]


@pytest.mark.long
def test_curves_are_those_of_the_run(ckpt: Run, trained: list[str]) -> None:
    recorded = json.loads(ckpt("show", "v1", "--json").out)["record"]["curves"]
    found = json.loads(ckpt("plot", *trained, "--json").out)["curves"]
    assert [each["series"] for each in found] == [recorded, recorded]
    assert len(recorded["loss"]) == 3
    model = found[0]["trained"].rpartition(":")[0]
    assert [each["trained"] for each in found] == [f"{model}:v1"] * 2
    assert found[1]["version"] == f"{model}:v2"
    text = ckpt("plot", *trained).out
    assert f"{model}:v2  3 epochs, trained as {model}:v1" in text
    assert f"{recorded['loss'][-1]:.6g}" in text
    assert "█" in text


@pytest.mark.long
def test_pictures(ckpt: Run, folder: Path, trained: list[str]) -> None:
    for name, begin in (("a.svg", b"<?xml"), ("a.png", b"\x89PNG\r\n\x1a\n")):
        ran = ckpt("plot", *trained, "-o", name)
        assert (ran.code, ran.out.strip()) == (0, f"wrote {name}"), ran.err
        first = (folder / name).read_bytes()
        assert first.startswith(begin)
        assert ckpt("plot", *trained, "-o", name).code == 2  # it stands already
        assert ckpt("plot", *trained, "-o", name, "--force").code == 0
        assert (folder / name).read_bytes() == first
    svg = (folder / "a.svg").read_text()
    assert ":v2" in svg
    for words in ("accuracy", "loss", f"{trained[0]}, test"):
        assert f">{words}<" in svg or f"{words}<" in svg, words
    assert "hold-out" not in svg


@pytest.mark.long
def test_hold_out_and_test_are_curves_too(ckpt: Run, folder: Path) -> None:
    ran = ckpt(*TRAIN, "--holdout", "0.2")
    assert ran.code == 0, ran.err
    (found,) = json.loads(ckpt("plot", "v1", "--json").out)["curves"]
    shown = json.loads(ckpt("show", "v1", "--json").out)["record"]
    best = min(range(3), key=lambda at: found["series"]["holdout_loss"][at]) + 1
    assert found["epoch"] == shown["training"]["epoch"] == best
    assert found["test"] == shown["metrics"]
    lines = ckpt("plot", "v1").out.splitlines()
    starts = ["loss", "hold-out loss", "accuracy", "hold-out accuracy", "test"]
    assert [line[2:21].strip() for line in lines[1:]] == starts
    assert lines[-1].endswith(f", of epoch {best}")
    more = ("--lr", "--gradient-norm")
    lines = ckpt("plot", "v1", *more).out.splitlines()
    assert lines[5].startswith("  learning rate      ")
    assert lines[6].startswith("  gradient norm      ")
    assert lines[6].endswith(f"  {found['series']['gradient_norm'][-1]:.6g}")
    assert ckpt("plot", "v1", *more, "-o", "a.svg").code == 0
    svg = (folder / "a.svg").read_text()
    assert all(
        words in svg for words in (", hold-out<", ", test<", ">learning rate<", ">gradient norm<")
    )


def test_version_without_curves_says_so(ckpt: Run, folder: Path) -> None:
    torch.save({"a": torch.ones(1)}, folder / "a.pt")
    assert ckpt("register", "a.pt").code == 0
    ran = ckpt("plot", "v1")
    assert ran.code == 2
    assert "a:v1 has no curves" in ran.err
    assert ckpt("plot", "v9").code == 2
    assert ckpt("plot", "v1", "-o", "a.pdf").code == 2
