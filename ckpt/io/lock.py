"""Locks between processes: on a lock file, or on the very file that is changed.

Law: a lock is the operating system's (flock), never a file's existence: it ends with its
process, however that ends. The lock file's text names its last holder, for messages only.
"""

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from ckpt.errors import ConflictError, DiskError, UsageError
from ckpt.io.files import disk_errors, make_folder

POLL_SECONDS = 0.02
PATIENCE = "CKPT_LOCK_SECONDS"  # the environment variable that says how long to wait
_PATIENCE_SECONDS = 60.0


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold the lock at `path` while the block runs: no other process has it, shared or not.

    Raises:
        ConflictError: Others held it for longer than `CKPT_LOCK_SECONDS`, by default 60;
            the message names one of them.
        DiskError: The lock file is a symbolic link, or the system refused a call.
    """
    from filelock import FileLock, Timeout

    seconds = patience()
    with _explained(path):
        # No fallback to a file whose existence is the lock: it would outlive its holder.
        lock = FileLock(path, timeout=seconds, poll_interval=POLL_SECONDS, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout:
            _give_up(path, seconds)
    try:
        _sign(path)
        yield
    finally:
        lock.release()


@contextmanager
def shared_lock(path: Path) -> Iterator[None]:
    """Share the lock at `path` while the block runs: no process has it exclusively.

    Raises:
        ConflictError: As for `exclusive_lock`.
        DiskError: Likewise.
    """
    if sys.platform == "win32":  # where Python has no shared advisory lock
        with exclusive_lock(path):
            yield
        return
    import fcntl

    seconds = patience()
    with _explained(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    try:
        with _explained(path):
            end = time.monotonic() + seconds
            while True:
                with suppress(BlockingIOError):
                    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    break
                if time.monotonic() > end:
                    _give_up(path, seconds)
                time.sleep(POLL_SECONDS)
        _sign(path)
        yield
    finally:
        # A forked process may have the descriptor too; closing would leave the lock with it.
        with disk_errors(path):
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)


@contextmanager
def locked_file(path: Path) -> Iterator[int]:
    """The file itself, open for writing, and locked against others that do the same.

    Raises:
        ConflictError: Another process has locked it, or has just replaced it.
        DiskError: It cannot be opened for writing.
    """
    import fcntl

    try:
        fd = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise other_rename(path) from error
        if not path.exists() or path.stat().st_ino != os.fstat(fd).st_ino:
            raise other_rename(path)  # it was replaced between the two calls
        yield fd
    finally:
        os.close(fd)


def other_rename(path: Path) -> ConflictError:
    """The error about a file that another process has locked."""
    return ConflictError(
        f"{path}: another process is renaming it in place", hint="try again when it is done"
    )


def patience() -> float:
    """How long to wait for a lock, in seconds.

    Raises:
        UsageError: The environment variable is not a number of seconds.
    """
    text = os.environ.get(PATIENCE, str(_PATIENCE_SECONDS))
    with suppress(ValueError):
        if (seconds := float(text)) >= 0:
            return seconds
    raise UsageError(f"{PATIENCE} is {text!r}, expected seconds", hint=f"e.g. {PATIENCE}=120")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        make_folder(path.parent)
        if path.is_symlink():
            raise DiskError(f"{path}: the lock file is a symbolic link", hint="remove the link")
        yield
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror or error}") from error


def _sign(path: Path) -> None:
    """Write the holder's name into the lock file."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    words = " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]])
    # On a full disk one must still be able to remove things under a lock.
    with suppress(OSError):
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}: {words}, since {now}\n")


def _give_up(path: Path, seconds: float) -> NoReturn:
    holder = "another process"
    with suppress(OSError):
        holder = path.read_text(encoding="utf-8", errors="replace").strip()[:200] or holder
    raise ConflictError(
        f"{path}: locked for {seconds:g} s by {holder}",
        hint=f"wait until that process ends, or end it; to wait longer, set {PATIENCE}=600",
    )
