"""Bytes and names that stay after a power loss.

POSIX: `fsync` of a file makes its bytes durable, that of a folder the names in it.
"""

import errno
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ckpt.errors import DiskWarning
from ckpt.io.rights import is_shared, with_group
from ckpt.io.temporaries import temporary_folder

EARLY_SECONDS = 0.05
_NO_LINKS = (
    *(errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS),
    *(errno.EXDEV, errno.EMLINK),  # file systems that are put together of others
)
_NO_SYNC = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)


@contextmanager
def early_sync(out: BinaryIO) -> Iterator[None]:
    """Sync while the block still writes, if that takes long, so that the last sync is short.

    A sync that failed is not tried again, since the kernel may have dropped the pages; its error
    is raised when the block ends.
    """
    import threading

    done = threading.Event()
    write_out = getattr(os, "fdatasync", os.fsync)  # macOS has only the latter
    failures: list[OSError] = []

    def sync() -> None:
        try:
            while not done.wait(EARLY_SECONDS):
                write_out(out.fileno())
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=sync, daemon=True)
    with suppress(RuntimeError):  # the system gives no thread; the last sync does it all
        thread.start()
    try:
        yield
    finally:
        done.set()
        if thread.ident is not None:
            thread.join()
    if failures:
        raise failures[0]


def sync_file(out: BinaryIO) -> None:
    """Make the bytes written so far durable."""
    out.flush()
    os.fsync(out.fileno())


def name_new(temporary: Path, path: Path, *, warns: bool = True) -> None:
    """Give a file its name, without replacing another.

    Args:
        temporary: The file.
        path: Its name.
        warns: Whether to warn if the system cannot exclude that another process is as fast.

    Raises:
        FileExistsError: The name exists.
    """
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Without hard links, the check and the rename are two steps.
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        temporary.rename(path)
        if warns:
            warnings.warn(
                "this file system has no hard links, so of two processes that make one file at "
                "the same moment, one may replace the file of the other",
                DiskWarning,
                stacklevel=2,
            )


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable (POSIX: fsync of the folder).

    Where the file system does not do that, a warning says so.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise OSError(error.errno, error.strerror, str(folder)) from error
        warnings.warn(
            "this file system does not sync folders: after a power loss, the newest files may be "
            "missing",
            DiskWarning,
            stacklevel=2,
        )
    finally:
        os.close(fd)


def make_folder(folder: Path, *, durably: bool = True) -> None:
    """Make `folder` and its missing parents; in a shared folder they are shared, too.

    Args:
        folder: The folder.
        durably: Whether to sync the folders above; without it, the caller does so later.
    """
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        if is_shared(new.parent):
            _make_shared(new)
        else:
            new.mkdir(exist_ok=True)
        if durably:
            sync_folder(new.parent)


def _make_shared(folder: Path) -> None:
    """Make a folder that its group may use from its first moment on."""
    with temporary_folder(folder.parent) as temporary:
        temporary.chmod(with_group(temporary.stat().st_mode))
        try:
            temporary.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another process was faster
                raise
