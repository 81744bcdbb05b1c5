"""Locks between processes: on a lock file, or on the very file that is changed.

Law: a lock is the operating system's (flock), never a file's existence: it ends with its
process, however that ends. The lock file's text names its last holder, for messages only.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from ckpt.errors import ConflictError, DiskError, UsageError
from ckpt.io.durable import make_folder
from ckpt.io.files import disk_errors, open_plain, unlinked

POLL_SECONDS = 0.02
PATIENCE = "CKPT_LOCK_SECONDS"  # the environment variable that says how long to wait
_PATIENCE_SECONDS = 60.0


def exclusive_lock(path: Path) -> AbstractContextManager[None]:
    """Hold the lock at `path` while the block runs: no other process has it, shared or not.

    Raises:
        ConflictError: Others held it for longer than `CKPT_LOCK_SECONDS`, by default 60;
            the message names one of them.
        IntegrityError: The lock file is a link, has a second name, or is not a file.
        DiskError: The system refused a call.
    """
    return _locked(path, exclusive=True)


def shared_lock(path: Path) -> AbstractContextManager[None]:
    """Share the lock at `path` while the block runs: no process has it exclusively.

    Raises:
        CkptError: As for `exclusive_lock`.
    """
    return _locked(path, exclusive=False)


@contextmanager
def _locked(path: Path, *, exclusive: bool) -> Iterator[None]:
    import fcntl

    seconds = patience()
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    with disk_errors(path):
        make_folder(unlinked(path.parent))
        end = time.monotonic() + seconds
        while not _taken(fd := open_plain(path, os.O_RDWR | os.O_CREAT, single=True), kind):
            holder = os.pread(fd, 200, 0).decode("utf-8", "replace").strip()
            os.close(fd)
            if time.monotonic() > end:
                raise _still_locked(path, seconds, holder or "another process")
            time.sleep(POLL_SECONDS)
    try:
        _sign(fd)
        yield
    finally:
        # A forked process may have the descriptor too; closing would leave the lock with it.
        with disk_errors(path):
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)


def _taken(fd: int, kind: int) -> bool:
    """Lock a file if no other process keeps it, and if nobody has removed its name meanwhile."""
    import fcntl

    with suppress(BlockingIOError):
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
        return os.fstat(fd).st_nlink > 0
    return False


@contextmanager
def locked_file(path: Path) -> Iterator[int]:
    """The file itself, open for writing, and locked against others that do the same.

    Raises:
        ConflictError: Another process has locked it, or has just replaced it.
        DiskError: It cannot be opened for writing.
    """
    import fcntl

    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
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


def _sign(fd: int) -> None:
    """Write the holder's name into the lock file."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    words = " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]])
    text = f"process {os.getpid()} on {os.uname().nodename}: {words}, since {now}\n"
    # On a full disk one must still be able to remove things under a lock.
    with suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, text.encode("utf-8", "surrogateescape"), 0)


def _still_locked(path: Path, seconds: float, holder: str) -> ConflictError:
    return ConflictError(
        f"{path}: locked for {seconds:g} s by {holder}",
        hint=f"wait until that process ends, or end it; to wait longer, set {PATIENCE}=600",
    )
