"""The law of the layout: `ckpt X` is `cli/x`, `ops/x` and `show/x`; no folder is a pile."""

import tomllib
from pathlib import Path

import pytest

import ckpt
from ckpt.cli.commands import COMMANDS, module_of

PACKAGE = Path(ckpt.__file__).parent
NAMES = {*map(module_of, COMMANDS)}
MOST_FILES = 16
BY_COMMAND = {"cli", "ops", "show"}  # whose size is the number of commands


def doors(folder: Path) -> set[str]:
    """Modules and sub-packages."""
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    return files | {path.parent.name for path in folder.glob("*/__init__.py")}


def test_every_command_has_its_modules_and_nothing_else_stands_among_them() -> None:
    assert doors(PACKAGE / "cli") == NAMES | {"commands", "options"}
    names = NAMES - {"completion", "help"}  # matters of the command line alone
    assert doors(PACKAGE / "ops") == names | {"load"}
    assert doors(PACKAGE / "show") == names | {"look", "pages"}


@pytest.mark.parametrize(
    "folder",
    [path.parent for path in sorted(PACKAGE.rglob("__init__.py"))],
    ids=lambda path: path.relative_to(PACKAGE.parent).as_posix(),
)
def test_folder_has_few_modules(folder: Path) -> None:
    if folder.parent == PACKAGE and folder.name in BY_COMMAND:
        return
    assert len(list(folder.glob("[!_]*.py"))) <= MOST_FILES


def test_wheel_has_every_package() -> None:
    """`pyproject.toml` lists them; an editable install finds the others too."""
    text = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    listed = tomllib.loads(text)["tool"]["setuptools"]["packages"]
    folders = [path.parent.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("__init__.py")]
    assert sorted(listed) == sorted({".".join(path.parts) for path in folders} | {"ckpt.models"})
