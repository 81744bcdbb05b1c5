"""The changes to a registry, as text and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ckpt.registry.history.changes import value_text
from ckpt.registry.history.reflog import Entry
from ckpt.show.look.terminal import table
from ckpt.show.look.words import printable

# Fields of an entry that only a rebuild of the index needs.
_FOR_REPLAY = ("versions", "next_numbers", "serial", "elsewhere", "events")


def history_text(entries: Sequence[tuple[Entry, bool]]) -> str:
    """A table, one write a line, newest first."""
    if not entries:
        return "no changes on this machine"
    rows = [[entry.time, entry.what, "undone" if undone else ""] for entry, undone in entries]
    return table(rows, ["when", "change", ""])


def entry_text(entry: Entry) -> str:
    """An undone write: each change with the value before and after the undo."""
    lines = [f"undid: {printable(entry.what)}  ({entry.time})"]
    for change in entry.changes:
        name = printable(f"{change.model} {change.kind} {change.name}")
        before = "removed" if change.kind == "version" and not change.before else change.before
        lines.append(f"  {name}  {value_text(change.after)} -> {value_text(before)}")
    return "\n".join(lines)


def history_data(entries: Sequence[tuple[Entry, bool]]) -> list[dict[str, Any]]:
    """Writes for JSON."""
    return [entry_data(entry, undone=undone) for entry, undone in entries]


def entry_data(entry: Entry, *, undone: bool = True) -> dict[str, Any]:
    """A write for JSON."""
    fields = {name: value for name, value in asdict(entry).items() if name not in _FOR_REPLAY}
    return {**fields, "undone": undone}
