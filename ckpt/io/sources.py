"""Bytes to read, and those of a file."""

import errno
import io
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from ckpt.errors import TRUNCATED, DiskError, FormatError, MissingFileError, RefError
from ckpt.io.files import disk_errors
from ckpt.io.rights import Rights, rights_of

# Bytes. The allocator gives larger ones back, page by page, each time; smaller ones make threads
# wait for each other.
CHUNK = 1 << 18
# The errors of copy_file_range where the kernel cannot copy (Linux man page, ERRORS).
_NOT_IN_THE_KERNEL = (
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EBADF,
    errno.ETXTBSY,
)
# Looks at bytes as they are copied, e.g. for a checksum.
Seen = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a checkpoint: its base name, and its place in the files joined."""

    name: str
    offset: int
    nbytes: int


class ByteSource(ABC):
    """A container's bytes: in a file, or a version's objects put together.

    Attributes:
        name: How messages call it.
        size: Bytes in all.
        parts: The files that it joins, in this order; mostly one.
    """

    name: str
    size: int
    parts: Sequence[Part]

    @property
    def extent(self) -> int:
        """Where the readable bytes end: its size, or the end of its last region."""
        return self.size

    @property
    @abstractmethod
    def rights(self) -> Rights:
        """Who may read these bytes, and so what is made of them."""

    @abstractmethod
    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        """The range in chunks; what was yielded is verified when the stream ends."""

    def read(self, offset: int, nbytes: int) -> bytes:
        """Exactly `nbytes` bytes from `offset`; the range must lie inside."""
        return b"".join(self.stream(offset, nbytes))

    def copy(self, offset: int, nbytes: int, out: BinaryIO, seen: Seen | None = None) -> None:
        """Write the same range to `out`.

        Args:
            offset: Where it begins.
            nbytes: Its length.
            out: The file to write to.
            seen: Is called with all of it, chunk by chunk in order, before the call returns,
                possibly from another thread.
        """
        for chunk in self.stream(offset, nbytes):
            if seen is not None:
                seen(chunk)
            out.write(chunk)

    def mapped(self, offset: int, nbytes: int) -> memoryview | None:
        """The same range as memory of the process, without a copy; None if that is impossible."""
        return None

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:  # noqa: B027 - bytes here wait
        """Say which small ranges, begin and end, are read next; from elsewhere they come now."""


class OpenSource(ByteSource):
    """A source of open files; the `with` block closes them."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close the file descriptors."""

    @abstractmethod
    def expect_unchanged(self) -> None:
        """Make sure that all reads saw one state of the files.

        Raises:
            FormatError: A file was written to since it was opened.
        """


class FileSource(OpenSource):
    """A regular file, opened for ranged reads.

    Raises:
        MissingFileError: There is no such file.
        FormatError: It is not a regular file (a folder, a pipe, a device).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        try:
            # O_NONBLOCK: opening a FIFO must not wait for its writer.
            self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingFileError(f"{path}: no such file") from error
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

    def close(self) -> None:
        with disk_errors(self.path):
            os.close(self._fd)

    @property
    def rights(self) -> Rights:
        with disk_errors(self.path):
            return rights_of(self._fd)

    def expect_unchanged(self) -> None:
        status = os.fstat(self._fd)
        if (status.st_size, status.st_mtime_ns) != (self.size, self._modified):
            raise FormatError(
                f"{self.name}: changed while it was read", hint="wait until it is written"
            )

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        end = offset + nbytes
        while offset < end:
            with disk_errors(self.path):
                chunk = os.pread(self._fd, min(CHUNK, end - offset), offset)
            if not chunk:
                raise self._truncated(offset, end)
            offset += len(chunk)
            yield chunk

    def copy(self, offset: int, nbytes: int, out: BinaryIO, seen: Seen | None = None) -> None:
        """Copy in the kernel if it can, as a reflink if the file system has them."""
        if seen is None:
            self._copy(offset, nbytes, out)
        elif nbytes <= CHUNK:
            super().copy(offset, nbytes, out, seen)
        else:
            from ckpt.io.threads import Threads

            # Reading it once more beside the kernel's copy is faster than copying it by hand.
            with Threads(max_workers=1) as beside:
                looked = beside.submit(lambda: [seen(c) for c in self.stream(offset, nbytes)])
                self._copy(offset, nbytes, out)
            looked.result()

    def _copy(self, offset: int, nbytes: int, out: BinaryIO) -> None:
        copied = self._copied_in_kernel(offset, nbytes, out)
        super().copy(offset + copied, nbytes - copied, out)

    def mapped(self, offset: int, nbytes: int) -> memoryview:
        """Map the file, copy on write: neither the file nor other readers see a change.

        If another process shortens the file meanwhile, the system ends this one (POSIX: SIGBUS).
        """
        import mmap

        if self._map is None:
            self._map = memoryview(mmap.mmap(self._fd, 0, access=mmap.ACCESS_COPY))
        return self._map[offset : offset + nbytes]

    def _copied_in_kernel(self, offset: int, nbytes: int, out: BinaryIO) -> int:
        """How many of the bytes the kernel has copied; `_copy` writes the rest."""
        copied = 0
        try:
            target = out.fileno()
            out.flush()
            while copied < nbytes:
                done = os.copy_file_range(self._fd, target, nbytes - copied, offset + copied)
                if not done:
                    raise self._truncated(offset + copied, offset + nbytes)
                copied += done
        except (AttributeError, io.UnsupportedOperation):  # not Linux; not a file
            return copied
        except OSError as error:
            if error.errno not in _NOT_IN_THE_KERNEL:
                raise
        return copied

    def _truncated(self, offset: int, end: int) -> FormatError:
        return FormatError(
            f"{self.name}: ends at byte {offset:,}, expected {end:,}", hint=TRUNCATED
        )
