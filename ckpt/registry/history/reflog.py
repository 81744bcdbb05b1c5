"""The reflog: what this machine did to the index, a line of JSON for each write.

Law: the entry of a write is on the disk before the index is, and names the write that it came
after. Which entries happened is told from the index: its `write_id` names the last one, and each
entry the one before. A write that never came about is in no such chain. What was done elsewhere is
an entry as well, written before the first write that comes after it: so the entries tell the whole
index, and `ckpt.registry.history.replay` makes it anew of them.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ckpt.errors import DiskError, IntegrityError
from ckpt.io import digest, strict_json
from ckpt.io.files import disk_errors, sync_folder
from ckpt.registry.history.changes import Change

_TAIL = 1 << 16  # bytes; a longer last line is read with all the others


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
        versions: Lines of the index that are new or not as before, by ref, ``mnist-cnn:v3``.
        next_numbers: What the next version of each model that was changed gets.
        gone: Manifests of versions that went for good.
        serial: That of the index.
        elsewhere: Whether it was not done on this machine: it came by git, or by hand.
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

    def append(self, *entries: Entry) -> None:
        """Add entries, and have them on the disk; called with the index's lock held."""
        lines = "".join(_line(entry) + "\n" for entry in entries)
        with disk_errors(self._path):
            self._append(lines.encode())

    def _append(self, lines: bytes) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            size = os.fstat(fd).st_size
            whole = not size or os.pread(fd, 1, size - 1) == b"\n"
            # What a crash has left of a line before ends here.
            left = lines if whole else b"\n" + lines
            while left:  # a disk that becomes full takes a part, and says so at the next one
                left = left[os.write(fd, left) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        if not size:
            sync_folder(self._path.parent)

    def chain(self, write_id: str) -> Iterator[Entry]:
        """The entries that led to a write, the last one first, back to what was done elsewhere."""
        known = {entry.write_id: entry for entry in self.entries()}
        while (entry := known.pop(write_id, None)) is not None and not entry.elsewhere:
            yield entry
            write_id = entry.parent

    def entries(self) -> list[Entry]:
        """All entries, in the order in which they were written, come about or not."""
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DiskError(f"{self._path}: {error.strerror}") from error
        return [entry for line in lines if (entry := _entry(line)) is not None]

    def manifests(self) -> set[str]:
        """Those of all versions that it tells of, but of those that went for good.

        Versions are among them that the index does not name now: of another branch, perhaps.
        """
        found: set[str] = set()
        for entry in self.entries():
            for line in entry.versions.values():
                found.update([str(line.get("manifest")), *map(str, line.get("also", ()))])
            found.difference_update(entry.gone)
        return set(filter(digest.is_digest, found))

    def ends_with(self, write_id: str) -> bool:
        """Whether the last entry is that of a write; read from the file's end alone."""
        try:
            with self._path.open("rb") as file:
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
    """The entry of a line; None of one that a crash has cut short."""
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
