"""Objects in the store that may hold the bytes of a new one, found without hashing anything.

Law: if the store has an object of the same bytes, `begin_with` says so, unless it cannot be read or
another process is just writing it. The store is listed once, when it is first asked.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from threading import Lock

from ckpt.errors import IntegrityError
from ckpt.io.files import open_plain
from ckpt.registry.store.objects import ObjectStore

_HEAD = 1 << 12  # bytes of each object of the same size; tensors that begin alike are hashed


class Twins:
    """The beginnings of objects, by their size.

    Args:
        store: The store.
        larger_than: Smaller objects are never asked for, in bytes.
    """

    def __init__(self, store: ObjectStore, *, larger_than: int) -> None:
        self._store, self._larger_than = store, larger_than
        self._paths: dict[int, list[Path]] | None = None
        self._heads: dict[int, set[int]] = {}  # hashes: equal ones only cost a second look
        self._listing = Lock()

    def begin_with(self, head: bytes, nbytes: int) -> bool:
        """Whether an object of `nbytes` bytes begins with `head`, as `head_of` gives it."""
        with self._listing:
            return hash(head) in self._heads_of(nbytes)

    def add(self, head: bytes, nbytes: int) -> None:
        """Note an object that was put since."""
        with self._listing:
            self._heads_of(nbytes).add(hash(head))

    def _heads_of(self, nbytes: int) -> set[int]:
        if self._paths is None:
            self._paths = {}
            for each in self._store.objects(larger_than=self._larger_than):
                if not each.is_manifest:
                    self._paths.setdefault(each.nbytes, []).append(each.path)
        if nbytes not in self._heads:
            heads = self._heads[nbytes] = set()
            for path in self._paths.get(nbytes, ()):
                with suppress(OSError, IntegrityError):  # such an object is written again
                    heads.add(hash(_head_at(path)))
        return self._heads[nbytes]


def head_of(chunks: Iterable[bytes]) -> bytes:
    """The first bytes of a stream; no more of it is read than they need."""
    head = b""
    for chunk in chunks:
        head += chunk[: _HEAD - len(head)]
        if len(head) == _HEAD:
            break
    return head


def _head_at(path: Path) -> bytes:
    with open(open_plain(path), "rb") as file:
        return os.pread(file.fileno(), _HEAD, 0)
