"""Git, asked through its command line. Nothing here writes to a repository's content."""

import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ckpt.errors import DiskError, UsageError

_HEAD = re.compile(rb"[0-9a-f]+ ([a-z]+) ([0-9]+)\n")


def git(folder: Path, *words: str) -> bytes:
    """What git prints.

    Raises:
        UsageError: Git is not installed, or fails.
        DiskError: The system starts no more processes.
    """
    with _starting():
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        what = said[0] if said else f"exit code {done.returncode}"
        raise UsageError(f"{folder}: git says: {what}", hint="is this a git repository?")
    return done.stdout


def asked(folder: Path, *words: str) -> str | None:
    """What git says of a work tree; None if it is not installed, fails, or takes ten seconds."""
    # Take no lock on git's index, and run no program that the repository's settings name.
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", *words]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else None


def in_work_tree(folder: Path) -> bool:
    """Whether a folder seems to be in a work tree; git is not asked."""
    path = folder.absolute()
    return any((above / ".git").exists() for above in (path, *path.parents))


def is_ignored(folder: Path, path: str) -> bool:
    """Whether git ignores a path, which need not exist; not if it cannot be asked."""
    return asked(folder, "check-ignore", "-q", "--", path) is not None


def blobs(folder: Path, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """The contents of files by git's names, such as ``main:./registry.json``; missing ones not."""
    command = ["git", "cat-file", "--batch"]
    with _starting():
        started = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
    with started as process:
        if process.stdin is None or process.stdout is None:
            raise ValueError("both are pipes")
        for name in names:
            process.stdin.write(name.encode("utf-8", "surrogateescape") + b"\n")
            process.stdin.flush()
            found = _HEAD.fullmatch(process.stdout.readline())
            if found is not None:
                content = process.stdout.read(int(found[2]))
                process.stdout.read(1)
                if found[1] == b"blob":
                    yield name, content


@contextmanager
def _starting() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UsageError("git is not installed, or not on the PATH") from error
    except OSError as error:  # a limit on processes, as in a container
        raise DiskError(f"git cannot be started: {error.strerror}") from error
