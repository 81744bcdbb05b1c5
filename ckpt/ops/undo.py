"""Undo: take back what was done to a registry.

That is the last write that was not undone yet, if nothing has changed since what it changed.
"""

from ckpt.errors import RefError
from ckpt.registry.history.changes import taken_back
from ckpt.registry.history.reflog import Entry
from ckpt.registry.registry import Registry, now


def done(*, registry: Registry | None = None) -> list[tuple[Entry, bool]]:
    """What was done to the index here, the last first, and whether it was taken back."""
    registry = registry or Registry()
    entries = list(registry.reflog.chain(registry.index().write_id))
    undone = {entry.undoes for entry in entries}
    return [(entry, entry.write_id in undone) for entry in entries]


def undo(*, registry: Registry | None = None) -> Entry:
    """Take back the last thing that was done and not taken back.

    Raises:
        RefError: There is nothing, or it was not done here.
        ConflictError: What it changed was changed again since.
    """
    registry = registry or Registry()
    last = next(
        (
            entry
            for entry, is_undone in done(registry=registry)
            # An index that was made anew as it was is a write that changed nothing.
            if not is_undone and entry.undoes is None and not entry.is_final and entry.changes
        ),
        None,
    )
    if last is None:
        raise RefError(
            "nothing to take back: the last write to this registry was made elsewhere, or none was",
            hint="git log registry.json  shows what came from elsewhere",
        )
    found = last
    registry.commit(
        lambda index: taken_back(index, found.changes, at=now()),
        f"undo {found.what}",
        undoes=found.write_id,
    )
    return found
