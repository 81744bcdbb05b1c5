"""Overwrite the beginning of a file in place, so that it is the old or the new one after a crash.

What stands there is first kept in a journal beside the file; it is removed once the disk has the
new beginning. Whoever opens the file next and finds a journal puts the old beginning back. Law:
after `recovered`, a file begins as it did before an `overwrite_start` that was cut off, or as it
should after one that was not.
"""

import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ckpt.errors import ConflictError, DiskError, IntegrityError, UsageError
from ckpt.files import sync_folder, write_whole

_MAGIC = b"ckpt journal 1\n"
_DIGEST = hashlib.sha256().digest_size


def journal_of(path: Path) -> Path:
    """Where the journal of a file stands while its beginning is written."""
    return path.with_name(f".{path.name}.ckpt-journal")


def can_overwrite(path: Path) -> bool:
    """Whether nothing else would change with the file: one regular file under one name."""
    status = path.lstat()
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def overwrite_start(path: Path, start: bytes, *, check: Callable[[Path], None]) -> None:
    """Replace the first bytes of a file by as many others.

    Args:
        path: A regular file.
        start: The new bytes; the file has as many.
        check: Looks at the file, and raises if it must be as it was.

    Raises:
        ConflictError: Somebody else is at it.
        DiskError: The system refused a call; the file is as it was, or will be once it is opened.
    """
    journal = journal_of(path)
    try:
        with _locked(path) as fd:
            old = os.pread(fd, len(start), 0)
            if len(old) != len(start):
                raise UsageError(f"{path}: changed while it was read")
            with write_whole(journal) as out:
                out.write(_MAGIC + hashlib.sha256(old).digest() + old)
            try:
                _write(fd, start)
                check(path)
            except BaseException:
                _write(fd, old)
                raise
            finally:
                journal.unlink()
                sync_folder(path.parent)
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}") from error


def recovered(path: Path) -> Path:
    """The path of a file, whose beginning was put back if a journal stands beside it.

    Raises:
        ConflictError: Somebody is at it right now.
        IntegrityError: The journal is none, and says nothing of the file.
    """
    journal = journal_of(path)
    if not journal.exists() or not path.exists():
        return path
    try:
        with _locked(path) as fd:
            if not journal.exists():  # who was at it has finished
                return path
            data = journal.read_bytes()
            old = data[len(_MAGIC) + _DIGEST :]
            if (
                data[: len(_MAGIC)] != _MAGIC
                or hashlib.sha256(old).digest() != data[len(_MAGIC) : len(_MAGIC) + _DIGEST]
            ):
                raise IntegrityError(
                    f"{journal}: no journal of ckpt", hint=f"remove it if {path} is as it should be"
                )
            _write(fd, old)
            journal.unlink()
            sync_folder(path.parent)
    except OSError as error:
        raise DiskError(
            f"{path}: a rename in place was cut off, and cannot be taken back: {error.strerror}",
            hint="open it once where it can be written",
        ) from error
    return path


def _write(fd: int, start: bytes) -> None:
    done = 0
    while done < len(start):
        done += os.pwrite(fd, start[done:], done)
    os.fsync(fd)


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The file, open for writing and locked against others that do the same."""
    fd = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(
                f"{path}: another process is renaming it in place", hint="try again when it is done"
            ) from error
        yield fd
    finally:
        os.close(fd)
