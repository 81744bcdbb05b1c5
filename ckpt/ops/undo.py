"""Undo: revert the last write to the index that is not undone yet, unless it was overwritten."""

from ckpt.errors import RefError
from ckpt.registry.history.changes import undone
from ckpt.registry.history.reflog import Entry
from ckpt.registry.registry import Registry, now


def history(*, registry: Registry | None = None) -> list[tuple[Entry, bool]]:
    """The writes to the index on this machine, newest first, and whether each is undone."""
    registry = registry or Registry()
    entries = list(registry.index_file.reflog.chain(registry.index().write_id))
    undone_ids = {entry.undoes for entry in entries}
    return [(entry, entry.write_id in undone_ids) for entry in entries]


def undo(*, registry: Registry | None = None) -> Entry:
    """Undo the last write that is not undone yet.

    Raises:
        RefError: There is none, or it was made elsewhere.
        ConflictError: Something that it changed has changed again since.
    """
    registry = registry or Registry()
    last = next(
        (
            entry
            for entry, is_undone in history(registry=registry)
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
    changes = last.changes
    registry.index_file.commit(
        lambda index: undone(index, changes, at=now()),
        f"undo {last.what}",
        undoes=last.write_id,
    )
    return last
