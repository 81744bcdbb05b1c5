"""Writes that appear whole or not at all.

Law of `write_whole`: when the `with` block ends, the complete file exists under its name
and is on disk; when it raises, the name is as it was before.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ckpt.errors import CkptError, DiskError, IntegrityError, UsageError
from ckpt.io.durable import early_sync, name_new, sync_file, sync_folder
from ckpt.io.rights import (
    EVERYBODY,
    OWNER,
    Rights,
    is_shared,
    keep_rights,
    restrict,
    share,
)
from ckpt.io.temporaries import put_in_place, sweep, temporary_file, temporary_folder


def is_base_name(name: str) -> bool:
    """Whether `name` can only be a file of the folder in which it is looked up.

    Separators and drives of any system are refused on all of them.
    """
    return name not in (".", "..") and bool(re.fullmatch(r"[^/\\:\x00-\x1f\x7f]{1,255}", name))


def exists(path: Path) -> bool:
    """Whether there is such a file; none has a name that is too long for the system."""
    try:
        return path.exists()
    except OSError as error:  # before Python 3.12
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


# Told how far something is: bytes done, bytes in all.
Told = Callable[[int, int], None]


def untold(_done: int, _total: int) -> None:
    """Tell nobody."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Add the file's name to errors of the system, many of which lack it."""
    try:
        yield
    except CkptError:
        raise
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror or error}") from error


def expect_room(folder: Path, nbytes: int) -> None:
    """Refuse to begin a file of `nbytes` that the disk cannot hold.

    Raises:
        DiskError: Fewer bytes are free.
    """
    if not folder.is_dir():
        return
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    if status.f_blocks and nbytes > free:  # some network file systems tell nothing
        raise DiskError(f"{folder}: {nbytes:,} bytes are needed, {free:,} are free")


def open_plain(path: Path, flags: int = os.O_RDONLY, *, single: bool = False) -> int:
    """Open a file in a place where anybody may have put a link, a pipe or a device instead.

    Args:
        path: The file.
        flags: As for `os.open`; a new file gets the mode of the umask, and in a shared folder
            the group's bits like the owner's.
        single: Whether it must have no other name (hard link), as what is written in place.

    Raises:
        IntegrityError: It is another thing than such a file; nothing of it was read or changed.
        OSError: The system refused a call.
    """
    if flags & os.O_CREAT and not os.path.lexists(path) and is_shared(path.parent):
        with temporary_file(path.parent) as (temporary, out), suppress(FileExistsError):
            share(out.fileno(), path.parent)
            name_new(temporary, path, warns=False)
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        kind = "a symbolic link" if path.is_symlink() else "not a regular file"
    else:
        status = os.fstat(fd)
        kind = "" if stat.S_ISREG(status.st_mode) else "not a regular file"
        if not kind and single and status.st_nlink > 1:
            kind = "has another name (a hard link)"
        if not kind:
            return fd
        os.close(fd)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise IntegrityError(
        f"{path}: {kind}; nothing was changed", hint="move it away if ckpt did not make it"
    )


def read_plain(path: Path, *, most: int) -> bytes:
    """The content of a file that `open_plain` opens, of at most `most` bytes."""
    with open(open_plain(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise IntegrityError(f"{path}: {size:,} bytes, the limit is {most:,}")
        return file.read()


def unlinked(folder: Path, *names: str) -> Path:
    """The path of a folder inside another one, if neither it nor one on the way is a link.

    Raises:
        IntegrityError: One is; nothing outside is read, written or removed.
    """
    place = os.fspath(folder)  # as text, since every access to every object comes here
    for name in ("", *names):
        place = f"{place}/{name}" if name else place
        if _is_link(place):
            raise IntegrityError(
                f"{place}: a symbolic link in a registry", hint="move its target to this place"
            )
    return Path(place)


def _is_link(place: str) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(place).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


@contextmanager
def write_whole(
    path: Path,
    *,
    replace: bool = False,
    check: Callable[[Path], None] | None = None,
    rights: Rights = EVERYBODY,
    in_place: bool = False,
    shared: bool = False,
) -> Iterator[BinaryIO]:
    """Write a file that appears whole, and on disk, when the block ends.

    Args:
        path: Its name.
        replace: Whether to replace an existing file, atomically.
        check: Inspects the finished temporary file; if it raises, the file does not appear.
        rights: Who may read its sources; nobody else may read it.
        in_place: Whether the existing file keeps owner, group, mode, access list and attributes.
        shared: Whether the group may use the file like its owner, if the folder is shared with it.

    Raises:
        UsageError: There is no such folder, `path` exists or is not a regular file, or `in_place`
            cannot keep something.
        DiskError: The system refused a call; the message names path and reason.
    """
    _expect_writable(path, replace=replace)
    try:
        sweep(path.parent)
        with temporary_file(path.parent, rights=OWNER if in_place else rights) as (temporary, out):
            with early_sync(out):
                yield out
            sync_file(out)
            if check is not None:
                check(temporary)
            if replace:
                if in_place:
                    keep_rights(path, out.fileno())
                elif path.exists():
                    restrict(out.fileno(), rights, stat.S_IMODE(path.stat().st_mode))
            if shared:
                share(out.fileno(), path.parent)
            if replace:
                temporary.replace(path)
            else:
                name_new(temporary, path)
            sync_folder(path.parent)
    except FileExistsError as error:
        raise already_exists(path) from error
    except CkptError:
        raise
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}") from error


@contextmanager
def write_folder(
    path: Path, *, check: Callable[[Path], None], replace: bool = False
) -> Iterator[Path]:
    """Make a folder that appears with all its files, and on disk, when the block ends.

    Args:
        path: Its name.
        check: Inspects the finished temporary folder; if it raises, the folder does not appear.
        replace: Whether to replace an existing folder, at one moment where the system can do that.

    Yields:
        The temporary folder, beside `path`, for the files that `new_file` makes.

    Raises:
        UsageError: The folder above it does not exist, or the name does.
        DiskError: The system refused a call; the message names path and reason.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent}: no such folder")
    if os.path.lexists(path) and not replace:
        raise already_exists(path)
    try:
        sweep(path.parent)
        with temporary_folder(path.parent) as temporary:
            yield temporary
            check(temporary)
            sync_folder(temporary)
            if not os.path.lexists(path):
                temporary.rename(path)
            elif replace:
                put_in_place(temporary, path)
                sync_folder(path.parent)  # before the old folder is removed
            else:  # a rename would replace an empty folder that another process has just made
                raise already_exists(path)
        sync_folder(path.parent)
    except CkptError:
        raise
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}") from error


@contextmanager
def new_file(path: Path, *, rights: Rights) -> Iterator[BinaryIO]:
    """Make a file in a temporary folder; it is on disk when the block ends.

    Args:
        path: The file.
        rights: Who may read its sources; nobody else may read it.
    """
    with path.open("xb") as out:
        restrict(out.fileno(), rights)
        with early_sync(out):
            yield out
        sync_file(out)


def _expect_writable(path: Path, *, replace: bool) -> None:
    """Refuse to replace a device, a pipe or a link: they are more than their bytes."""
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent}: no such folder")
    if path.name == "-":
        raise UsageError("a checkpoint is written to a file, not to stdout")
    if not os.path.lexists(path):
        return
    if not replace:
        raise already_exists(path)
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        raise UsageError(f"{path}: a symbolic link", hint=f"name its target: {path.resolve()}")
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path}: not a regular file, so it is not replaced")


def already_exists(path: Path, *, hint: str | None = None) -> UsageError:
    """The error about a name that is taken; the usual hint names the options of a command."""
    folder = "name another folder with -o"
    file = "name another file with -o, or replace this one with --force"
    return UsageError(f"{path}: already exists", hint=hint or (folder if path.is_dir() else file))
