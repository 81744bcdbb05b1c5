"""`ckpt train --doctor`: its options, its table, its picture."""

import json
import os
from pathlib import Path

import pytest

from ckpt.show.train import diagnosis_data, diagnosis_picture, diagnosis_text
from ckpt.train.tips.diagnosis import TIPS, Diagnosis, Tried, Verdict
from tests.cli.support import Run

NET = """
from torch import nn
def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.LogSoftmax(1))
"""


@pytest.mark.long
def test_the_command_prints_a_table_and_draws_it(ckpt: Run) -> None:
    Path("net.py").write_text(NET)
    words = ["train", "--doctor", "net.py:net", "--dataset", "digits"]
    ran = ckpt(*words, "-o", "doctor.svg")
    assert ran.code == 0
    assert [line.split(": ")[0] for line in ran.err.splitlines()] == ["measuring"] * 5
    for tip in TIPS:
        assert ran.out.count(f"\n{tip} ") == 2, "its first row and its verdict"
    picture = Path("doctor.svg").read_text()
    assert all(tip in picture for tip in TIPS)
    assert "DataLoader, 1 worker" in picture
    assert sorted(os.listdir()) == ["doctor.svg", "net.py"], "no weights and no state"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--register"], "--register cannot be used with --doctor, which trains nothing"),
        (["--resume", "x"], "--resume cannot be used with --doctor, which trains nothing"),
        (["--model", "a.py:B"], "--model cannot be used with --doctor, which takes the definition"),
        (["-o", "x.pt"], "x.pt: unknown suffix, expected .png or .svg"),
    ],
)
def test_wrong_options_are_refused_at_once(ckpt: Run, more: list[str], message: str) -> None:
    ran = ckpt("train", "--doctor", "ckpt.models.mnist_cnn:Net", *more)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {message}")


FOUND = Diagnosis(
    "net.py:Net on digits, 1 × 28 × 28, 2 threads, batch 64",
    [
        Tried("workers", "DataLoader, 0 workers", "--loader workers", 1200.4, 1.0),
        Tried("workers", "images in memory", "--loader resident", 1500.0, 1.25),
        Tried("kept graphs", "the same as a float", "loss.item()", bytes=0),
    ],
    [Verdict("workers", False, "no gain"), Verdict("kept graphs", True, "it keeps\nmuch")],
)


def test_the_table_is_one_line_a_way() -> None:
    lines = diagnosis_text(FOUND).splitlines()
    assert lines[2:7] == [
        "tip          tried                    images/s    × first    memory  to choose it",
        "-----------  ---------------------  ----------  ---------  --------  -----------------",
        "workers      DataLoader, 0 workers       1,200       1.00            --loader workers",
        "             images in memory            1,500       1.25            --loader resident",
        "kept graphs  the same as a float                                0 B  loss.item()",
    ]
    assert lines[-2:] == ["workers        no   no gain", "kept graphs    yes  it keeps\\x0amuch"]


def test_python_prints_it_as_the_command_does() -> None:
    assert str(FOUND) == diagnosis_text(FOUND)
    assert repr(FOUND) == "<Diagnosis net.py:Net on digits, 1 × 28 × 28, 2 threads, batch 64>"


def test_the_same_figures_give_the_same_picture() -> None:
    rows = [Tried(tip, "one", "", 1.0, 1.0, 10) for tip in TIPS]
    found = Diagnosis("here", rows, [])
    assert diagnosis_picture(found, "svg") == diagnosis_picture(found, "svg")
    assert diagnosis_picture(found, "png").startswith(b"\x89PNG")


def test_json_has_every_figure() -> None:
    data = json.loads(json.dumps(diagnosis_data(FOUND)))
    assert data["rows"][1] == {
        "tip": "workers", "name": "images in memory", "type": "--loader resident",
        "images_per_second": 1500.0, "ratio": 1.25, "bytes": None,
    }  # fmt: skip
    assert data["verdicts"][0] == {"tip": "workers", "helps": False, "why": "no gain"}
