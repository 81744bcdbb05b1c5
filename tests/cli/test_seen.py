"""A pull that moves numbers is said once, by the next command."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.support import Git, Run, commit, register_seeds, tree

SAYS = "net:v3 is another version since a merge; that version is v4 now\n"


def pull(shared: Run, git: Git, folder: Path, *between: str) -> None:
    """An own v3, and one that was pushed by somebody else; a command is run before the merge."""
    git("checkout", "-q", "other")
    register_seeds(shared, folder, 3)
    commit(git)
    git("update-ref", "refs/remotes/origin/other", "other")
    git("checkout", "-q", "main")
    register_seeds(shared, folder, 4)
    if between:
        assert shared(*between).err == ""
    commit(git)
    git("merge", "-q", "other", "-m", "m")


@pytest.mark.parametrize("words", [("ls",), ("show", "net:v3", "--json"), ("alias", "x", "net:v4")])
def test_next_command_says_it_once(
    shared: Run,
    git: Git,
    folder: Path,
    words: tuple[str, ...],
) -> None:
    pull(shared, git, folder, "ls")
    assert shared("ls", "-q").err == "", "nor is it forgotten"
    before = tree(folder / ".ckpt")
    ran = shared(*words)
    assert (ran.code, ran.err) == (0, SAYS)
    assert words[0] == "alias" or tree(folder / ".ckpt") == before
    assert (shared("ls").err, shared("verify").err) == ("", "")


def test_number_that_register_alone_has_shown_is_said(shared: Run, git: Git, folder: Path) -> None:
    pull(shared, git, folder)
    assert shared("ls").err == SAYS
    assert shared("ls").err == ""


def test_fast_forward_is_said_too(shared: Run, git: Git, folder: Path) -> None:
    """As of somebody whose git had no driver, and who took their own side."""
    register_seeds(shared, folder, 3)
    assert shared("ls").err == ""
    commit(git)
    document = json.loads((folder / "registry.json").read_text())
    versions = document["models"]["net"]["versions"]
    versions["v3"] |= {"content": "sha256:" + "0" * 64}
    (folder / "registry.json").write_text(json.dumps(document))
    ran = shared("ls")
    gone = "net:v3 is another version since a merge; that version is gone: ckpt fsck\n"
    assert (ran.code, ran.err) == (0, gone)
    assert shared("ls").err == ""


def test_own_writes_and_damage_are_not_said(
    shared: Run,
    git: Git,
    folder: Path,
) -> None:
    register_seeds(shared, folder, 3)
    for words in (("rm", "net:v2", "--yes"), ("gc", "--keep-removed", "0", "--yes"), ("ls",)):
        ran = shared(*words)
        assert (ran.code, ran.err) == (0, "")
    (folder / "registry.json").write_text("{")
    assert "another version" not in shared("ls").err
    for seen in (folder / ".git").glob("ckpt-seen-*"):
        seen.write_bytes(b"\xff\n\n x y")
    assert shared("fsck").code == 4


def test_linked_work_tree_has_its_own(shared: Run, git: Git, folder: Path) -> None:
    git("worktree", "add", "-q", "linked", "-b", "linked")
    install = ["ckpt", "git-driver", "install"]
    subprocess.run(install, cwd=folder / "linked", check=True, capture_output=True)
    assert len(list(folder.glob(".git/worktrees/linked/ckpt-seen-*"))) == 1
