"""Questions about ambiguous keys: asked on a terminal, printed as JSON, saved to be filled in."""

import json
import os
import pty
import re
import sys
from pathlib import Path

import pytest
import torch

from tests.cli.support import Run

NET = """
import torch.nn as nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.zig, self.zag = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.fc = nn.Linear(8, 3)
"""
WORDS = ("rename", "old.pt", "--to", "net.py:Net", "-o", "new.pt")


@pytest.fixture
def unsure(folder: Path) -> Path:
    """`old.pt`, of which two tensors could be swapped; and `net.py`."""
    (folder / "net.py").write_text(NET)
    names = {"x9.weight": (8, 8), "k2.weight": (8, 8), "linear.weight": (3, 8), "linear.bias": (3,)}
    state = {key: torch.full(shape, float(at)) for at, (key, shape) in enumerate(names.items())}
    torch.save(state, folder / "old.pt")
    return folder


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("2", "zag.weight"),
        pytest.param("1", "zig.weight", marks=pytest.mark.long),
        pytest.param("", "zig.weight", marks=pytest.mark.long),
    ],
)
def test_ask_on_a_terminal_writes_what_was_chosen(
    ckpt: Run, unsure: Path, monkeypatch: pytest.MonkeyPatch, answer: str, target: str
) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    with os.fdopen(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        ran = ckpt(*WORDS, "--ask")
    os.close(ours)
    assert ran.code == 0, ran.err
    assert "x9.weight and 1 key with it: order alone" in ran.err
    assert "1  zig.weight   (best guess)" in ran.err
    new = torch.load("new.pt")
    assert {*new} == {"zig.weight", "zag.weight", "fc.weight", "fc.bias"}
    assert torch.equal(new[target], torch.load("old.pt")["x9.weight"])


def test_ask_without_a_terminal_prints_the_questions(ckpt: Run, unsure: Path) -> None:
    ran = ckpt(*WORDS, "--ask")
    assert ran.code == 3
    assert not (unsure / "new.pt").exists()
    (question,) = json.loads(ran.out)["questions"]
    assert question["sources"] == ["x9.weight", "k2.weight"]
    assert question["candidates"] == ["zig.weight", "zag.weight"]
    assert (question["option"], question["margin"]) == ("--rule 'x9->zig'", 0.0)
    assert ckpt(*WORDS, "--rule", "x9->zig").code == 0


@pytest.mark.parametrize(
    "words", [("--rule", "a->b"), ("--to", "net.py:Net", "--accept-ambiguous")]
)
def test_ask_without_questions_is_refused(ckpt: Run, unsure: Path, words: tuple[str, ...]) -> None:
    assert ckpt("rename", "old.pt", "--ask", *words).code == 2


def test_saved_rules_of_an_incomplete_mapping_are_filled_in(ckpt: Run, unsure: Path) -> None:
    ran = ckpt(*WORDS, "--save-rules", "r.toml")
    assert ran.code == 3
    assert "saved the known rules in r.toml" in ran.err
    saved = (unsure / "r.toml").read_text()
    assert saved.splitlines() == [
        "name = 'rename of old.pt'",
        "rules = [",
        "    { rename = 'linear->fc' },",
        "    # open: x9.weight could become zig.weight or zag.weight (and 1 key with it); "
        "best guess: zig.weight",
        "    # { rename = 'x9->zig' },",
        "]",
    ]
    with_rules = ("rename", "old.pt", "--rules", "r.toml", "--to", "net.py:Net", "-o", "new.pt")
    assert ckpt(*with_rules).code == 3, "the rules are those that are known"
    (unsure / "r.toml").write_text(saved.replace("# {", "{"))
    assert ckpt(*with_rules).code == 0
    new, old = torch.load("new.pt"), torch.load("old.pt")
    assert torch.equal(new["zig.weight"], old["x9.weight"])
    assert torch.equal(new["fc.bias"], old["linear.bias"])


def test_dry_run_saves_no_rules(ckpt: Run, unsure: Path) -> None:
    assert ckpt(*WORDS, "--save-rules", "r.toml", "--dry-run").code in (2, 3)
    assert not (unsure / "r.toml").exists()


JOINED = """
import torch.nn as nn
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inputs, self.down = nn.Linear(4, 12), nn.Linear(6, 4)
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(3))
        self.fc = nn.Linear(4, 3)
"""


def test_saved_operations_that_are_a_guess_are_filled_in(ckpt: Run, folder: Path) -> None:
    """Nothing tells whether gate or up comes first in `inputs`; all blocks are one doubt."""
    (folder / "net.py").write_text(JOINED)
    shapes = {"gate": (6, 4), "up": (6, 4), "down": (4, 6)}
    state = {f"blocks.{block}.{name}.weight": torch.randn(shape)
             for block in range(3) for name, shape in shapes.items()}  # fmt: skip
    state |= {f"{key.removesuffix('weight')}bias": torch.randn(len(value))
              for key, value in state.items()}  # fmt: skip
    torch.save(state | {"fc.weight": torch.randn(3, 4), "fc.bias": torch.randn(3)}, "old.pt")
    ran = ckpt(*WORDS, "--save-rules", "r.toml")
    assert ran.code == 3
    doubt = (
        "blocks.0.gate.weight, blocks.0.up.weight (concat into layers.0.inputs.weight; and 5 more)"
    )
    assert ran.err.splitlines()[0].endswith(f"ambiguous: {doubt}")
    saved = (folder / "r.toml").read_text()
    assert saved.count("# open: ") == 1
    (folder / "r.toml").write_text(re.sub(r"(?m)^ +# (?!open: )", "", saved))
    ran = ckpt("rename", "old.pt", "--rules", "r.toml", "--to", "net.py:Net", "-o", "new.pt")
    assert ran.code == 0, ran.err
    new, old = torch.load("new.pt"), torch.load("old.pt")
    for block in range(3):
        both = [old[f"blocks.{block}.{name}.weight"] for name in ("gate", "up")]
        assert torch.equal(new[f"layers.{block}.inputs.weight"], torch.cat(both))
        assert torch.equal(new[f"layers.{block}.down.bias"], old[f"blocks.{block}.down.bias"])


def test_former_name_of_the_option_is_taken_with_a_note(ckpt: Run, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.one = nn.Linear(2, 2)\n"
        "        self.two = nn.Linear(2, 2)\n"
    )
    alike = {f"{name}.{part}": torch.ones(shape) for name in ("a", "b")
             for part, shape in (("weight", (2, 2)), ("bias", (2,)))}  # fmt: skip
    torch.save(alike, tmp_path / "old.pt")
    words = ("rename", "old.pt", "--to", "net.py:Net", "-o", "new.pt")
    assert ckpt(*words).code == 3, "it is ambiguous"
    ran = ckpt(*words, "--accept-likely")
    assert ran.code == 0, ran.err
    assert "--accept-likely is called --accept-ambiguous now\n" in ran.err
