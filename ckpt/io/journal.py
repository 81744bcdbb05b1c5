"""Overwrite the beginning of a file in place, so that a crash leaves the old or the new one.

A journal beside the file holds the old and the new beginning until one of them is whole on disk.
Readers only refuse a file that is a mixture of both. `recover` and the next `overwriting` restore
the old beginning. Law: a file begins as before or as wanted, and no other file is touched: a
journal counts only if the file's owner, root or this user wrote it for this very file.
"""

import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Self

from ckpt.errors import CkptError, ConflictError, DiskError, IntegrityError
from ckpt.io.durable import sync_folder
from ckpt.io.files import disk_errors, open_plain, write_whole
from ckpt.io.lock import locked_file, other_rename
from ckpt.io.rights import rights_of

_MAGIC = b"ckpt journal 2\n"
_HEAD = struct.Struct("<QQQ")  # inode and bytes of the file, bytes of its beginning
_DIGEST = 32  # bytes of a SHA-256
_LIMIT = 1 << 28  # bytes of a beginning; a header of safetensors has 100 MB at most
# Whether a file of so many bytes may begin like this.
IsStart = Callable[[bytes, int], bool]


@dataclass(frozen=True, slots=True)
class _Journal:
    """A journal's content: the file, its old beginning and its new one; and its owner."""

    inode: int
    size: int
    old: bytes
    new: bytes
    owner: int

    def to_bytes(self) -> bytes:
        body = _HEAD.pack(self.inode, self.size, len(self.old)) + self.old + self.new
        return _MAGIC + _sha256(body) + body

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The journal at `path`; None if it is not a journal, or not whole."""
        try:
            fd = open_plain(path, single=True)
        except (OSError, IntegrityError):
            return None
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            data = file.read() if status.st_size <= 2 * _LIMIT else b""
        body = data[len(_MAGIC) + _DIGEST :]
        if not data.startswith(_MAGIC) or len(body) < _HEAD.size:
            return None
        if _sha256(body) != data[len(_MAGIC) : len(_MAGIC) + _DIGEST]:
            return None
        inode, size, length = _HEAD.unpack_from(body)
        old, new = body[_HEAD.size : _HEAD.size + length], body[_HEAD.size + length :]
        fits = len(old) == len(new) == length <= size
        return cls(inode, size, old, new, status.st_uid) if fits else None

    def is_of(self, fd: int) -> bool:
        """Whether somebody who may change this file wrote it for its present size."""
        status = os.fstat(fd)
        is_trusted = self.owner in (status.st_uid, os.geteuid(), 0)
        return is_trusted and (status.st_ino, status.st_size) == (self.inode, self.size)

    def is_mixture(self, start: bytes) -> bool:
        """Whether a beginning is neither of the two, but made of their bytes."""
        if start in (self.old, self.new):
            return False
        return all(a in (b, c) for a, b, c in zip(start, self.old, self.new, strict=True))


def journal_of(path: Path) -> Path:
    """The path of a file's journal."""
    short = path.name if len(path.name) < 200 else _sha256(path.name.encode()).hex()
    return path.with_name(f".{short}.ckpt-journal")


def _sha256(data: bytes) -> bytes:
    import hashlib  # few files have a journal, and all are asked for one

    return hashlib.sha256(data).digest()


def can_overwrite(path: Path) -> bool:
    """Whether an overwrite changes this file only: a regular file without other hard links."""
    status = path.lstat()
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


@contextmanager
def overwriting(path: Path, *, is_start: IsStart) -> Iterator[None]:
    """Keep other processes from changing a file in place while the block runs.

    An interrupted change is undone first, as `recover` does.

    Raises:
        ConflictError: Another process is changing it, or has just replaced it.
    """
    with locked_file(path) as fd:
        _recover(path, fd, is_start)
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
        DiskError: The system refused a call; the file is as it was, or `recover` restores it.
    """
    journal = journal_of(path)
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        status = os.fstat(fd)
        left = _Journal.read(journal)
        is_own = left is not None and left.owner in (status.st_uid, os.geteuid())
        if os.path.lexists(journal) and not is_own:
            raise ConflictError(f"{journal}: has the name of the journal", hint="move it away")
        if os.pread(fd, len(old), 0) != old:
            raise ConflictError(f"{path}: changed while it was read", hint="try again")
        content = _Journal(status.st_ino, status.st_size, old, new, os.geteuid()).to_bytes()
        try:
            with write_whole(journal, replace=True, rights=rights_of(fd)) as out:
                out.write(content)
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
            hint=_repair(path) if journal.exists() else None,
        ) from error
    finally:
        os.close(fd)


def expect_settled(path: Path) -> None:
    """Refuse a file whose change in place was interrupted; nothing is written.

    Raises:
        ConflictError: Another process is changing it right now.
        IntegrityError: It was interrupted; `recover` restores the file.
    """
    import fcntl

    journal = _Journal.read(journal_of(path))
    if journal is None or not path.is_file():
        return
    with disk_errors(path), path.open("rb") as file:
        if not journal.is_of(file.fileno()) or not journal.is_mixture(file.read(len(journal.old))):
            return
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise other_rename(path) from error
    raise IntegrityError(f"{path}: an in-place rename was interrupted", hint=_repair(path))


def recover(path: Path, *, is_start: IsStart) -> bool | None:
    """Restore the old beginning of a file whose change in place was interrupted.

    Args:
        path: The file.
        is_start: Whether a file of so many bytes may begin like this; nothing else is restored.

    Returns:
        Whether it was restored; False if the file is whole and only the journal was left, None if
        there is no journal.

    Raises:
        ConflictError: Another process is changing it right now.
        IntegrityError: What has the journal's name is not a journal of this file.
        DiskError: The file cannot be opened for writing.
    """
    journal = journal_of(path)
    if not os.path.lexists(journal):
        return None
    with locked_file(path) as fd:
        restored = _recover(path, fd, is_start)
    if restored is None:
        raise IntegrityError(
            f"{journal}: not a journal of this file that its owner wrote; nothing was changed",
            hint="remove it if no rename in place was interrupted here",
        )
    return restored


def _recover(path: Path, fd: int, is_start: IsStart) -> bool | None:
    """As `recover`; None if the journal is not one of this file, and is left alone."""
    name = journal_of(path)
    journal = _Journal.read(name)
    if journal is None or not journal.is_of(fd):
        return None
    with disk_errors(path):
        start = os.pread(fd, len(journal.old), 0)
        torn = journal.is_mixture(start)
        if torn and is_start(journal.old, journal.size):
            _write(fd, journal.old)
        elif start not in (journal.old, journal.new):
            return None
        _remove(name)
    return torn


def _repair(path: Path) -> str:
    return f"to restore the keys that it had before:  ckpt repair {quote(str(path))}"


def _remove(journal: Path) -> None:
    journal.unlink()
    sync_folder(journal.parent)


def _write(fd: int, start: bytes) -> None:
    done = 0
    while done < len(start):
        done += os.pwrite(fd, start[done:], done)
    os.fsync(fd)
