"""`ckpt migrate run` where the keys stay and their meaning changes: a number tells.

The oracle is torch: the result, loaded into the new class, computes what the old one did.
"""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.support import Run
from tests.migrate.classes import class_in

NET = """
import ckpt
from torch import nn


@ckpt.migrating
class Net(nn.Module):
    ckpt_schema = 1

    def __init__(self):
        super().__init__()
        self.q, self.k, self.fc = (nn.Linear(3, 3) for _ in range(3))

    def forward(self, inputs):
        return self.fc(self.q(inputs) - self.k(inputs))
"""
SWAPPED = NET.replace("self.q(inputs) - self.k(inputs)", "self.k(inputs) - self.q(inputs)")
FORMS = {
    "number to number": ("    ckpt_schema = 1\n", "    ckpt_schema = 2\n"),
    "none to number": ("", "    ckpt_schema = 300\n"),
    "number to none": ("    ckpt_schema = 70000\n", ""),
    "torch's own": ("    _version = 1\n", "    _version = 2\n"),
}
NUMBERED = "    ckpt_schema = 1\n"


@pytest.fixture(params=FORMS)
def forms(folder: Path, request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """`old.py` and `net.py`, the class before and after its change of meaning."""
    before, after = FORMS[request.param]
    texts = (NET.replace(NUMBERED, before), SWAPPED.replace(NUMBERED, after))
    return class_in(folder / "old.py", texts[0]), class_in(folder / "net.py", texts[1])


def made(folder: Path, forms: tuple[Any, Any], ckpt: Run) -> Any:
    """A module of the old class, whose migration is written."""
    torch.manual_seed(0)
    words = ["--from", "old.py:Net", "-m", "swap", "--rule", "q<->k"]
    ran = ckpt("migrate", "new", "net.py:Net", *words)
    assert ran.code == 0, ran.err
    return forms[0]()


def expect_same(old: Any, new: Any, state: Any) -> None:
    module = new()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is migrated a second time
        module.load_state_dict(state)
    inputs = torch.randn(4, 3)
    assert torch.allclose(old(inputs), module(inputs), atol=1e-5)  # a swap differs by 0.1


@pytest.mark.parametrize("kind", ["alone", "training", "legacy"])
def test_result_has_the_number_of_the_class(
    ckpt: Run, folder: Path, forms: tuple[Any, Any], kind: str
) -> None:
    old = made(folder, forms, ckpt)
    state: Any = old.state_dict()
    options: dict[str, Any] = {}
    if kind == "training":
        state = {"model": state, "ema": old.state_dict(), "epoch": 3}
    elif kind == "legacy":
        options = {"_use_new_zipfile_serialization": False}
    torch.save(state, "old.pt", **options)
    ran = ckpt("migrate", "run", "old.pt", "--to", "net.py:Net", "-o", "new.pt", "--enter", "swap")
    assert ran.code == 0, ran.err
    found = torch.load("new.pt")
    for each in (found["model"], found["ema"]) if kind == "training" else (found,):
        expect_same(old, forms[1], each)
    again = ckpt("migrate", "run", "new.pt", "--to", "net.py:Net")
    assert again.code == 0, again.err
    assert again.out.endswith(" fits net.py:Net as it is\n")
    back = ckpt(
        "migrate", "run", "new.pt", "--to", "old.py:Net", "--by", "net.py:Net", "-o", "back.pt",
        "--enter", "swap",
    )  # fmt: skip
    assert back.code == 0, back.err
    found = torch.load("back.pt")
    expect_same(old, forms[0], found["model"] if kind == "training" else found)


def test_version_has_the_number_of_the_class(
    ckpt: Run, folder: Path, forms: tuple[Any, Any]
) -> None:
    old = made(folder, forms, ckpt)
    torch.save(old.state_dict(), "old.pt")
    assert ckpt("register", "old.pt", "--name", "net").code == 0
    assert ckpt("migrate", "run", "net:v1", "--to", "net.py:Net", "--enter", "swap").code == 0
    assert ckpt("export", "net:v2", "-o", "new.pt").code == 0
    expect_same(old, forms[1], torch.load("new.pt"))


@pytest.mark.parametrize("more", [[], ["--drop-optimizer"]], ids=["", "drop-optimizer"])
@pytest.mark.parametrize("rules", ["drop", "transpose"])
def test_number_is_written_where_the_file_is_made_again(
    ckpt: Run, folder: Path, rules: str, more: list[str]
) -> None:
    """Beside the swap a layer is dropped, or turned over twice: the file is not only edited."""
    new = SWAPPED.replace(NUMBERED, "    ckpt_schema = 2\n")
    old = NET
    if rules == "drop":
        old = NET.replace("        self.q", "        self.gone = nn.Linear(2, 2)\n        self.q")
        verb = "drop = '^gone'"
    else:
        new = new.replace("self.fc(self.k", "(self.k").replace(
            "(inputs))", "(inputs)) @ self.fc.weight"
        )
        old = old.replace("self.fc(self.q", "(self.q").replace(
            "(inputs))", "(inputs)) @ self.fc.weight.T"
        )
        verb = "transpose = '^fc.weight$'"
    forms = class_in(folder / "old.py", old), class_in(folder / "net.py", new)
    (folder / "rules.toml").write_text(
        f"[[rules]]\nat_once = ['q->k', 'k->q']\n[[rules]]\n{verb}\n"
    )
    words = ["--from", "old.py:Net", "-m", "swap", "--rules", "rules.toml"]
    ran = ckpt("migrate", "new", "net.py:Net", *words)
    assert ran.code == 0, ran.err
    module = forms[0]()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    torch.save({"model": module.state_dict(), "optimizer": optimizer.state_dict()}, "old.pt")
    for command in ("migrate run", "rename"):
        words = [*command.split(), "old.pt", "--to", "net.py:Net", "-o", f"{command}.pt", *more]
        ran = ckpt(*words)
        assert ran.code == 0, ran.err
        expect_same(module, forms[1], torch.load(f"{command}.pt")["model"])


def test_way_back_is_refused_where_nothing_tells_that_it_is_needed(ckpt: Run, folder: Path) -> None:
    """The class lost its number, so that its own checkpoints could be those of the old class."""
    bare = SWAPPED.replace(NUMBERED, "")
    forms = class_in(folder / "old.py", NET), class_in(folder / "net.py", bare)
    made(folder, forms, ckpt)
    torch.save(forms[1]().state_dict(), "new.pt")
    words = ["migrate", "run", "new.pt", "--to", "old.py:Net", "--by", "net.py:Net"]
    ran = ckpt(*words)
    assert (ran.code, "two ways lead there" in ran.err) == (3, True)
    assert ckpt(*words, "--enter", "swap").code == 0


def test_undo_gives_the_number_back(ckpt: Run, folder: Path, forms: tuple[Any, Any]) -> None:
    """With its parent removed, a new version is made; the meaning of its keys is the old one."""
    old = made(folder, forms, ckpt)
    torch.save(old.state_dict(), folder / "net.pt")
    for words in (
        ["register", "net.pt"],
        ["migrate", "run", "net", "--to", "net.py:Net", "--enter", "swap"],
        ["rm", "net:v1", "--yes"],
        ["rename", "net:v2", "--undo"],
        ["export", "net:v3", "-o", "back.pt"],
    ):
        ran = ckpt(*words)
        assert ran.code == 0, (words, ran.err)
    back = torch.load(folder / "back.pt", weights_only=False)
    root = {name: number for name, number in back._metadata[""].items() if number is not None}
    assert root == old.state_dict()._metadata[""]
    expect_same(old, forms[0], back)


def test_undo_of_a_file_gives_the_number_back(
    ckpt: Run, folder: Path, forms: tuple[Any, Any]
) -> None:
    old = made(folder, forms, ckpt)
    torch.save(old.state_dict(), folder / "old.pt")
    words = ["rename", "old.pt", "--to", "net.py:Net", "-o", "new.pt"]
    ran = ckpt(*words, "--save-rules", "saved.toml")
    if ran.code == 3:  # no number tells which of two ways it is
        assert "two ways lead there" in ran.err
        return
    ran = ckpt("rename", "new.pt", "--undo", "--rules", "saved.toml", "-o", "back.pt")
    assert ran.code == 0, ran.err
    back = torch.load(folder / "back.pt", weights_only=False)
    root = {name: number for name, number in back._metadata[""].items() if number is not None}
    assert root == old.state_dict()._metadata[""]
    expect_same(old, forms[0], back)
