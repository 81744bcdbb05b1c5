import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ckpt.cli import main
from tests.cli.support import Git, Ran, Run, commit, save, weights


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ckpt(folder: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command in the empty folder."""

    def run(*words: str) -> Ran:
        capfd.readouterr()
        with pytest.raises(SystemExit) as done:
            main(words)
        out, err = capfd.readouterr()
        assert isinstance(done.value.code, int)
        return Ran(done.value.code, out, err)

    return run


@pytest.fixture
def old(folder: Path) -> Path:
    """`old.pt`: a file that no longer fits, since conv was renamed to embed."""
    path = folder / "old.pt"
    torch.save(weights(), path)
    return path


@pytest.fixture
def git(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """Run git in a repository of its own, with no settings of the machine."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    for name in [each for each in os.environ if each.startswith("GIT_")]:
        monkeypatch.delenv(name)
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    person = {"NAME": "Ann", "EMAIL": "ann@example.org"}
    settings |= {f"GIT_{who}_{k}": v for who in ("AUTHOR", "COMMITTER") for k, v in person.items()}
    for name, value in {
        **settings,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }.items():
        monkeypatch.setenv(name, value)

    def run(*words: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return done

    run("init", "-q", "-b", "main")
    return run


@pytest.fixture
def shared(ckpt: Run, git: Git, folder: Path) -> Run:
    """`net` v1 and v2 on `main`, `prod` at v1, and a branch `other` that begins there."""
    for seed in (1, 2):
        save(folder / "net.pt", seed)
        assert ckpt("register", "net.pt").code == 0
    assert ckpt("alias", "prod", "net:v1").code == 0
    assert ckpt("git-driver", "install").code == 0
    (folder / ".gitignore").write_text("*.pt\n")
    commit(git)
    git("branch", "other")
    return ckpt
