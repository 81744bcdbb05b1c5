"""What people type for something else: the hint is what they meant, and works."""

import shlex
import sys
from pathlib import Path

import pytest
import torch

from tests.cli.support import Run, save, weights


@pytest.fixture
def shelf(ckpt: Run, folder: Path) -> Run:
    torch.save(weights(), folder / "old.pt")
    assert ckpt("register", "old.pt", "--name", "net").code == 0
    assert ckpt("alias", "prod", "net:v1").code == 0
    return ckpt


@pytest.mark.parametrize(
    "typed",
    [
        "rename old.pt new.pt --rule conv=embed",
        "rename old.pt new.safetensors --rule conv=embed",
        "export old.pt new.safetensors",
    ],
)
def test_output_without_its_option(shelf: Run, folder: Path, typed: str) -> None:
    ran = shelf(*shlex.split(typed))
    assert ran.code == 2
    (hint,) = [line for line in ran.err.splitlines() if line.startswith("hint:")]
    command = shlex.split(hint.removeprefix("hint:"))
    assert command[0] == "ckpt"
    assert shelf(*command[1:]).code == 0
    assert (folder / shlex.split(typed)[2]).is_file()


def test_alias_without_its_model(shelf: Run) -> None:
    ran = shelf("show", "prod")
    assert (ran.code, ran.err.splitlines()[1]) == (
        2,
        "hint:  net@prod  is the version with this alias",
    )
    assert shelf("show", "net@prod").code == 0


def test_wrong_suffix(shelf: Run) -> None:
    ran = shelf("show", "old.ptt")
    assert (ran.code, ran.err.splitlines()[1]) == (2, "hint:  or the file old.pt?")


def test_code_without_a_class(shelf: Run, folder: Path) -> None:
    (folder / "net.py").write_text("class Net(x.Module):\n    pass\nclass Other(Net):\n    pass\n")
    ran = shelf("diff", "old.pt", "net.py")
    assert (ran.code, ran.err) == (
        2,
        "error: net.py: Python code, and no class is named\nhint:  net.py:Net  net.py:Other\n",
    )


def test_framework_that_is_not_installed(shelf: Run, folder: Path) -> None:
    (folder / "net.py").write_text("import no_such_framework.nn\nclass Net: pass\n")
    ran = shelf("diff", "old.pt", "net.py:Net")
    assert ran.code == 3
    hint = f"{sys.prefix} has no no_such_framework; install ckpt beside your project's packages"
    assert ran.err.splitlines()[1] == f"hint:  {hint}"


@pytest.mark.parametrize("typed", ["--foo", "--out other.pt", "-oother.pt"])
def test_other_mistakes_get_no_command_that_fails_again(shelf: Run, typed: str) -> None:
    ran = shelf("rename", "old.pt", "new.pt", "--rule", "conv=embed", *typed.split())
    assert (ran.code, ran.err.splitlines()[1]) == (2, "hint:  ckpt rename --help")


@pytest.mark.parametrize(
    "words",
    [
        ("rm", "{}", "--yes"),
        ("alias", "prod", "{}"),
        ("tag", "{}", "nice"),
        ("restore", "{}"),
        ("log", "{}"),
        ("note", "{}", "-m", "x"),
        ("metric", "{}", "loss=1"),
        ("pin", "{}"),
        ("blame", "w", "{}"),
        ("copy", "{}", "."),
        ("plot", "{}"),
        ("ls", "{}"),
        ("du", "{}"),
        ("register", "net.pt", "--parent", "{}"),
    ],
    ids=lambda words: words[0],
)
def test_file_where_a_version_is_expected_is_told_apart(
    words: tuple[str, ...], ckpt: Run, folder: Path
) -> None:
    save(folder / "net.pt", 1)
    assert ckpt("register", "net.pt").code == 0
    (folder / "bare").write_bytes((folder / "net.pt").read_bytes())
    (folder / "run 1").mkdir()
    for path, kind, typed in (
        ("./net.pt", "file", "./net.pt"),
        ("bare", "file", "bare"),
        ("./run 1", "folder", "'./run 1'"),
    ):
        ran = ckpt(*(word.format(path) for word in words))
        assert (ran.code, ran.out, ran.err) == (
            2,
            "",
            f"error: {path} is a {kind}, not a version in the registry\n"
            f"hint:  ckpt register {typed}  registers it first\n",
        )


def test_model_that_is_missing_is_not_taken_for_a_folder(ckpt: Run, folder: Path) -> None:
    save(folder / "net.pt", 1)
    assert ckpt("register", "net.pt").code == 0
    (folder / "nets").mkdir()
    ran = ckpt("tag", "nets:v1", "x")
    assert (ran.code, "no model 'nets'" in ran.err, "folder" in ran.err) == (2, True, False)
    (folder / "net").mkdir()
    assert ckpt("tag", "net", "x").code == 0


@pytest.mark.parametrize("version", ["net:v1", "v1"])
def test_alias_and_version_the_other_way_round(shelf: Run, version: str) -> None:
    ran = shelf("alias", version, "best")
    assert (ran.code, ran.err.splitlines()) == (
        2,
        [
            f"error: {version!r} is a version, not the name of an alias",
            f"hint:  ckpt alias best {version}",
        ],
    )
    assert shelf("alias", "best", version).code == 0


NET = "from torch import nn\n\nclass Net(nn.Module):\n    pass\n"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("rename old.pt net.py:Net", "ckpt rename old.pt --to net.py:Net"),
        ("rename old.pt net.py:Net -o new.pt", "ckpt rename old.pt --to net.py:Net -o new.pt"),
        ("rename net.py:Net --to old.pt", "ckpt rename old.pt --to net.py:Net"),
        ("rename old.pt --to net.Net", "or the class net.py:Net?"),
    ],
)
def test_class_in_the_wrong_place_is_put_into_the_right_one(
    words: str, hint: str, old: Path, ckpt: Run
) -> None:
    (old.parent / "net.py").write_text(NET)
    ran = ckpt(*words.split())
    assert (ran.code, ran.err.splitlines()[1:]) == (2, [f"hint:  {hint}"])


def test_word_of_another_tool_names_the_command(ckpt: Run) -> None:
    ran = ckpt("convert", "old.pt")
    assert ran.err.startswith("error: no command 'convert'; did you mean 'export'?\n")


def test_undo_without_a_registry_says_what_it_is_for(ckpt: Run, folder: Path) -> None:
    ran = ckpt("undo")
    assert (ran.code, ran.err) == (
        2,
        f"error: {folder}: no registry here, and undo is for changes to a registry\n"
        "hint:  ckpt rename FILE --to OLD_DEF  gives a renamed file its old keys back\n",
    )
    assert not (folder / ".ckpt").exists()
