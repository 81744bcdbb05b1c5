"""Manual pages of all commands, read by the programs that show such pages."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.support import Run
from tests.cli.test_help import ALL

CHECKS = {
    "groff": ["groff", "-man", "-ww", "-z"],
    "mandoc": ["mandoc", "-T", "lint", "-W", "warning"],
}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--man", ""), "error: Invalid value for '--man': the path is empty\nhint:  "),
        (
            ("rename", "--man", "m"),
            "error: --man writes all pages, not those of rename\nhint:  ckpt help --man m\n",
        ),
    ],
    ids=["empty", "one command"],
)
def test_pages_go_into_a_folder_all_at_once(
    words: tuple[str, ...], error: str, ckpt: Run, folder: Path
) -> None:
    ran = ckpt("help", *words)
    assert (ran.code, ran.out, ran.err[: len(error)]) == (2, "", error)
    assert [*folder.iterdir()] == []


@pytest.fixture
def man(ckpt: Run, folder: Path) -> Path:
    ran = ckpt("help", "--man", "man")
    assert (ran.code, ran.out, ran.err) == (0, f"wrote {len(ALL)} pages into man/man1\n", "")
    return folder / "man" / "man1"


@pytest.mark.parametrize("program", CHECKS)
def test_page_of_every_command_is_valid(man: Path, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    pages = sorted(man.iterdir())
    assert {page.name for page in pages} == {f"{name}.1" for name in ALL}
    assert all(page.read_bytes().isascii() for page in pages)
    done = subprocess.run([*CHECKS[program], *pages], capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_page_says_what_the_option_help_prints(ckpt: Run, man: Path) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    heads = {"Usage:", "Options:", "Commands:", "Examples:"}
    for name in ("ckpt-rename", "ckpt-migrate-new", "ckpt-ls"):
        command = ["groff", "-man", "-T", "utf8", "-P", "-cbou", "-rLL=500n", man / f"{name}.1"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        shown = shown.translate({ord("‐"): "-", ord("−"): "-", ord("’"): "'", ord("…"): "..."})
        printed = ckpt(*name.split("-")[1:], "--help").out.replace("…", "...")
        assert [each for each in printed.split() if each not in shown and each not in heads] == []


def test_man_finds_the_page_beside_the_command(ckpt: Run, folder: Path) -> None:
    if shutil.which("man") is None:
        pytest.skip("man is not installed")
    (folder / "venv" / "bin").mkdir(parents=True)
    assert ckpt("help", "--man", "venv/share/man").code == 0
    path = f"{folder / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {k: v for k, v in os.environ.items() if k != "MANPATH"} | {"PATH": path}
    done = subprocess.run(
        ["man", "-w", "ckpt-rename"], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(folder / "venv/share/man/man1/ckpt-rename.1")
