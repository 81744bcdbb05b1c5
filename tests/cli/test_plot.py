"""`ckpt plot`: the curves of a real run, as text, as JSON and as pictures."""

import json
from pathlib import Path

import pytest
import torch

from ckpt import plot, register
from tests.cli.support import Run

TRAIN = ["train", "--dataset", "digits", "--epochs", "3", "--precision", "fp32", "--register"]

HINT = """\
hint:  to make versions with curves:  ckpt train --register;
       ckpt plot FILE.jsonl  draws those that ckpt train --metrics FILE.jsonl wrote;
       ckpt.register(net, curves={"loss": [...]})  keeps those of a loop of your own
"""
LINES = """\
{"event": "started", "dataset": "digits", "epochs": 3}
{"event": "epoch", "time": "t", "epoch": 1, "loss": 2.0, "accuracy": 0.25, "lr": 1.0}
{"event": "epoch", "time": "t", "epoch": 2, "loss": 1.5, "accuracy": 0.5, "lr": 0.7}
{"event": "epoch", "time": "t", "epo
{"event": "started", "dataset": "digits", "epochs": 3, "resumed_at": {"epoch": 2, "images": 0}}
{"event": "epoch", "time": "t", "epoch": 2, "loss": 1.0, "accuracy": 0.75, "lr": 0.7}
{"event": "epoch", "time": "t", "epoch": 3, "loss": "nan", "accuracy": 0.5, "lr": 0.49}
{"event": "finished", "epoch": 2, "test_accuracy": 0.875, "test_loss": 0.5}
"""


def test_a_metrics_file_is_plotted_without_a_registry(ckpt: Run, folder: Path) -> None:
    (folder / "run.jsonl").write_text(LINES)
    ran = ckpt("plot", "run.jsonl", "--lr")
    assert (ran.code, ran.err) == (0, "")
    assert (
        ran.out
        == """\
run.jsonl  3 epochs
  loss                  2  █▁   nan
  accuracy         25.00%  ▁█▅  50.00%
  learning rate         1  █▄▁  0.49
  test           loss 0.5  accuracy 87.50%, of epoch 2
"""
    )
    assert f"{plot(folder / 'run.jsonl')}\n".replace(f"{folder}/", "") == (
        ckpt("plot", "run.jsonl").out
    )
    assert ckpt("plot", "run.jsonl", "-o", "run.svg").code == 0
    assert not (folder / "registry.json").exists()


def test_curves_of_another_loop_are_drawn(ckpt: Run, folder: Path) -> None:
    curves = {
        "$train loss": [2.0, 1.0, 0.5],
        "error": [0.5, 0.25, 0.125],
        "holdout_error": [0.5, 0.5, 0.25],
    }
    register({"w": torch.ones(2)}, name="mine", curves=curves, metrics={"loss": 0.5})
    ran = ckpt("plot", "mine:v1")
    assert (ran.code, ran.err) == (0, "")
    expected = """\
mine:v1  3 epochs
  $train loss            2  █▃▁  0.5
  error                0.5  █▃▁  0.125
  hold-out error       0.5  ██▃  0.25
"""
    assert ran.out == expected
    register({"w": torch.zeros(2)}, name="mine", curves={"loss": [1.0, 2.0]})
    assert ckpt("plot", "v1", "v2").out == expected + (
        "\nmine:v2  2 epochs\n  loss         1  ▁█  2\n"
    )
    assert ckpt("plot", "v1", "v2", "-o", "a.svg").code == 0
    svg = (folder / "a.svg").read_text()
    assert all(f">{words}<" in svg for words in ("$train loss", "error", "loss", "mine:v2"))
    assert ckpt("site", "-o", "pages").code == 0
    page = (folder / "pages/models/mine/v1.html").read_text()
    assert '<figcaption id="chart-curve-0">$train loss</figcaption>' in page
    assert "Solid line, 0.5 to 0.125 in 3 epochs. Dashed line: hold-out, 0.5 to 0.25 in" in page


def test_a_file_without_epochs_is_refused(ckpt: Run, folder: Path) -> None:
    for text in ("", LINES.splitlines()[0], "[1]\nno JSON\n"):
        (folder / "run.jsonl").write_text(text)
        ran = ckpt("plot", "run.jsonl")
        assert (ran.code, ran.out) == (2, "")
        assert ran.err == (
            "error: run.jsonl: has no line of an epoch\n"
            "hint:  ckpt train --metrics FILE.jsonl  writes one line an epoch\n"
        )
    ran = ckpt("plot", "https://me:secret@host/run.jsonl")
    assert (ran.code, ran.err) == (
        2,
        "error: https://…@host/run.jsonl: a URL, expected a metrics file on this machine\n"
        "hint:  download it first\n",
    )
    ran = ckpt("plot", "none.jsonl")
    assert (ran.code, ran.err) == (2, "error: none.jsonl: no such file\n")


@pytest.mark.parametrize(
    ("text", "is_lines"),
    [
        ('{"a": 1}\n{"a": 2}\n', True),
        ('{"a": 1}\n{"a": 2', False),
        ('{"a": 1} {"a": 2}\n', False),
        ('{"a": 1}\n], "b"\n', False),
    ],
    ids=["lines", "truncated", "one line", "not JSON"],
)
def test_json_lines_are_two_documents(text: str, is_lines: bool, ckpt: Run, folder: Path) -> None:
    (folder / "run.json").write_text(text)
    said = "run.json: JSON lines, not a checkpoint" if is_lines else "run.json: damaged: "
    assert ckpt("show", "run.json").err.startswith(f"error: {said}")


def test_a_metrics_file_is_not_called_damaged(ckpt: Run, folder: Path) -> None:
    (folder / "run.jsonl").write_text(LINES)
    for command in ("register", "show"):
        ran = ckpt(command, "run.jsonl")
        assert (ran.code, ran.out) == (3, "")
        assert ran.err == (
            "error: run.jsonl: JSON lines, not a checkpoint\n"
            "hint:  to draw what ckpt train --metrics wrote:  ckpt plot run.jsonl\n"
        )


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
    assert ckpt(*TRAIN, "-o", "other.pt", "--metrics", "run.jsonl").code == 0
    (again,) = json.loads(ckpt("plot", "run.jsonl", "--json").out)["curves"]
    timed = {"seconds"}
    assert {n: v for n, v in again["series"].items() if n not in timed} == {
        n: v for n, v in recorded.items() if n not in timed
    }
    assert (again["epoch"], again["test"]) == (found[0]["epoch"], found[0]["test"])
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
    assert ran.err == f"error: a:v1 has no curves\n{HINT}"
    ran = ckpt("plot", "a.pt")
    assert ran.code == 2
    assert ran.err == f"error: a.pt: weights in a file have no curves\n{HINT}"
    assert ckpt("plot", "v9").code == 2
    assert ckpt("plot", "v1", "-o", "a.pdf").code == 2
