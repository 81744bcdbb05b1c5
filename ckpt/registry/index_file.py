"""`registry.json` on disk: found like `.git`, read whole, changed under a lock.

A change is an operation applied to what stands there at that moment, never a document
written back: two processes that add a version each both succeed.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from ckpt.errors import DiskError, UsageError
from ckpt.io.files import disk_errors, name_new, sync_folder, write_whole
from ckpt.io.lock import exclusive_lock
from ckpt.registry import damage
from ckpt.registry.history.reflog import Entry, Reflog
from ckpt.registry.history.replay import replayed, write_entry
from ckpt.registry.index import Index, read_index

FILE_NAME = "registry.json"


def find_registry(start: Path) -> Path | None:
    """The nearest folder from `start` upwards that holds a registry, even one without its index."""
    for folder in (start, *start.parents):
        if (folder / FILE_NAME).is_file() or _holds_versions(folder):
            return folder
    return None


def _holds_versions(folder: Path) -> bool:
    return next((folder / ".ckpt" / "manifests").glob("??/*"), None) is not None


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
        """The index as it stands; an empty one where there is no registry yet.

        Read from the disk each time, but parsed once as long as its bytes are the same: with
        10,000 versions that takes 80 ms, and a command looks several refs up.

        Raises:
            IndexDamageError: The document is damaged or of a newer schema; or it is not there
                though versions are. `begin` comes before the first of them, so it was lost.
            DiskError: The system does not give it.
        """
        try:
            document = self.path.read_bytes()
        except FileNotFoundError:
            # Looked at in this order, since another process may begin it right now.
            if _holds_versions(self.path.parent) and not self.path.exists():
                raise damage.missing(str(self.path)) from None
            return self.read() if self.path.exists() else Index()
        except OSError as error:
            raise DiskError(f"{self.path}: {error.strerror}") from error
        if document != self._parsed[0]:
            self._parsed = document, read_index(document, name=str(self.path))
        return self._parsed[1]

    def begin(self) -> None:
        """Make an index without versions, unless another process has been faster."""
        try:
            with write_whole(self.path) as out:
                out.write(Index().to_text().encode("utf-8"))
        except UsageError:
            if not self.path.exists():
                raise

    def set_aside(self) -> Path | None:
        """Give a damaged document one more name, under which it stays; None if there is none."""
        for number in count(1):
            ending = ".damaged" if number == 1 else f".damaged.{number}"
            kept = self.path.with_name(FILE_NAME + ending)
            try:
                name_new(self.path, kept)
            except FileExistsError:
                continue
            except FileNotFoundError:
                break
            return kept
        return None

    def commit(
        self,
        operation: Callable[[Index], Index],
        what: str,
        *,
        undoes: str | None = None,
        known: Callable[[], Index] | None = None,
    ) -> Index:
        """Apply `operation` to the index under the lock and make the result durable.

        An operation that answers the index it was given writes nothing, and what stands is made
        durable.

        Args:
            operation: Gives a new index for the one that stands there.
            what: What it does, for the reflog.
            undoes: The `write_id` of the write that it takes back.
            known: What to give to the operation in place of what stands there.

        Raises:
            ConflictError: Others hold the lock for too long; see `ckpt.io.lock.exclusive_lock`.
        """
        with exclusive_lock(self._lock):
            before = (known or self.read)()
            after = operation(before)
            if after is not before:
                after = replace(after, serial=before.serial + 1, write_id=os.urandom(8).hex())
                self.reflog.append(*self._entries(before, after, what, undoes))
                with write_whole(self.path, replace=True) as out:
                    out.write(after.to_text().encode("utf-8"))
            else:
                self.settle()
            return after

    def settle(self) -> None:
        """Have on the disk what stands; a process that wrote it may have been killed just before.

        Whoever says that something is done already has not written it, and says it of what a loss
        of power could take back.
        """
        with disk_errors(self.path.parent):
            sync_folder(self.path.parent)

    def _entries(self, before: Index, after: Index, what: str, undoes: str | None) -> list[Entry]:
        """The entry of a write, and before it one of what was done elsewhere, if something was."""
        time = datetime.now(UTC).isoformat(timespec="seconds")
        entry = write_entry(before, after, what, time=time, undoes=undoes)
        if not before.models or self.reflog.ends_with(before.write_id):
            return [entry]
        known = self.reflog.entries()
        if any(each.write_id == before.write_id for each in known):
            return [entry]
        last = replayed(known)
        there = write_entry(
            last, before, "elsewhere", time=time, parent=last.write_id, elsewhere=True
        )
        return [there, entry]
