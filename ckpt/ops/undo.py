"""Undo: revert a write to the index that is not undone yet, unless something changed it again.

Undoing an undo is a redo; `ckpt.ops.redo` does that for the last one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

from ckpt.errors import ConflictError, RefError
from ckpt.printed import Printed
from ckpt.registry.history.changes import undone
from ckpt.registry.history.reflog import Entry
from ckpt.registry.history.undoing import Written, written
from ckpt.registry.index import Index
from ckpt.registry.later_words import expect_short
from ckpt.registry.registry import InRegistry, Registry, now

_SHORTEST = 4  # characters of an entry's name
_OF_A_REGISTRY = (
    "undo is for changes to a registry; to give a file its old keys back:  "
    "ckpt rename FILE --to OLD_DEF"
)


@dataclass(frozen=True, slots=True, repr=False)
class Undone(Printed):
    """An undone write.

    Attributes:
        entry: The write that was undone.
        origin: The change that came or went with it; of a redo, the change that was undone before.
        redone: Whether the change came back, since `entry` is an undo.
        stepped_over: Later changes that cannot be undone, each with the reason.
    """

    VIEW: ClassVar = "ckpt.show.undo:undone_text"

    entry: Entry
    origin: Entry
    redone: bool
    stepped_over: tuple[tuple[Entry, str], ...] = ()


def history(*, registry: InRegistry | None = None) -> list[tuple[Entry, bool]]:
    """The writes to the index on this machine, newest first, and whether each is undone."""
    registry = Registry.of(registry)
    return [(each.entry, each.is_undone) for each in _written(registry, registry.index())]


def undo(
    entry: str | None = None, *, message: str = "", registry: InRegistry | None = None
) -> Undone:
    """Undo one write.

    Args:
        entry: The beginning of its `write_id`; None for the last change that is not undone and
            can be. Changes that cannot be undone, as those of a version that `gc` has deleted,
            are stepped over then.
        message: Why, for the history.
        registry: The registry; None finds it as the command line does.

    Raises:
        RefError: There is no such write, it is undone, it was made elsewhere, or it only added
            notes and metrics, which stay.
        ConflictError: Something that the named write changed has changed again since.

    Example:
        >>> ckpt.alias("net@candidate", "v1").ref
        'net@candidate'
        >>> print(ckpt.undo())
        undid: alias net@candidate v1 ...
          net alias candidate  v1 -> absent
    """
    registry = Registry.of(registry)
    registry.expect_there(hint=_OF_A_REGISTRY)
    return revert(
        registry,
        lambda writes: _chosen(writes, entry),
        named=bool(entry),
        message=message,
    )


def revert(
    registry: Registry,
    choose: Callable[[list[Written]], Iterable[Written]],
    *,
    named: bool = False,
    message: str = "",
) -> Undone:
    """Undo the first of the chosen writes that can be undone.

    Args:
        registry: The registry.
        choose: Chooses from all writes, newest first; called under the lock.
        named: Whether the one chosen was named, so that none is stepped over.
        message: Why, for the history.
    """
    expect_short(message)
    done: list[Undone] = []

    def reverted(index: Index) -> Index:
        stepped_over = []
        for each in choose(_written(registry, index)):
            try:
                after = undone(index, each.entry.changes, at=now())
            except ConflictError as error:
                if named:
                    raise
                stepped_over.append((each.entry, str(error)))
                continue
            done.append(Undone(each.entry, each.origin, each.undoes, tuple(stepped_over)))
            return after
        raise _nothing(stepped_over)

    registry.index_file.commit(
        reverted,
        lambda: f"{'redo' if done[-1].redone else 'undo'} {done[-1].origin.what}",
        undoes=lambda: done[-1].entry.write_id,
        message=message,
    )
    return done[-1]


def _written(registry: Registry, index: Index) -> list[Written]:
    return written(registry.index_file.reflog.chain(index.write_id))


def _chosen(writes: list[Written], entry: str | None) -> list[Written]:
    if entry is None:
        return [each for each in writes if each.is_change and not each.is_undone]
    found = [each for each in writes if each.entry.write_id.startswith(entry)]
    if len(entry) < _SHORTEST or len(found) != 1:
        number = "more than one change" if len(found) > 1 else "no change made on this machine"
        raise RefError(f"{entry!r} names {number}", hint="to list them:  ckpt undo --list")
    if found[0].is_undone:
        raise RefError(
            f"{found[0].entry.what} is undone already",
            hint="to bring the last one back:  ckpt redo",
        )
    if not found[0].entry.changes:
        raise RefError(
            f"{found[0].entry.what}: changed no version, alias or tag, so nothing can be undone",
            hint="notes and metrics are never removed; add another one that corrects it",
        )
    return found


def _nothing(stepped_over: list[tuple[Entry, str]]) -> RefError:
    if stepped_over:
        entry, why = stepped_over[0]
        return RefError(
            f"nothing to undo: {entry.what}: {why}", hint="to list all changes:  ckpt undo --list"
        )
    return RefError(
        "nothing to undo: there is no earlier change, or it was made elsewhere",
        hint="to see changes from elsewhere:  git log registry.json",
    )
