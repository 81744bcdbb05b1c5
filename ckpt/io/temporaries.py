"""Temporary files and folders beside what they become, and leftovers of killed writers.

Law: a temporary is locked (flock) by its writer from its first moment on. One that nobody holds is
a leftover; no other one is removed.
"""

import errno
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ckpt.io.mounts import doubt_of_locks
from ckpt.io.rights import EVERYBODY, Rights, restrict

_SWAP = 2  # RENAME_EXCHANGE of Linux' renameat2(2), RENAME_SWAP of macOS' renamex_np(2)
_MOST_SWEPT = 100  # times that other processes take a new temporary for a leftover
_HERE = -100  # AT_FDCWD, Linux
_NO_SWAP = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


@dataclass(frozen=True, slots=True)
class Leftover:
    """A temporary file or folder that this process does not write.

    Attributes:
        path: Its path.
        nbytes: Its bytes, with those of the files in a folder.
        modified: Seconds since 1970.
        kept: Why it is not removed; empty if its writer has ended.
    """

    path: Path
    nbytes: int
    modified: float
    kept: str = ""


def is_temporary(name: str) -> bool:
    """Whether a temporary file or folder has such a name."""
    return re.fullmatch(r"\.ckpt-[0-9a-f]{16}\.tmp", name) is not None


@contextmanager
def temporary_file(folder: Path, *, rights: Rights = EVERYBODY) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file in `folder`, deleted when the block ends unless it was renamed."""
    # O_EXCL neither follows a link nor opens an existing file.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    path, fd = _held(folder, lambda path: os.open(path, flags, rights.mode(None)))
    try:
        restrict(fd, rights)
        with os.fdopen(fd, "wb") as out:
            yield path, out
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """A new folder in `folder`, deleted with its files at the end unless it was renamed."""

    def made(path: Path) -> int:
        path.mkdir()
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)

    path, fd = _held(folder, made)
    try:
        yield path
    finally:
        if path.exists():
            _remove(path)
        os.close(fd)


def put_in_place(new: Path, path: Path) -> None:
    """Give a folder the name of another; what was there is at `new` or gone afterwards."""
    if not _exchange(new, path):
        with temporary_folder(path.parent) as aside:
            path.rename(aside / "old")
            new.rename(path)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names of one file system.

    Returns:
        False if the system or the file system cannot; nothing was changed then.

    Raises:
        OSError: The system refused.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform == "darwin":
        done = libc.renamex_np(*names, _SWAP)
    elif hasattr(libc, "renameat2"):
        done = libc.renameat2(_HERE, names[0], _HERE, names[1], _SWAP)
    else:
        return False
    if done == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_SWAP:
        return False
    raise OSError(number, os.strerror(number), str(other))


def leftovers(folder: Path, *, local: bool = False, remove: bool = False) -> Iterator[Leftover]:
    """The temporaries in a folder that this process does not write.

    Args:
        folder: The folder.
        local: Whether no other machine writes there, whatever the file system.
        remove: Whether to remove those of this user whose writers have ended.
    """
    for name in sorted(filter(is_temporary, os.listdir(folder))):
        try:
            yield _leftover(folder / name, local=local, remove=remove)
        except FileNotFoundError:
            continue  # its writer has just finished it
        except OSError as error:
            yield Leftover(folder / name, 0, 0, error.strerror or str(error))


def sweep(folder: Path, *, local: bool = False) -> None:
    """Remove leftovers of killed writers from a folder, before the next file is written there."""
    with suppress(OSError):  # of a folder that can be written to, but not listed
        list(leftovers(folder, local=local, remove=True))


def _held(folder: Path, make: Callable[[Path], int]) -> tuple[Path, int]:
    """A new temporary, made and locked before anybody takes it for a leftover."""
    swept = 0
    while True:
        path = folder / f".ckpt-{os.urandom(8).hex()}.tmp"
        try:
            fd = make(path)
        except FileNotFoundError:
            swept += 1  # another process may take a folder for a leftover before it is opened
            if swept == _MOST_SWEPT or not folder.is_dir():
                raise  # /proc, for one, says so of every new file
            continue
        if not _is_held_by_others(fd) and os.fstat(fd).st_nlink:
            return path, fd
        os.close(fd)


def _is_held_by_others(fd: int) -> bool:
    """Lock it; where the file system has no locks, nothing is removed either."""
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _leftover(path: Path, *, local: bool, remove: bool) -> Leftover:
    import fcntl

    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        nbytes = status.st_size
        if stat.S_ISDIR(status.st_mode):
            nbytes = sum(inner.lstat().st_size for inner in path.iterdir())
        kept = "" if local else doubt_of_locks(path.parent) or ""
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            kept = "not a file"
        if status.st_uid != os.geteuid():
            kept = "of another user"
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            kept = "being written"
        if remove and not kept:
            _remove(path)
        return Leftover(path, nbytes, status.st_mtime, kept)
    finally:
        os.close(fd)


def _remove(path: Path) -> None:
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    import shutil

    shutil.rmtree(path, ignore_errors=True)
