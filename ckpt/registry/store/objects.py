"""Objects on disk: `objects/ab/cdef…` and `manifests/ab/cdef…`, mode 0444, never changed.

Laws: an object stands under its name only whole and after the disk has it; what is read is
hashed, and bytes that do not match their name are never handed on without an error.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from ckpt.errors import DiskError, IntegrityError
from ckpt.io import digest
from ckpt.io.files import (
    disk_errors,
    early_sync,
    is_temporary,
    make_folder,
    name_new,
    sync_file,
    sync_folder,
    temporary_file,
)
from ckpt.io.lock import exclusive_lock, shared_lock
from ckpt.io.sources import CHUNK
from ckpt.registry.manifest import Manifest

REPAIR = "ckpt verify --repair FROM  takes a good copy from a file or another registry"


@dataclass(frozen=True, slots=True)
class Stored:
    """What `put` did: the object's name, its bytes, and whether the store grew by them."""

    digest: str
    nbytes: int
    new: bool


@dataclass(frozen=True, slots=True)
class Held:
    """A file of the store: whose bytes it should hold, and what the disk says of it.

    Attributes:
        modified: Seconds since 1970, by the file system's clock.
    """

    digest: str
    is_manifest: bool
    path: Path
    nbytes: int
    modified: float


class ObjectStore:
    """The folder `.ckpt` beside an index.

    Args:
        root: The folder; made when the first object is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = root / "writing"

    def writing(self) -> AbstractContextManager[None]:
        """Hold this from the first object of a version until the index names it.

        What was put, or was found to be there already, is not collected meanwhile.
        """
        return shared_lock(self.lock)

    def collecting(self) -> AbstractContextManager[None]:
        """Hold this to remove objects: no version is being written then."""
        return exclusive_lock(self.lock)

    def put(self, chunks: Iterable[bytes]) -> Stored:
        """Store the joined `chunks` and answer their name, in one pass over the bytes."""
        return self._put("objects", chunks)

    def put_manifest(self, manifest: Manifest) -> Stored:
        """Store a manifest; its objects must be stored already."""
        stored = self._put("manifests", [manifest.to_bytes()])
        # Folders that somebody else made, and was killed before the disk had their names.
        for folder in (self.root / "objects", self.root / "manifests", self.root):
            if folder.is_dir():
                with disk_errors(folder):
                    sync_folder(folder)
        return stored

    def manifest(self, name: str) -> Manifest:
        """The manifest with the digest `name`.

        Raises:
            IntegrityError: It is absent or damaged.
        """
        return Manifest.from_bytes(b"".join(self._stream("manifests", name, "manifest")))

    def stream(self, name: str, nbytes: int, what: str) -> Iterator[bytes]:
        """The bytes of an object in chunks, hashed on the way.

        Args:
            name: Its digest.
            nbytes: How many bytes it must have.
            what: What it is, for messages, e.g. ``fc1.weight``.

        Raises:
            IntegrityError: It is absent or damaged; raised at the latest after the last
                chunk, so nothing made of the chunks may be kept before the stream ends.
        """
        found = 0
        for chunk in self._stream("objects", name, what):
            found += len(chunk)
            yield chunk
        if found != nbytes:
            raise IntegrityError(
                f"object {digest.short(name)} of {what} has {found:,} bytes, "
                f"{nbytes:,} were expected",
                hint=REPAIR,
            )

    def held(self) -> Iterator[Held]:
        """Every object and manifest that stands there."""
        for kind, is_manifest in (("objects", False), ("manifests", True)):
            beginnings = [path.name for path in self._own(kind).glob("??")]
            for path in (path for each in beginnings for path in self._own(kind, each).glob("*")):
                name = f"sha256:{path.parent.name}{path.name}"
                if digest.is_digest(name):
                    status = path.lstat()
                    yield Held(name, is_manifest, path, status.st_size, status.st_mtime)

    def temporaries(self) -> list[Path]:
        """What is being written; or was, if this is held for `collecting`."""
        # Beside the store's own folders stands what a registry is begun with.
        paths = [*self.root.glob("*"), *self._own("tmp").glob("*")]
        return sorted(path for path in paths if is_temporary(path.name))

    def remove(self, held: Iterable[Held]) -> None:
        """Remove files of the store, in this order, durably; called while `collecting`."""
        for folder, files in groupby(held, key=lambda each: each.path.parent):
            for each in files:
                each.path.unlink(missing_ok=True)
            with disk_errors(folder):
                sync_folder(folder)

    def _put(self, kind: str, chunks: Iterable[bytes]) -> Stored:
        try:
            temporaries = self._own("tmp")
            make_folder(temporaries)
            hasher, nbytes = hashlib.sha256(), 0
            with temporary_file(temporaries) as (temporary, out):
                with early_sync(out):
                    for chunk in chunks:
                        hasher.update(chunk)
                        nbytes += len(chunk)
                        out.write(chunk)
                name = "sha256:" + hasher.hexdigest()
                if self._has_good(kind, name):
                    self._renew(kind, name)
                    sync_folder(self._path(kind, name).parent)
                    return Stored(name, nbytes, new=False)
                os.fchmod(out.fileno(), 0o444)
                sync_file(out)
                self._name(temporary, self._path(kind, name))
            return Stored(name, nbytes, new=True)
        except OSError as error:
            raise DiskError(f"{self.root}: {error.strerror}: {error.filename or ''}") from error

    def _name(self, temporary: Path, path: Path) -> None:
        make_folder(path.parent)
        # What stands there in spite of `_has_good` is damaged, or another writer was faster
        # with the same bytes: either way these good bytes may take its place.
        try:
            name_new(temporary, path)
        except FileExistsError:
            temporary.replace(path)
        sync_folder(path.parent)

    def _renew(self, kind: str, name: str) -> None:
        """Make an object young again, whose first writer may never have finished a version."""
        with suppress(PermissionError):  # another user's: it is needed, or they keep it
            os.utime(self._path(kind, name))

    def _has_good(self, kind: str, name: str) -> bool:
        """Whether the object is there and, hashed again, is what its name says."""
        with suppress(IntegrityError):
            for _ in self._stream(kind, name, "object"):
                pass
            return True
        return False

    def _stream(self, kind: str, name: str, what: str) -> Iterator[bytes]:
        path = self._path(kind, name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise IntegrityError(
                f"object {digest.short(name)} of {what} is missing", hint=REPAIR
            ) from error
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise DiskError(f"{path}: {error.strerror}") from error
            raise _no_file(name, what, path) from error
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise _no_file(name, what, path)
            hasher, nbytes = hashlib.sha256(), 0
            while chunk := _read(fd, path):
                hasher.update(chunk)
                nbytes += len(chunk)
                yield chunk
        finally:
            with disk_errors(path):
                os.close(fd)
        if "sha256:" + hasher.hexdigest() != name:
            raise IntegrityError(
                f"object {digest.short(name)} of {what} is damaged: {nbytes:,} bytes, "
                "digest differs",
                hint=REPAIR,
            )

    def _path(self, kind: str, name: str) -> Path:
        if not digest.is_digest(name):
            raise IntegrityError(f"not a digest: {name!r}")
        hexadecimal = name.removeprefix("sha256:")
        return self._own(kind, hexadecimal[:2]) / hexadecimal[2:]

    def _own(self, *names: str) -> Path:
        """A folder of the store; what it leads to elsewhere is not read, written or removed."""
        path = self.root
        for name in names:
            path = path / name
            if path.is_symlink():
                raise IntegrityError(
                    f"{path}: a symbolic link inside the store",
                    hint=f"move what it leads to here; {self.root} itself may be a link",
                )
        return path


def _no_file(name: str, what: str, path: Path) -> IntegrityError:
    return IntegrityError(
        f"object {digest.short(name)} of {what} is not a regular file: {path}", hint=REPAIR
    )


def _read(fd: int, path: Path) -> bytes:
    with disk_errors(path):
        return os.read(fd, CHUNK)
