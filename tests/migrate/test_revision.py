"""A definition as another revision has it; the repository stays as it is."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from shlex import split

import pytest

from ckpt.errors import UsageError
from ckpt.migrate.described import Builder, BuildError
from ckpt.migrate.revision import at_revision
from tests.cli.support import Git, commit, tree


def keys(folder: Path, revision: str, ref: str = "net.py:Net") -> list[str]:
    with (
        at_revision(folder, revision) as found,
        Builder(found.folder, seconds=300, revision=found) as builder,
    ):
        return [entry.key for entry in builder.describe(ref).state.entries]


@pytest.mark.long
def test_class_is_as_the_revision_has_it(net: Path, git: Git, folder: Path) -> None:
    commit(git)
    net.write_text(net.read_text().replace("conv1", "embed1"))
    (folder / "untracked.py").write_text("")
    before = tree(folder)
    assert keys(folder, "git:HEAD")[0] == "conv1.weight"
    assert tree(folder) == before
    assert git("status", "--porcelain").stdout == " M net.py\n?? untracked.py\n"
    assert git("worktree", "list").stdout.count("\n") == 1


@pytest.mark.long
def test_files_are_those_of_the_commit_and_go_with_the_block(
    net: Path, git: Git, folder: Path
) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "a b.txt").write_text("x")
    (folder / "large.bin").write_bytes(bytes((1 << 24) + 1))
    (folder / "link").symlink_to("net.py")
    commit(git)
    with at_revision(folder / "sub", "HEAD") as found:
        there = {str(it.relative_to(found.tree)) for it in found.tree.rglob("*") if it.is_file()}
        assert there == {"net.py", "sub/a b.txt", "link"}
        assert found.folder == found.tree / "sub"
        assert found.commit == git("rev-parse", "HEAD").stdout.strip()
        assert found.now(found.tree / "net.py") == folder.resolve() / "net.py"
    assert not found.tree.parent.exists()
    with pytest.raises(KeyError), at_revision(folder, "HEAD") as found:
        raise KeyError
    assert not found.tree.parent.exists()


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("origin/mian", "this may bring it:  git fetch --all"),
        ("v9", "this may bring it:  git fetch --all"),
        ("--help", "this may bring it:  git fetch --all"),
        ("", "e.g.  git:HEAD~1"),
    ],
)
def test_unknown_revision_is_one_line(
    net: Path, git: Git, folder: Path, name: str, hint: str
) -> None:
    commit(git)
    with pytest.raises(UsageError, match="no such revision") as refused, at_revision(folder, name):
        pass
    assert refused.value.hint == hint


@pytest.mark.long
def test_what_a_shallow_clone_lacks_is_what_the_hint_brings(
    net: Path, git: Git, folder: Path
) -> None:
    git("commit", "-q", "--allow-empty", "-m", "first")
    commit(git)
    git("branch", "feature")
    clone = folder / "clone"
    git("clone", "-q", "--depth", "1", "-b", "feature", f"file://{folder}", str(clone))
    for name in ("HEAD~1", "origin/main"):
        with (
            pytest.raises(UsageError, match="no such revision") as refused,
            at_revision(clone, name),
        ):
            pass
        command = str(refused.value.hint).partition("  ")[2]
        assert command.startswith("git fetch ")
        subprocess.run(split(command), cwd=clone, check=True, capture_output=True)
        with at_revision(clone, name):
            pass


@pytest.mark.long
def test_repository_without_commits_is_said(net: Path, git: Git, folder: Path) -> None:
    with pytest.raises(UsageError) as refused, at_revision(folder, "HEAD"):
        pass
    assert refused.value.hint == "it has no commits yet"


@pytest.mark.long
def test_no_repository_and_no_git_are_one_line(
    net: Path, git: Git, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(folder / "nowhere"))
    with pytest.raises(UsageError, match="git says"), at_revision(folder, "HEAD"):
        pass
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(UsageError, match="git is not installed"), at_revision(folder, "HEAD"):
        pass


@pytest.mark.long
def test_modules_of_the_project_are_those_of_the_revision(
    git: Git, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The project is importable, as after `pip install -e`."""
    package = folder / "src" / "project"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "layers.py").write_text("from torch import nn\nclass Layer(nn.Linear): pass\n")
    (package / "net.py").write_text(
        "from torch import nn\nfrom project.layers import Layer\n"
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.a = Layer(2, 2)\n"
    )
    commit(git)
    (package / "layers.py").write_text(
        "from torch import nn\nclass Layer(nn.Linear):\n"
        "    def __init__(self, a, b):\n        super().__init__(a, b, bias=False)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder / "src"))
    for ref in ("project.net:Net", "src/project/net.py:Net"):
        assert keys(folder, "HEAD", ref) == ["a.weight", "a.bias"]
        with Builder(folder, seconds=300) as now:
            assert [it.key for it in now.describe(ref).state.entries] == ["a.weight"]


@pytest.mark.long
def test_module_that_only_the_present_work_tree_has_is_refused(
    git: Git, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its class would be compared with itself."""
    (folder / "net.py").write_text("from extra import Net\n")
    commit(git)
    (folder / "path").mkdir()
    (folder / "path" / "extra.py").write_text("from torch import nn\nclass Net(nn.Flatten): pass\n")
    monkeypatch.setenv("PYTHONPATH", str(folder / "path"))
    with pytest.raises(BuildError, match="imports extra of the present work tree"):
        keys(folder, "HEAD")


@pytest.mark.long
def test_fault_39_ctrl_c_removes_the_files_of_the_revision(
    net: Path, git: Git, folder: Path, tmp_path: Path
) -> None:
    net.write_text(
        "import time\nopen('started', 'w').close()\nwhile True: time.sleep(60)\nclass Net: pass\n"
    )
    commit(git)
    temporary = folder / "temporary"
    temporary.mkdir()
    words = [sys.executable, "-m", "ckpt", "guard", "net.py:Net", "--against", "git:HEAD"]
    with subprocess.Popen(
        words, cwd=folder, env={**os.environ, "TMPDIR": str(temporary)}, stderr=subprocess.PIPE
    ) as process:
        while not [*temporary.rglob("started")]:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.communicate()[1].endswith(b"error: interrupted\n")
    assert process.returncode == 130
    assert not [*temporary.iterdir()]
