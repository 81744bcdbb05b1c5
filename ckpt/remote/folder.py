"""A folder as a bucket: on this machine, or on a disk that several machines mount.

Objects get their names by a hard link, so that one of several writers wins. What is replaced is
replaced under a lock of the operating system, which is a file's that is never removed.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

from ckpt.errors import DiskError, RemoteError, UsageError
from ckpt.io import digest
from ckpt.io.durable import make_folder
from ckpt.io.files import open_plain, unlinked, write_whole
from ckpt.io.lock import exclusive_lock
from ckpt.io.mounts import doubt_of_locks
from ckpt.io.sources import CHUNK
from ckpt.io.temporaries import is_temporary
from ckpt.remote.bucket import Stat

_LOCK = "ckpt/lock"


class Folder:
    """A folder.

    Args:
        path: It; made with the first object.
        url: How messages call it.
    """

    def __init__(self, path: Path, url: str) -> None:
        self.path, self.url = path, url

    @property
    def doubt(self) -> str | None:
        return doubt_of_locks(self.path)

    def get(self, path: str, *, most: int) -> tuple[bytes, str] | None:
        with self._errors(path), self._opened(path) as fd:
            if fd is None:
                return None
            if (nbytes := os.fstat(fd).st_size) > most:
                raise RemoteError(f"{self.url}/{path}: {nbytes:,} bytes, the limit is {most:,}")
            data = b"".join(iter(lambda: os.read(fd, CHUNK), b""))
            return data, digest.of_bytes(data)

    def stream(self, path: str, offset: int, nbytes: int) -> Iterator[bytes] | None:
        return self._stream(path, offset, nbytes) if self.head(path) else None

    def _stream(self, path: str, offset: int, nbytes: int) -> Iterator[bytes]:
        with self._errors(path), self._opened(path) as fd:
            while fd is not None and nbytes and (chunk := os.pread(fd, min(CHUNK, nbytes), offset)):
                offset, nbytes = offset + len(chunk), nbytes - len(chunk)
                yield chunk

    def head(self, path: str) -> Stat | None:
        with self._errors(path), self._opened(path) as fd:
            if fd is None:
                return None
            status = os.fstat(fd)
            return Stat(path, status.st_size, status.st_mtime)

    def put_new(self, path: str, chunks: Iterable[bytes], nbytes: int) -> bool:
        if os.path.lexists(self._place(path)):
            return False
        chunks = iter(chunks)
        first = next(chunks, b"")  # for which a pack is read; no file waits for that
        try:
            self._write(path, chain([first], chunks), replace=False)
        except UsageError:
            if not os.path.lexists(self._place(path)):
                raise
            return False
        return True

    def replace(self, path: str, data: bytes, tag: str) -> bool:
        with self._errors(path), exclusive_lock(self._place(_LOCK)):
            found = self.get(path, most=1 << 32)
            if found is None or found[1] != tag:
                return False
            self._write(path, [data], replace=True)
            return True

    def overwrite(self, path: str, chunks: Iterable[bytes], nbytes: int) -> None:
        self._write(path, chunks, replace=True)

    def list(self, prefix: str) -> Iterator[Stat]:
        top = self._place(prefix)
        for folder, _, names in os.walk(top):
            for name in names:
                path = f"{Path(folder, name).relative_to(self.path)}"
                if not is_temporary(name) and (stat := self.head(path)):
                    yield stat

    def delete(self, path: str) -> None:
        with self._errors(path), suppress(FileNotFoundError):
            self._place(path).unlink()

    def _write(self, path: str, chunks: Iterable[bytes], *, replace: bool) -> None:
        place = self._place(path)
        with self._errors(path):
            make_folder(place.parent)
            with write_whole(place, replace=replace, shared=True) as out:
                for chunk in chunks:
                    out.write(chunk)

    def _place(self, path: str) -> Path:
        *folders, name = path.split("/")
        return unlinked(self.path, *folders) / name

    @contextmanager
    def _opened(self, path: str) -> Iterator[int | None]:
        try:
            fd = open_plain(self._place(path))
        except (FileNotFoundError, NotADirectoryError):
            yield None
            return
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except (OSError, DiskError) as error:
            what = error.strerror if isinstance(error, OSError) else None
            raise RemoteError(f"{self.url}/{path}: {what or error}") from error
