"""Undo: revert the last write to the index that is not undone yet, unless it was overwritten."""

from ckpt.errors import RefError
from ckpt.registry.history.changes import undone
from ckpt.registry.history.reflog import Entry
from ckpt.registry.index import Index
from ckpt.registry.registry import Registry, now


def history(*, registry: Registry | None = None) -> list[tuple[Entry, bool]]:
    """The writes to the index on this machine, newest first, and whether each is undone."""
    registry = registry or Registry()
    return _history(registry, registry.index())


def _history(registry: Registry, index: Index) -> list[tuple[Entry, bool]]:
    entries = list(registry.index_file.reflog.chain(index.write_id))
    undone_ids = {entry.undoes for entry in entries}
    return [(entry, entry.write_id in undone_ids) for entry in entries]


def undo(*, registry: Registry | None = None) -> Entry:
    """Undo the last write that is not undone yet.

    Raises:
        RefError: There is none, or it was made elsewhere.
        ConflictError: Something that it changed has changed again since.
    """
    registry = registry or Registry()
    last: list[Entry] = []

    def reverted(index: Index) -> Index:
        last.append(_last(registry, index))
        return undone(index, last[-1].changes, at=now())

    registry.index_file.commit(
        reverted,
        lambda: f"undo {last[-1].what}",
        undoes=lambda: last[-1].write_id,
    )
    return last[-1]


def _last(registry: Registry, index: Index) -> Entry:
    """The last write that is not undone yet."""
    last = next(
        (
            entry
            for entry, is_undone in _history(registry, index)
            # A rebuild that restored the same index is a write without changes.
            if not is_undone and entry.undoes is None and not entry.is_final and entry.changes
        ),
        None,
    )
    if last is None:
        raise RefError(
            "nothing to undo: there is no earlier change, or it was made elsewhere",
            hint="git log registry.json  shows changes from elsewhere",
        )
    return last
