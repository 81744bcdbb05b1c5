"""The reflog: every write to the index on this machine, one line of JSON a write.

Law: the entry of a write is durable before the index is, and names the write before it. The index
says which entries happened: its `write_id` names the last entry, and each entry names the one
before. A write that was interrupted is not in this chain. Changes made elsewhere become an entry
before the next write on this machine, so the entries contain the whole index, and
`ckpt.registry.history.replay` rebuilds it from them.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ckpt.errors import DiskError, IntegrityError
from ckpt.io import digest
from ckpt.io.documents import strict_json
from ckpt.io.durable import sync_folder
from ckpt.io.files import disk_errors, open_plain, unlinked
from ckpt.registry.history.changes import Change

_TAIL = 1 << 16  # bytes; if the last line is longer, all entries are read


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One write.

    Attributes:
        write_id: The `write_id` of the index that it wrote.
        parent: The `write_id` of the index before.
        time: UTC, ISO 8601 to the second.
        what: E.g. ``alias net@prod``.
        changes: The changes.
        undoes: The `write_id` of the entry that this one undid.
        versions: New and changed lines of the index, by ref, ``mnist-cnn:v3``.
        next_numbers: The next free number of each changed model.
        gone: Manifests of versions that gc deleted; see `deleted`.
        serial: The serial of the index that it wrote.
        elsewhere: Whether the changes were made elsewhere and came by git, or by hand.
        events: New events of the history of each changed model; of changes made elsewhere, all.
    """

    write_id: str
    parent: str
    time: str
    what: str
    changes: tuple[Change, ...]
    undoes: str | None = None
    versions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    next_numbers: Mapping[str, int] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    serial: int = 0
    elsewhere: bool = False
    events: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def deleted(self) -> tuple[str, ...]:
        """Manifests of versions that gc deleted on this machine."""
        # An earlier ckpt wrote those that other branches have into entries from elsewhere.
        return () if self.elsewhere else self.gone

    @property
    def is_final(self) -> bool:
        """Whether it cannot be undone."""
        return any(change.is_final for change in self.changes)


class Reflog:
    """The reflog of one registry.

    Args:
        path: Its file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, *entries: Entry) -> None:
        """Append entries durably; the caller holds the index's lock."""
        lines = "".join(_line(entry) + "\n" for entry in entries)
        with disk_errors(self._path):
            self._append(lines.encode())

    def _append(self, lines: bytes) -> None:
        fd = self._open(os.O_RDWR | os.O_CREAT | os.O_APPEND, single=True)
        try:
            size = os.fstat(fd).st_size
            is_complete = not size or os.pread(fd, 1, size - 1) == b"\n"
            left = lines if is_complete else b"\n" + lines  # ends a line that a crash truncated
            while left:  # a disk that becomes full takes a part, and fails at the next one
                left = left[os.write(fd, left) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        if not size:
            sync_folder(self._path.parent)

    def _open(self, flags: int = os.O_RDONLY, *, single: bool = False) -> int:
        return open_plain(unlinked(self._path.parent) / self._path.name, flags, single=single)

    def chain(self, write_id: str) -> Iterator[Entry]:
        """The entries that led to a write, newest first, back to the last change made elsewhere."""
        known = {entry.write_id: entry for entry in self.entries()}
        while (entry := known.pop(write_id, None)) is not None and not entry.elsewhere:
            yield entry
            write_id = entry.parent

    def entries(self) -> list[Entry]:
        """All entries in the order in which they were appended, interrupted writes included."""
        try:
            with open(self._open(), encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DiskError(f"{self._path}: {error.strerror}") from error
        return [entry for line in lines if (entry := _entry(line)) is not None]

    def manifests(self) -> set[str]:
        """The manifests of all versions in the entries, without those that gc deleted.

        The index may not name them all: some may belong to another git branch.
        """
        found: set[str] = set()
        for entry in self.entries():
            for line in entry.versions.values():
                found.update([str(line.get("manifest")), *map(str, line.get("also", ()))])
            found.difference_update(entry.deleted)
        return set(filter(digest.is_digest, found))

    def ends_with(self, write_id: str) -> bool:
        """Whether the last entry is that of a write; reads only the end of the file."""
        try:
            with open(self._open(), "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
                _, *whole = (b"\n" + file.read()).splitlines()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise DiskError(f"{self._path}: {error.strerror}") from error
        last = _entry(whole[-1].decode("utf-8", "replace")) if whole else None
        return last is not None and last.write_id == write_id


def _line(entry: Entry) -> str:
    return json.dumps(asdict(entry), separators=(",", ":"))


def _entry(line: str) -> Entry | None:
    """The entry of a line; None if a crash truncated it."""
    try:
        fields: dict[str, Any] = strict_json.parse(line)
        changed = tuple(_change(change) for change in fields.pop("changes"))
        gone = tuple(fields.pop("gone", ()))
        return Entry(**fields, changes=changed, gone=gone)
    except (ValueError, TypeError, KeyError, AttributeError, IntegrityError):
        return None


def _change(fields: dict[str, Any]) -> Change:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    return Change(**values)
