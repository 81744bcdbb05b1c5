"""The files of a git repository at another revision, in a folder of their own.

Law: nothing is written to the repository, its settings or its index; the folder is removed when the
block ends, also by an exception or a signal. No hook runs.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ckpt.errors import UsageError
from ckpt.io.git import asked, git

PREFIX = "git:"
_MOST_BYTES = 1 << 24  # of a file: definitions are code, and may read small files


@dataclass(frozen=True, slots=True)
class Revision:
    """A repository at a revision.

    Attributes:
        name: As somebody typed it, ``origin/main``.
        commit: Its hexadecimal name.
        repository: The top folder of the present work tree.
        tree: The folder with the files of the revision.
        folder: What was asked for, there; it may not exist.
    """

    name: str
    commit: str
    repository: Path
    tree: Path
    folder: Path

    def now(self, file: Path) -> Path:
        """The place in the present work tree of a file of the revision."""
        return self.repository / file.relative_to(self.tree)


@contextmanager
def at_revision(folder: Path, name: str) -> Iterator[Revision]:
    """The files of the repository around a folder, as a revision has them.

    Large files, and those of submodules, are left out; files of Git LFS are pointers.

    Args:
        folder: A folder of the work tree.
        name: E.g. ``origin/main``; ``git:`` before it is understood.

    Raises:
        UsageError: There is no such revision or no repository, or git is not installed.
    """
    name = name.removeprefix(PREFIX)
    folder = folder.resolve()
    top = git(folder, "rev-parse", "--show-toplevel").decode("utf-8", "surrogateescape")
    repository = Path(top.removesuffix("\n"))
    commit = _commit(repository, name)
    with TemporaryDirectory(prefix="ckpt-revision-", ignore_cleanup_errors=True) as temporary:
        tree = Path(temporary).resolve() / "tree"
        tree.mkdir()
        _check_out(repository, commit, tree, Path(temporary) / "index")
        there = tree / folder.relative_to(repository)
        there.mkdir(parents=True, exist_ok=True)  # a process may begin there
        yield Revision(name, commit, repository, tree, there)


def _commit(repository: Path, name: str) -> str:
    dashed = name.startswith("-") or not name
    found = (
        None if dashed else asked(repository, "rev-parse", "--verify", "-q", f"{name}^{{commit}}")
    )
    if found:
        return found
    raise UsageError(
        f"{PREFIX}{name}: no such revision in {repository}", hint=_what_brings(repository, name)
    )


def _what_brings(repository: Path, name: str) -> str:
    """What to type if there is no revision of a name."""
    if asked(repository, "rev-parse", "--verify", "-q", "HEAD") is None:
        return "it has no commits yet"
    remote, slash, branch = name.partition("/")
    if slash and branch and remote in (asked(repository, "remote") or "").split():
        # A clone of one branch has no name for the others, unless the fetch gives it.
        return f"to bring it:  git fetch {remote} {branch}:refs/remotes/{name}"
    if asked(repository, "rev-parse", "--is-shallow-repository") == "true":
        return "to bring the commits that this shallow clone lacks:  git fetch --unshallow"
    return "this may bring it:  git fetch --all" if name else f"e.g.  {PREFIX}HEAD~1"


def _check_out(repository: Path, commit: str, tree: Path, index: Path) -> None:
    environment = {**os.environ, "GIT_INDEX_FILE": str(index), "GIT_LFS_SKIP_SMUDGE": "1"}
    listed = git(repository, "ls-tree", "-r", "-l", "-z", "--full-tree", commit)
    rows = [row.partition(b"\t") for row in listed.split(b"\0") if row]
    names = [name for about, _, name in rows if _is_small(about)]
    for words, given in (
        (["read-tree", commit], b""),
        (["checkout-index", "-z", "--stdin", f"--prefix={tree}/"], b"\0".join([*names, b""])),
    ):
        done = subprocess.run(
            ["git", "-c", "core.fsmonitor=false", *words],
            cwd=repository,
            env=environment,
            input=given,
            capture_output=True,
        )
        if done.returncode:
            said = " ".join(done.stderr.decode("utf-8", "replace").split())
            raise UsageError(f"{repository}: git cannot check out {commit[:12]}: {said}")


def _is_small(about: bytes) -> bool:
    """Whether a line of ``git ls-tree -l`` is of a file that is checked out."""
    _mode, kind, _name, size = about.split()
    return kind == b"blob" and int(size) <= _MOST_BYTES
