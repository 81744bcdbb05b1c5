"""Objects that are too large for git: Git LFS, and where they are said to belong."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from ckpt.registry.needs import in_git
from tests.cli.support import Git, Run, commit, save

REMARK = "ckpt git-driver install --lfs  or  --store FOLDER  keeps it out of git: docs/sharing.md"
needs_lfs = pytest.mark.skipif(shutil.which("git-lfs") is None, reason="git-lfs is not installed")


@pytest.fixture
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_git, "LARGE_BYTES", 20_000)


def save_large(folder: Path, seed: int, numbers: int = 3000) -> None:
    torch.save({"w": torch.full((numbers,), float(seed))}, folder / "net.pt")


@pytest.mark.usefixtures("low_limit")
def test_growth_past_the_limit_is_said_once(ckpt: Run, git: Git, folder: Path) -> None:
    said = []
    for seed in range(4):
        save_large(folder, seed)  # 12 kB
        said.append(ckpt("register", "net.pt").err)
    assert [REMARK in err for err in said] == [False, True, False, False]
    assert said[1].startswith(".ckpt/objects has 24.0 kB now, and git would copy all of it")
    assert len(said[1].splitlines()) == 2


@pytest.mark.usefixtures("low_limit")
def test_nothing_is_said_where_git_takes_no_objects(
    ckpt: Run, folder: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*registry: str) -> bool:
        save_large(folder, 1, 9000)
        return REMARK in ckpt("register", "net.pt", *registry).err

    (folder / ".gitignore").write_text("ignored/.ckpt/objects\n")
    (folder / ".gitattributes").write_text("lfs/.ckpt/objects/** filter=lfs\n")
    for name, expected in (("ignored", False), ("lfs", False), ("plain", True)):
        (folder / name).mkdir()
        assert said("--registry", name) == expected, name
    (folder / "q").mkdir()
    assert ckpt("register", "net.pt", "--registry", "q", "-q").err == ""
    shutil.rmtree(folder / ".git")
    (folder / "none").mkdir()
    assert not said("--registry", "none")


@needs_lfs
def test_lfs_keeps_objects_out_of_git(ckpt: Run, git: Git, folder: Path) -> None:
    save(folder / "net.pt", 1)
    ckpt("register", "net.pt")
    (folder / ".gitignore").write_text("*.pt\n")
    ran = ckpt("git-driver", "install", "--lfs")
    assert ran.code == 0, ran.err
    assert ".ckpt/objects/** filter=lfs diff=lfs merge=lfs -text  added" in ran.out
    assert "history" not in ran.out
    commit(git)
    (stored,) = folder.glob(".ckpt/objects/??/*")
    path = stored.relative_to(folder).as_posix()
    assert git("show", f"HEAD:{path}").stdout.startswith("version https://git-lfs.github.com/spec")
    assert ckpt("verify").code == 0
    assert ckpt("git-driver", "install", "--lfs", "--json").data["committed"] == 0


@needs_lfs
def test_clone_with_pointers_says_what_fetches_the_objects(
    ckpt: Run, git: Git, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(folder / "net.pt", 1)
    ckpt("register", "net.pt")
    ckpt("git-driver", "install", "--lfs")
    commit(git)
    monkeypatch.setenv("GIT_LFS_SKIP_SMUDGE", "1")
    git("clone", "-q", ".", "clone")
    monkeypatch.chdir(folder / "clone")
    ran = ckpt("export", "v1", "-o", "out.pt")
    assert ran.code == 4
    assert "git lfs pull  fetches all of them" in ran.err
    git("-C", "clone", "lfs", "install", "--local")
    git("-C", "clone", "lfs", "pull")
    assert ckpt("export", "v1", "-o", "out.pt").code == 0
    assert (folder / "clone" / "out.pt").read_bytes() == (folder / "net.pt").read_bytes()


@needs_lfs
def test_objects_in_the_history_are_counted(ckpt: Run, git: Git, folder: Path) -> None:
    save(folder / "net.pt", 1)
    ckpt("register", "net.pt")
    commit(git)
    ran = ckpt("git-driver", "install", "--lfs")
    assert "1 object in git's history already;  git lfs migrate import" in ran.out


def test_lfs_that_is_not_installed_is_named(
    ckpt: Run, git: Git, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "bin").mkdir()
    found = shutil.which("git")
    assert found is not None
    (folder / "bin" / "git").symlink_to(found)
    monkeypatch.setenv("PATH", str(folder / "bin"))
    monkeypatch.setenv("GIT_EXEC_PATH", os.devnull)  # where Debian has no git-lfs, others may
    ran = ckpt("git-driver", "install", "--lfs")
    assert ran.code == 2
    assert "git-lfs is not installed" in ran.err
    assert not (folder / ".gitattributes").exists()
