"""The reflog: what this machine did to the index, a line of JSON for each write.

Law: the entry of a write is on the disk before the index is, and names the write that it came
after. Which entries happened is told from the index: its `write_id` names the last one, and each
entry the one before. A write that never came about, or was done elsewhere, is in no such chain.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ckpt import strict_json
from ckpt.errors import DiskError, IntegrityError
from ckpt.files import disk_errors, sync_folder
from ckpt.registry.history import Change


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One write.

    Attributes:
        write_id: Its own.
        parent: The `write_id` that stood in the index before.
        time: UTC, ISO 8601 to the second.
        what: E.g. ``alias net@prod``.
        changes: What was changed.
        undoes: The `write_id` of the entry that this one took back.
    """

    write_id: str
    parent: str
    time: str
    what: str
    changes: tuple[Change, ...]
    undoes: str | None = None

    @property
    def is_final(self) -> bool:
        """Whether it cannot be taken back."""
        return any(change.is_final for change in self.changes)


class Reflog:
    """The reflog of one registry.

    Args:
        path: Its file, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, entry: Entry) -> None:
        """Add an entry, and have it on the disk; called with the index's lock held."""
        line = json.dumps(asdict(entry), separators=(",", ":"))
        with disk_errors(self._path):
            self._append(line.encode())

    def _append(self, line: bytes) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            size = os.fstat(fd).st_size
            whole = size == 0 or os.pread(fd, 1, size - 1) == b"\n"
            # What a crash has left of a line before ends here.
            left = (b"" if whole else b"\n") + line + b"\n"
            while left:  # a disk that becomes full takes a part, and says so at the next one
                left = left[os.write(fd, left) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        if not size:
            sync_folder(self._path.parent)

    def chain(self, write_id: str) -> Iterator[Entry]:
        """The entries that led to a write, the last one first, as far as they are known."""
        known = self._known()
        while (entry := known.pop(write_id, None)) is not None:
            yield entry
            write_id = entry.parent

    def _known(self) -> dict[str, Entry]:
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise DiskError(f"{self._path}: {error.strerror}") from error
        entries = [entry for line in lines if (entry := _entry(line)) is not None]
        return {entry.write_id: entry for entry in entries}


def _entry(line: str) -> Entry | None:
    """The entry of a line; None of one that a crash has cut short."""
    try:
        fields: dict[str, Any] = strict_json.parse(line)
        changed = tuple(_change(change) for change in fields.pop("changes"))
        return Entry(**fields, changes=changed)
    except (ValueError, TypeError, KeyError, AttributeError, IntegrityError):
        return None


def _change(fields: dict[str, Any]) -> Change:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    return Change(**values)
