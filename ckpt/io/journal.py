"""Overwrite the beginning of a file in place, so that a crash leaves the old or the new one.

A journal beside the file holds the old and the new beginning until one of them is whole on disk.
If the next process that opens the file finds a journal, it restores the old beginning, provided
that the file is the journal's own and a mixture of both beginnings. Law: a file begins as before
or as wanted, and no other file is touched.
"""

import hashlib
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ckpt.errors import CkptError, ConflictError, DiskError
from ckpt.io.files import sync_folder, write_whole
from ckpt.io.lock import locked_file

_MAGIC = b"ckpt journal 2\n"
_HEAD = struct.Struct("<QQQ")  # inode and bytes of the file, bytes of its beginning
_DIGEST = hashlib.sha256().digest_size
_LIMIT = 1 << 28  # bytes of a beginning; a header of safetensors has 100 MB at most


@dataclass(frozen=True, slots=True)
class _Journal:
    """A journal's content: the file, its old beginning and its new one."""

    inode: int
    size: int
    old: bytes
    new: bytes

    def to_bytes(self) -> bytes:
        body = _HEAD.pack(self.inode, self.size, len(self.old)) + self.old + self.new
        return _MAGIC + hashlib.sha256(body).digest() + body

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The journal at `path`; None if it is not a journal, or not whole."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0))
        except OSError:
            return None
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size > 2 * _LIMIT:
                return None
            data = file.read()
        body = data[len(_MAGIC) + _DIGEST :]
        if not data.startswith(_MAGIC) or len(body) < _HEAD.size:
            return None
        if hashlib.sha256(body).digest() != data[len(_MAGIC) : len(_MAGIC) + _DIGEST]:
            return None
        inode, size, length = _HEAD.unpack_from(body)
        old, new = body[_HEAD.size : _HEAD.size + length], body[_HEAD.size + length :]
        fits = len(old) == len(new) == length <= size
        return cls(inode, size, old, new) if fits else None

    def is_of(self, fd: int) -> bool:
        """Whether it was written for this file in its present size."""
        status = os.fstat(fd)
        return (status.st_ino, status.st_size) == (self.inode, self.size)

    def is_mixture(self, start: bytes) -> bool:
        """Whether a beginning is neither of the two, but made of their bytes."""
        if start in (self.old, self.new):
            return False
        return all(a in (b, c) for a, b, c in zip(start, self.old, self.new, strict=True))


def journal_of(path: Path) -> Path:
    """The path of a file's journal."""
    short = path.name if len(path.name) < 200 else hashlib.sha256(path.name.encode()).hexdigest()
    return path.with_name(f".{short}.ckpt-journal")


def can_overwrite(path: Path) -> bool:
    """Whether an overwrite changes this file only: a regular file without other hard links."""
    status = path.lstat()
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


@contextmanager
def overwriting(path: Path) -> Iterator[None]:
    """Keep other processes from changing a file in place while the block runs.

    Raises:
        ConflictError: Another process is changing it, or has just replaced it.
    """
    with locked_file(path) as fd:
        _recover(path, fd)
        yield


def overwrite_start(path: Path, old: bytes, new: bytes, *, check: Callable[[Path], None]) -> None:
    """Replace the first bytes of a file by as many others, within a block of `overwriting`.

    Args:
        path: A regular file.
        old: Its first bytes, as they were read.
        new: The new bytes.
        check: Inspects the file; if it raises, the old bytes are restored.

    Raises:
        ConflictError: The file changed since it was read, or another file has the journal's name.
        DiskError: The system refused a call; the file is as it was, or will be once it is opened.
    """
    journal = journal_of(path)
    fd = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        if os.path.lexists(journal) and _Journal.read(journal) is None:
            raise ConflictError(f"{journal}: has the name of the journal", hint="move it away")
        if os.pread(fd, len(old), 0) != old:
            raise ConflictError(f"{path}: changed while it was read", hint="try again")
        status = os.fstat(fd)
        try:
            with write_whole(journal, replace=True) as out:
                out.write(_Journal(status.st_ino, status.st_size, old, new).to_bytes())
        except BaseException:
            journal.unlink(missing_ok=True)  # the file has not been touched yet
            raise
        try:
            _write(fd, new)
            check(path)
        except CkptError:
            _write(fd, old)  # if that fails as well, the journal stays
            _remove(journal)
            raise
        _remove(journal)
    except OSError as error:
        raise DiskError(
            f"{path}: {error.strerror}",
            hint="its journal keeps the old beginning" if journal.exists() else None,
        ) from error
    finally:
        os.close(fd)


def recovered(path: Path) -> Path:
    """The path of a file, after its old beginning was restored if a rename was interrupted.

    Raises:
        ConflictError: Another process is changing it right now.
        DiskError: The old beginning cannot be restored.
    """
    journal = _Journal.read(journal_of(path))
    if journal is None or not path.is_file():
        return path
    with path.open("rb") as file:
        if not journal.is_of(file.fileno()):
            return path  # of an earlier file of this name
        torn = journal.is_mixture(file.read(len(journal.old)))
    try:
        with locked_file(path) as fd:
            _recover(path, fd)
    except DiskError as error:
        if not torn:
            return path
        raise DiskError(
            f"{path}: an in-place rename was interrupted and cannot be undone: {error}",
            hint="open it once with write permission",
        ) from error
    return path


def _recover(path: Path, fd: int) -> None:
    """Restore the old beginning if needed; a journal of another file is left alone."""
    name = journal_of(path)
    journal = _Journal.read(name)
    if journal is None or not journal.is_of(fd):
        return
    try:
        start = os.pread(fd, len(journal.old), 0)
        if journal.is_mixture(start):
            _write(fd, journal.old)
        elif start not in (journal.old, journal.new):
            return
        _remove(name)
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}") from error


def _remove(journal: Path) -> None:
    journal.unlink()
    sync_folder(journal.parent)


def _write(fd: int, start: bytes) -> None:
    done = 0
    while done < len(start):
        done += os.pwrite(fd, start[done:], done)
    os.fsync(fd)
