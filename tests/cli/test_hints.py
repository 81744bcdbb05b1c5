"""What people type for something else: the hint is what they meant, and works."""

import shlex
import sys
from pathlib import Path

import pytest
import torch

from tests.cli.support import Run, weights


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
