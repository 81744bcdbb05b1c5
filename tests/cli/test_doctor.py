"""`ckpt train --doctor`: its options, its table, its picture."""

import json
import os
from pathlib import Path

import pytest

from ckpt.show.train.doctor import diagnosis_data, diagnosis_picture, diagnosis_text
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
        assert ran.out.count(f"\n  {tip} ") == ran.out.count(f"\n{tip} ") == 1
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
        Tried("workers", "DataLoader, 0 workers", "--loader workers", 1200.4, 1.0, None, 1.0, 1.0),
        Tried("workers", "images in memory", "--loader resident", 10500.0, 8.75, None, 0.5, 12.0),
        Tried("kept graphs", "kept in validation", "losses.append(loss)", bytes=570123),
    ],
    [
        Verdict("workers", False, "no gain"),
        Verdict("16 bits", None, "the turns disagree"),
        Verdict("kept graphs", True, "it keeps\nmuch"),
    ],
)
LEGEND = """\
× first: the ratio to the tip's first row in the same turn, the median of turns.
spread: the same without the lowest and highest quarter of the turns.
img/s: of training steps: × first times the median of the first row.
memory: what the graphs of a step hold for its backward pass, or keep after it."""


def test_the_table_is_one_line_a_way() -> None:
    assert (
        diagnosis_text(FOUND)
        == f"""\
net.py:Net on digits, 1 × 28 × 28, 2 threads, batch 64

  tip          tried                    img/s    × first      spread    memory  to choose it
  -----------  ---------------------  -------  ---------  ----------  --------  -------------------
  workers      DataLoader, 0 workers    1,200       1.00   1.00-1.00            --loader workers
               images in memory        10,500       8.75  0.50-12.00            --loader resident
  kept graphs  kept in validation                                     570.1 kB  losses.append(loss)

{LEGEND}

workers        no       no gain
16 bits        unclear  the turns disagree
kept graphs    yes      it keeps\\x0amuch"""
    )


def test_a_narrow_terminal_leaves_out_how_to_choose_a_way() -> None:
    lines = diagnosis_text(FOUND, width=80).splitlines()
    assert lines[2] == (
        "  tip          tried                    img/s    × first      spread    memory"
    )
    assert lines[6] == (
        "  kept graphs  kept in validation                                     570.1 kB"
    )
    assert max(map(len, lines[:7])) <= 80


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
        "images_per_second": 10500.0, "ratio": 8.75, "bytes": None, "ratio_low": 0.5,
        "ratio_high": 12.0,
    }  # fmt: skip
    assert data["verdicts"][1]["helps"] is None
    assert data["verdicts"][0] == {"tip": "workers", "helps": False, "why": "no gain"}
