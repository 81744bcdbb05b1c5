"""`registry.json` on disk: found like `.git`, read whole, changed under a lock.

A change is an operation applied to what stands there at that moment, never a document
written back: two processes that add a version each both succeed.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from ckpt.errors import DiskError, IntegrityError
from ckpt.files import write_whole
from ckpt.lock import exclusive
from ckpt.registry.history import changes
from ckpt.registry.index import Index, parse_index
from ckpt.registry.reflog import Entry, Reflog

FILE_NAME = "registry.json"


def find_registry(start: Path) -> Path | None:
    """The nearest folder from `start` upwards that holds a `registry.json`."""
    for folder in (start, *start.parents):
        if (folder / FILE_NAME).is_file():
            return folder
    return None


class IndexFile:
    """The index of the registry in `folder`; it need not exist yet.

    Args:
        folder: The folder of `registry.json`; the lock is `.ckpt/lock` in it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        self._lock = folder / ".ckpt" / "lock"
        self.reflog = Reflog(folder / ".ckpt" / "reflog")
        self._parsed: tuple[bytes | None, Index] = None, Index()

    def read(self) -> Index:
        """The index as it stands; an empty one where there is no file yet.

        Read from the disk each time, but parsed once as long as its bytes are the same: with
        10,000 versions that takes 80 ms, and a command looks several refs up.

        Raises:
            IntegrityError: The document is damaged or of a newer schema.
            DiskError: The system does not give it.
        """
        try:
            document = self.path.read_bytes()
        except FileNotFoundError:
            return Index()
        except OSError as error:
            raise DiskError(f"{self.path}: {error.strerror}") from error
        if document != self._parsed[0]:
            self._parsed = document, self._parse(document)
        return self._parsed[1]

    def _parse(self, document: bytes) -> Index:
        try:
            return parse_index(document.decode("utf-8"), name=str(self.path))
        except UnicodeDecodeError as error:
            raise IntegrityError(f"{self.path}: not a registry: {error}") from error

    def commit(
        self, operation: Callable[[Index], Index], what: str, *, undoes: str | None = None
    ) -> Index:
        """Apply `operation` to the index under the lock and make the result durable.

        An operation that answers the index it was given writes nothing.

        Args:
            operation: Gives a new index for the one that stands there.
            what: What it does, for the reflog.
            undoes: The `write_id` of the write that it takes back.

        Raises:
            ConflictError: Others hold the lock for too long; see `ckpt.lock.exclusive`.
        """
        with exclusive(self._lock):
            before = self.read()
            after = operation(before)
            if after is not before:
                after = replace(after, serial=before.serial + 1, write_id=os.urandom(8).hex())
                self.reflog.append(_entry(before, after, what, undoes))
                with write_whole(self.path, replace=True) as out:
                    out.write(after.to_text().encode("utf-8"))
            return after


def _entry(before: Index, after: Index, what: str, undoes: str | None) -> Entry:
    return Entry(
        write_id=after.write_id,
        parent=before.write_id,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        what=what,
        changes=tuple(changes(before, after)),
        undoes=undoes,
    )
