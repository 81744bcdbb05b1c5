"""The README is true: its commands run, and what it shows is what they print.

`CKPT_WRITE_README=1 pytest tests/test_readme.py` writes what they print into it. In a block
marked ``console vary`` the numbers differ from machine to machine and are not compared.
"""

import doctest
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
_BLOCK = re.compile(r"^```console( vary)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PYTHON = re.compile(r"^```pycon\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a person has right after the clone, and a file that no longer loads."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copy(ROOT / "registry.json", folder)
    for name in (".ckpt", "models"):
        ignore = shutil.ignore_patterns("__pycache__", "lock", "tmp")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    assert shell("ckpt export v1 -o old.pt", folder).startswith("wrote old.pt")
    return folder


def shell(command: str, folder: Path) -> str:
    """What a person sees of one command."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "CKPT_DATA"},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUTF8": "1",
    }
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.stdout


def steps(block: str) -> list[tuple[str, str]]:
    """The commands of a block, each with the output below it."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)
    assert parts[0] == ""
    return list(zip(parts[1::2], parts[2::2], strict=True))


def without_numbers(text: str) -> str:
    return re.sub(r"sha256:[0-9a-f]+|[\d,.]+", "N", re.sub(r" +", " ", text))


def test_readme_shows_what_the_commands_print(clone: Path) -> None:
    text = README.read_text(encoding="utf-8")
    found = text
    for vary, block in _BLOCK.findall(text):
        for command, shown in steps(block):
            printed = shell(command, clone)
            same = without_numbers if vary else str
            if same(re.sub(r"in \d+\.\d+ s", "", printed)) != same(
                re.sub(r"in \d+\.\d+ s", "", shown.rstrip("\n") + "\n" if shown else "")
            ):
                found = found.replace(f"$ {command}\n{shown}", f"$ {command}\n{printed}", 1)
    if os.environ.get("CKPT_WRITE_README"):
        README.write_text(found, encoding="utf-8")
    else:
        assert found == text


def test_readme_python_prints_what_it_shows(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone)
    text = "\n".join(_PYTHON.findall(README.read_text(encoding="utf-8")))
    test = doctest.DocTestParser().get_doctest(text, {}, "README", "README.md", 0)
    assert len(test.examples) > 5
    failures: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=failures.append)
    assert not failures, "".join(failures)
