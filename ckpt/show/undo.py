"""The changes to a registry, as text and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ckpt.ops.undo import Undone
from ckpt.registry.history.changes import value_text
from ckpt.registry.history.reflog import Entry
from ckpt.show.look.terminal import table
from ckpt.show.look.words import printable

_ID = 8  # digits of a `write_id`
# Fields of an entry that only a rebuild of the index needs.
_FOR_REPLAY = ("versions", "next_numbers", "serial", "elsewhere", "events")


def history_text(entries: Sequence[tuple[Entry, bool]], *, width: int | None) -> str:
    """A table, one write a line, newest first."""
    if not entries:
        return "no changes on this machine, or none since git replaced registry.json"
    rows = [
        [entry.write_id[:_ID], entry.time, entry.what, "undone" if undone else ""]
        for entry, undone in entries
    ]
    return table(rows, ["id", "when", "change", ""], width=width)


def undone_text(undone: Undone) -> str:
    """An undone write: each change with the value before and after; and what was stepped over."""
    did, origin = "redid" if undone.redone else "undid", undone.origin
    lines = [f"{did}: {printable(origin.what)}  ({origin.time})"]
    for change in undone.entry.changes:
        name = printable(f"{change.model} {change.kind} {change.name}")
        before = "removed" if change.kind == "version" and not change.before else change.before
        lines.append(f"  {name}  {value_text(change.after)} -> {value_text(before)}")
    lines += [
        printable(f"stepped over, since it cannot be undone: {entry.what}  ({entry.time}): {why}")
        for entry, why in undone.stepped_over
    ]
    return "\n".join(lines)


def history_data(entries: Sequence[tuple[Entry, bool]]) -> list[dict[str, Any]]:
    """Writes for JSON."""
    return [_entry_data(entry, undone=undone) for entry, undone in entries]


def undone_data(undone: Undone) -> dict[str, Any]:
    """An undone write for JSON, and what was stepped over."""
    over = [
        {"write_id": entry.write_id, "what": entry.what, "why": why}
        for entry, why in undone.stepped_over
    ]
    return {**_entry_data(undone.entry, undone=True), "stepped_over": over}


def _entry_data(entry: Entry, *, undone: bool) -> dict[str, Any]:
    fields = {name: value for name, value in asdict(entry).items() if name not in _FOR_REPLAY}
    return {**fields, "undone": undone}
