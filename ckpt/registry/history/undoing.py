"""Which writes are undone, and what an undo or a redo takes next.

Values only. Laws: an undo is a write that names the write that it undid, and a redo is an undo of
an undo. A write is undone as long as an undo of it is not undone itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ckpt.registry.history.reflog import Entry


@dataclass(frozen=True, slots=True)
class Written:
    """A write.

    Attributes:
        entry: Its entry.
        origin: The entry of the change that an undo or a redo is about; else `entry`.
        undoes: Whether it is an undo. A redo is not: it makes the origin valid again.
        is_undone: Whether it is undone now.
    """

    entry: Entry
    origin: Entry
    undoes: bool
    is_undone: bool

    @property
    def is_change(self) -> bool:
        """Whether it is neither an undo nor a redo, and changed something that can be undone."""
        # A rebuild that restored the same index is a write without changes.
        return self.origin is self.entry and not self.entry.is_final and bool(self.entry.changes)


def written(chain: Iterable[Entry]) -> list[Written]:
    """The writes of a chain of entries, newest first."""
    entries = list(chain)
    about: dict[str, tuple[Entry, bool]] = {}  # by write: its origin, and whether it is an undo
    for entry in reversed(entries):  # what an undo undid comes before it
        origin, undoes = about.get(entry.undoes or "", (entry, True))
        about[entry.write_id] = origin, not undoes
    undone: set[str] = set()
    found = []
    for entry in entries:
        is_undone = entry.write_id in undone
        if entry.undoes and not is_undone:
            undone.add(entry.undoes)
        found.append(Written(entry, *about[entry.write_id], is_undone))
    return found
