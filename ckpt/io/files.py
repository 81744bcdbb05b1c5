"""Files: ranged reads, and writes that appear whole or not at all.

Law of `write_whole`: when the `with` block ends, the complete file stands under its name
and the disk has it; when it raises, nothing stands there that did not stand before.
"""

import errno
import io
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from ckpt.errors import DiskError, FormatError, RefError, UsageError

# Bytes. The allocator gives larger ones back, page by page, each time; smaller ones make threads
# wait for each other.
CHUNK = 1 << 18
EARLY_SECONDS = 0.05
# What copy_file_range answers where it cannot be had (Linux man page, ERRORS).
_NOT_IN_THE_KERNEL = (
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EBADF,
    errno.ETXTBSY,
)


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a checkpoint: its base name, and where it lies in the files joined."""

    name: str
    offset: int
    nbytes: int


def is_base_name(name: str) -> bool:
    """Whether `name` can only be a file of the folder in which it is looked up.

    What is a separator or a drive on any system is refused on all.
    """
    return re.fullmatch(r"[^/\\:\x00-\x1f\x7f]{1,255}", name) is not None and name not in (
        ".",
        "..",
    )


# Something that looks at bytes as they go by: a checksum.
Seen = Callable[[bytes], None]
# Told how far something is: bytes done, bytes in all.
Told = Callable[[int, int], None]


def untold(_done: int, _total: int) -> None:
    """Tell nobody."""


class ByteSource(Protocol):
    """A container's bytes, wherever they are: a file, or a version put together."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    @property
    def parts(self) -> Sequence[Part]:
        """The files of which it is made, joined in this order; mostly one."""

    @property
    def size(self) -> int:
        """Bytes in all."""

    def read(self, offset: int, nbytes: int) -> bytes:
        """Exactly `nbytes` bytes from `offset`; the range must lie inside."""

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        """The same range in chunks; what was yielded is verified when the stream ends."""

    def copy(self, offset: int, nbytes: int, out: BinaryIO, seen: Seen | None = None) -> None:
        """Write the same range to `out`.

        Args:
            offset: Where it begins.
            nbytes: Its length.
            out: What it is written to.
            seen: Is shown all of it, chunk by chunk in order, before the call returns, and
                maybe by another thread.
        """

    def mapped(self, offset: int, nbytes: int) -> memoryview | None:
        """The same range as memory of the process, without a copy, where that can be had."""


class FileSource(AbstractContextManager["FileSource"]):
    """A regular file, opened for ranged reads.

    Raises:
        RefError: There is no such file.
        FormatError: It is no regular file (a folder, a pipe, a device).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        try:
            # O_NONBLOCK: opening a FIFO must not wait for its writer.
            self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RefError(f"{path}: no such file") from error
        except OSError as error:
            kind = RefError if error.errno == errno.ELOOP else DiskError
            raise kind(f"{path}: {error.strerror}") from error
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise FormatError(f"{path}: not a regular file")
        self.size = status.st_size
        self.parts = (Part(path.name, 0, self.size),)
        self._modified = status.st_mtime_ns
        self._map: memoryview | None = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """Give the file descriptor back."""
        with disk_errors(self.path):
            os.close(self._fd)

    def expect_unchanged(self) -> None:
        """Make sure that what was read is one state of the file.

        Raises:
            FormatError: Somebody wrote to it since it was opened.
        """
        status = os.fstat(self._fd)
        if (status.st_size, status.st_mtime_ns) != (self.size, self._modified):
            raise FormatError(
                f"{self.name}: changed while it was read", hint="wait until it is written"
            )

    def read(self, offset: int, nbytes: int) -> bytes:
        """See `ByteSource.read`."""
        return b"".join(self.stream(offset, nbytes))

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        """See `ByteSource.stream`."""
        end = offset + nbytes
        while offset < end:
            with disk_errors(self.path):
                chunk = os.pread(self._fd, min(CHUNK, end - offset), offset)
            if not chunk:
                raise self._cut_short(offset, end)
            offset += len(chunk)
            yield chunk

    def copy(self, offset: int, nbytes: int, out: BinaryIO, seen: Seen | None = None) -> None:
        """See `ByteSource.copy`; in the kernel where it can, a reflink where that is known."""
        if seen is None:
            self._copy(offset, nbytes, out)
        elif nbytes <= CHUNK:
            data = self.read(offset, nbytes)
            seen(data)
            out.write(data)
        else:
            from concurrent.futures import ThreadPoolExecutor

            # Reading it once more beside the kernel's copy is faster than copying it by hand.
            with ThreadPoolExecutor(max_workers=1) as beside:
                looked = beside.submit(self._show, offset, nbytes, seen)
                self._copy(offset, nbytes, out)
            looked.result()

    def _show(self, offset: int, nbytes: int, seen: Seen) -> None:
        for chunk in self.stream(offset, nbytes):
            seen(chunk)

    def _copy(self, offset: int, nbytes: int, out: BinaryIO) -> None:
        end = offset + nbytes
        offset += self._copied_in_kernel(offset, nbytes, out)
        for chunk in self.stream(offset, end - offset):
            out.write(chunk)

    def mapped(self, offset: int, nbytes: int) -> memoryview:
        """See `ByteSource.mapped`.

        Writing to it changes neither the file nor what others see of it. Whoever shortens the
        file while it is in use makes the system end the process (POSIX: SIGBUS).
        """
        import mmap

        if self._map is None:
            self._map = memoryview(mmap.mmap(self._fd, 0, access=mmap.ACCESS_COPY))
        return self._map[offset : offset + nbytes]

    def _copied_in_kernel(self, offset: int, nbytes: int, out: BinaryIO) -> int:
        """How many of the bytes the kernel has copied; the rest is left to others."""
        copied = 0
        try:
            target = out.fileno()
            out.flush()
            while copied < nbytes:
                done = os.copy_file_range(self._fd, target, nbytes - copied, offset + copied)
                if not done:
                    raise self._cut_short(offset + copied, offset + nbytes)
                copied += done
        except (AttributeError, io.UnsupportedOperation):  # another system; no file at all
            return copied
        except OSError as error:
            if error.errno not in _NOT_IN_THE_KERNEL:
                raise
        return copied

    def _cut_short(self, offset: int, end: int) -> FormatError:
        return FormatError(
            f"{self.name}: ends at byte {offset:,}, {end:,} were expected",
            hint="the file was cut short; fetch it again",
        )


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Say of which file it is that the system refuses a call; many of its errors do not."""
    try:
        yield
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror or error}") from error


@contextmanager
def write_whole(
    path: Path, *, replace: bool = False, check: Callable[[Path], None] | None = None
) -> Iterator[BinaryIO]:
    """Write a file that appears whole, and on disk, when the block ends.

    Args:
        path: Where it shall stand.
        replace: Whether a file that stands there already is replaced, atomically.
        check: Looks at the finished temporary file and raises if it must not appear.

    Raises:
        UsageError: There is no such folder; the name is taken and `replace` is false, or
            what stands there is no regular file.
        DiskError: The system refused a call; the message names path and reason.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent}: no such folder")
    if path.name == "-":
        raise UsageError("a checkpoint is written to a file, not to stdout")
    if os.path.lexists(path):
        if not replace:
            raise _taken(path)
        _expect_replaceable(path)
    try:
        with temporary_file(path.parent) as (temporary, out):
            with early_sync(out):
                yield out
            sync_file(out)
            if check is not None:
                check(temporary)
            if replace:
                if path.exists():
                    temporary.chmod(stat.S_IMODE(path.stat().st_mode))
                temporary.replace(path)
            else:
                name_new(temporary, path)
            sync_folder(path.parent)
    except FileExistsError as error:
        raise _taken(path) from error
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}") from error


@contextmanager
def write_folder(path: Path, *, check: Callable[[Path], None]) -> Iterator[Path]:
    """Make a folder that appears with all its files, and on disk, when the block ends.

    Args:
        path: Where it shall stand; what stands there is never replaced.
        check: Looks at the finished temporary folder and raises if it must not appear.

    Yields:
        The temporary folder, beside `path`, for files that `new_file` makes.

    Raises:
        UsageError: There is no such folder above it, or the name is taken.
        DiskError: The system refused a call; the message names path and reason.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent}: no such folder")
    if os.path.lexists(path):
        raise _taken(path)
    temporary = path.parent / _temporary_name()
    try:
        temporary.mkdir()
        try:
            yield temporary
            check(temporary)
            sync_folder(temporary)
            # A rename would replace an empty folder that somebody made in the meantime.
            if os.path.lexists(path):
                raise _taken(path)
            temporary.rename(path)
        except BaseException:
            import shutil

            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}") from error


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Make a file in a folder that nobody sees yet; the disk has it when the block ends."""
    with path.open("xb") as out:
        with early_sync(out):
            yield out
        sync_file(out)


def _expect_replaceable(path: Path) -> None:
    """A device, a pipe or a link is more than its bytes, and is not replaced by a file."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        raise UsageError(
            f"{path}: a symbolic link", hint=f"name the file that it leads to: {path.resolve()}"
        )
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path}: not a regular file, and not replaced")


def _taken(path: Path) -> UsageError:
    hint = "name another one with -o" + ("" if path.is_dir() else ", or replace it with --force")
    return UsageError(f"{path}: exists already", hint=hint)


@contextmanager
def temporary_file(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file in `folder`, gone when the block ends unless it has got another name."""
    path = folder / _temporary_name()
    # O_EXCL neither follows a link nor opens what somebody else has put there.
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(fd, "wb") as out:
            yield path, out
    finally:
        path.unlink(missing_ok=True)


def _temporary_name() -> str:
    return f".ckpt-{os.urandom(8).hex()}.tmp"


def is_temporary(name: str) -> bool:
    """Whether a file or folder of this name is one that was not finished."""
    return re.fullmatch(r"\.ckpt-[0-9a-f]{16}\.tmp", name) is not None


@contextmanager
def early_sync(out: BinaryIO) -> Iterator[None]:
    """Have the disk write while the block still produces, if that takes long.

    The sync at the end finds little left to do then. A sync that failed is not tried again,
    since the kernel may have dropped the pages; its error is raised when the block ends.
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
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    if failures:
        raise failures[0]


def sync_file(out: BinaryIO) -> None:
    """Make the bytes written so far durable."""
    out.flush()
    os.fsync(out.fileno())


def name_new(temporary: Path, path: Path) -> None:
    """Give a file its name, never replacing what stands there.

    Raises:
        FileExistsError: Something stands there.
    """
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        # A file system without hard links: the check and the rename are two steps there.
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        temporary.rename(path)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable (POSIX: an fsync of the folder)."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path) -> None:
    """Make `folder` and those above it, durably."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        sync_folder(new.parent)
