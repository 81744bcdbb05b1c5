"""Small objects, read by the thousand: what each of them costs is kept low.

Law: as of `ObjectStore.stream`, every byte is verified and nothing outside the store is read. An
object that is not as expected is read again by `stream`, which says what is wrong with it.
"""

import hashlib
import os
import stat
from collections.abc import Mapping
from threading import Lock

from ckpt.registry.store.objects import ObjectStore

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


class SmallObjects:
    """The small objects of a store; several threads may ask for them.

    Args:
        store: The store, whose folders do not become links meanwhile.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._folders: dict[str, str] = {}  # by the first two digits
        self._reading = Lock()

    def joined(self, objects: Mapping[str, tuple[int, str]]) -> bytes:
        """The bytes of objects, one after the other.

        Args:
            objects: Digest to bytes and name in messages.

        Raises:
            IntegrityError: One is absent or damaged.
        """
        # Threads that read small files side by side spend their time on handing over Python's lock.
        with self._reading:
            return b"".join([self._bytes(name, *each) for name, each in objects.items()])

    def _bytes(self, name: str, nbytes: int, what: str) -> bytes:
        digits = name.removeprefix("sha256:")
        data = _read(f"{self._folder(name, digits[:2])}/{digits[2:]}", nbytes)
        if data is not None and hashlib.sha256(data).hexdigest() == digits:
            return data
        return b"".join(self._store.stream(name, nbytes, what))

    def _folder(self, name: str, first: str) -> str:
        """The folder of an object; whether it is a link is looked up once."""
        folder = self._folders.get(first)
        if folder is None:
            folder = self._folders[first] = os.fspath(self._store.folder_of(name))
        return folder


def _read(path: str, nbytes: int) -> bytes | None:
    """The bytes of a regular file of this size; None if there is none."""
    try:
        fd = os.open(path, _FLAGS)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size != nbytes:
            return None
        return os.read(fd, nbytes)  # a larger buffer may be mapped and unmapped each time
    except OSError:
        return None
    finally:
        os.close(fd)
