"""Results print in Python what the command prints, and are one line in a list."""

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch

import ckpt
from ckpt.printed import Printed
from tests.ops.rename.test_in_memory import New, Old

COMMANDS: dict[str, tuple[list[str], Any]] = {
    "show": (["show", "net:v1"], lambda: ckpt.show("net:v1")),
    "show of open": (["show", "old.pt"], lambda: ckpt.open("old.pt")),
    "diff": (["diff", "v1", "v2"], lambda: ckpt.diff("v1", "v2")),
    "ls": (["ls"], ckpt.Registry),
    "log": (["log", "net:v1"], lambda: ckpt.log("net:v1")[0]),
    "rename": (
        ["rename", "old.pt", "--rule", "conv->c", "--dry-run"],
        lambda: ckpt.rename("old.pt", ["conv->c"], dry_run=True),
    ),
    "register": (
        ["register", "old.pt", "--name", "net"],
        lambda: ckpt.register("old.pt", name="net"),
    ),
    "alias": (["alias", "prod", "v1"], lambda: ckpt.alias("prod", "v1")),
    "du": (["du"], ckpt.du),
    "gc": (["gc", "--dry-run"], lambda: ckpt.gc(dry_run=True)),
    "alias --log": (["alias", "--log"], ckpt.alias_history),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.save(Old().state_dict(), "old.pt")
    ckpt.register("old.pt", name="net", metrics={"accuracy": 0.5}, alias="prod")
    ckpt.rename("v1", ["conv->embed"])
    return tmp_path


@pytest.mark.parametrize("case", COMMANDS)
def test_text_is_that_of_the_command(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ckpt.cli import main

    words, result = COMMANDS[case]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    printed = capsys.readouterr().out.rstrip("\n")
    value = result()
    assert str(value) == printed
    assert unescape(value._repr_html_()) == f"<pre>{printed}</pre>"
    assert re.fullmatch(r"<\w+ .+>", repr(value))


def test_version_is_its_ref_in_a_text(folder: Path) -> None:
    version = ckpt.Registry().version("net@prod")
    assert f"{version}" == "net:v1"
    assert repr(version).startswith("<Version net:v1  register old.pt  accuracy 50.00%  9 keys, ")


def test_lines_say_what_came_out(folder: Path) -> None:
    assert repr(ckpt.diff("v1", "v1")) == "<RefDiff net:v1 -> net:v1: the same>"
    assert repr(ckpt.diff("v1", "old.pt", values=False)).endswith("old.pt: not compared>")
    assert repr(ckpt.diff("v1", "v2")) == "<RefDiff net:v1 -> net:v2: differs>"
    assert repr(ckpt.diff("v1", New)).endswith("test_in_memory:New: no fit>")
    assert repr(ckpt.plan_rename("v1", ["conv->c"])) == "<RenamePlan net:v1: 2 renamed>"
    assert repr(ckpt.rename("v1", ["conv->c"])) == "<Renamed net:v1: 2 renamed, into net:v3>"
    with ckpt.open("v1") as checkpoint:
        assert repr(checkpoint) == "<LazyStateDict net:v1: 9 keys, torch-zip>"
    assert repr(checkpoint).endswith("torch-zip, closed>")
    assert repr(ckpt.Registry(folder)) == f"<Registry {folder}: 1 model, 3 versions>"


def test_text_of_a_file_cannot_command_a_terminal_or_a_page() -> None:
    found = ckpt.diff({"a\x1b[2J<script>": torch.ones(1)}, {"b": torch.ones(2)})
    assert "\x1b" not in str(found)
    assert r"a\x1b[2J<script>" in str(found)
    assert "<script>" not in found._repr_html_()


def test_every_view_exists() -> None:
    from importlib import import_module

    for name in ckpt.__all__:
        getattr(ckpt, name)
    kinds = Printed.__subclasses__()
    assert len(kinds) > 20
    for kind in kinds:
        module, _, name = kind.VIEW.partition(":")
        assert callable(getattr(import_module(module), name))
