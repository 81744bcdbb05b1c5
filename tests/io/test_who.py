"""Who writes, asked of the real git."""

import os
import subprocess
from pathlib import Path

import pytest

from ckpt.io.who import MOST_CHARACTERS, who

SETTINGS = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder outside of git, where nobody is configured."""
    for name in [each for each in os.environ if each.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("CKPT_AUTHOR", raising=False)
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def git(*words: str) -> str:
    ran = subprocess.run(["git", *words], check=True, capture_output=True, text=True)
    return ran.stdout.strip()


def test_account_and_host_where_git_knows_nobody(here: Path) -> None:
    import pwd

    assert who() == {"author": pwd.getpwuid(os.geteuid()).pw_name, "host": os.uname().nodename}
    assert not any(here.iterdir())


def test_author_commit_and_changes_are_those_of_git(here: Path) -> None:
    git("init", "-q")
    git("config", "user.name", "Ann Ænn")
    git("config", "user.email", "ann@example.org")
    assert who() == {"author": "Ann Ænn <ann@example.org>", "host": os.uname().nodename}
    for name in ("code.py", "registry.json"):
        (here / name).write_text("1")
    git("add", ".")
    git("commit", "-qm", "one")
    inner = here / "inner"
    inner.mkdir()
    os.chdir(inner)
    clean = who()
    assert (clean["commit"], clean["dirty"]) == (git("rev-parse", "HEAD"), False)
    (here / "registry.json").write_text("2")
    (here / "untracked").write_text("2")
    assert who() == clean, "the registry's own file is not the code"
    (here / "code.py").write_text("2")
    assert who() == {**clean, "dirty": True}


def test_variable_names_the_author_in_one_bounded_line(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CKPT_AUTHOR", "  CI job 7\n\x0bon main ")
    assert who()["author"] == "CI job 7 on main"
    monkeypatch.setenv("CKPT_AUTHOR", "x" * 5000 + "\udcff")
    assert who()["author"] == "x" * MOST_CHARACTERS
    monkeypatch.setenv("CKPT_AUTHOR", "\udcff")
    assert who()["author"] == "?"


def test_folder_that_was_deleted_is_no_error(here: Path) -> None:
    gone = here / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    assert who().keys() == {"author", "host"}


def test_machine_without_git_is_no_error(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git("init", "-q")
    monkeypatch.setenv("PATH", str(here))
    assert who().keys() == {"author", "host"}
