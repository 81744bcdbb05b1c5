"""Aliases, as text and as JSON."""

from collections.abc import Sequence
from typing import Any

from ckpt.ops.alias import Alias, AliasHistory, Moved
from ckpt.show.look.by import by_text, day_and_time
from ckpt.show.look.fields import fields
from ckpt.show.look.tables import Table
from ckpt.show.look.terminal import table


def aliases_text(aliases: Sequence[Alias]) -> str:
    """A table, one alias a line."""
    rows = [
        [alias.ref, alias.version or "", "protected" if alias.protected else ""]
        for alias in aliases
    ]
    return table(rows, ["alias", "version", ""])


def alias_text(alias: Alias) -> str:
    """An alias after a change."""
    if alias.version is None:
        return f"deleted {alias.ref}, which pointed to {alias.before}"
    protected = ", protected" if alias.protected else ""
    if not alias.changed:
        return f"{alias.ref} already points to {alias.version}{protected}"
    if alias.before in (None, alias.version):
        return f"{alias.ref} points to {alias.version}{protected}"
    return f"{alias.ref} points to {alias.version} (before: {alias.before}){protected}"


def alias_data(alias: Alias) -> dict[str, Any]:
    """The same for JSON."""
    return fields(alias, "alias=name", "model", "version", "before", "protected", "changed")


def aliases_data(aliases: Sequence[Alias]) -> list[dict[str, Any]]:
    """Aliases for JSON."""
    return list(map(alias_data, aliases))


def history_text(history: AliasHistory, *, width: int | None = None) -> str:
    """What the aliases point to, and a table of their moves, newest first."""
    lines = [
        f"{alias.ref} points to {alias.version}{', protected' if alias.protected else ''}"
        for alias in history.aliases
    ]
    if not history.moves:
        return "\n".join([*lines, "no changes are recorded"])
    gone = {_name(moved) for moved in history.moves} - {alias.ref for alias in history.aliases}
    lines += [f"{name} was deleted" for name in sorted(gone)]
    moves = moves_table(history.moves)
    return "\n".join([*lines, "", table(moves.rows, moves.heads, width=width)])


def moves_table(moves: Sequence[Moved]) -> Table:
    """A row for each move; without the alias if there is only one."""
    rows = [
        [day_and_time(moved.event.at), _name(moved), _what_it_did(moved), by_text(moved.event.by),
         moved.event.text]
        for moved in moves
    ]  # fmt: skip
    heads = ["when", "alias", "did", "by", "why"]
    if len({*map(_name, moves)}) == 1:
        rows, heads = [[row[0], *row[2:]] for row in rows], [heads[0], *heads[2:]]
    return Table(heads, rows)


def _name(moved: Moved) -> str:
    return f"{moved.model}@{moved.event.name}"


def _what_it_did(moved: Moved) -> str:
    event = moved.event
    match event.did:
        case "unalias":
            return f"deleted, was {event.before}"
        case "protect" | "unprotect":
            return f"{event.did}ed"
    renumbered = "deleted since" if moved.now is None else f"now {moved.now}"
    note = "" if moved.now == event.version else f" ({renumbered})"
    return f"{event.before or 'none'} -> {event.version}{note}"


def history_data(history: AliasHistory) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "aliases": aliases_data(history.aliases),
        "log": [
            {
                **fields(moved, "alias=event.name", "model", "did=event.did", "at=event.at"),
                **fields(moved, "by=event.by", "message=event.text"),
                "before": moved.event.before or None,
                "version": moved.event.version or None,
                "version_now": moved.now,
                "manifest": moved.event.manifest or None,
            }
            for moved in history.moves
        ],
    }
