"""What was done to a registry, as text and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ckpt.registry.history.changes import said
from ckpt.registry.history.reflog import Entry
from ckpt.show.look.terminal import table
from ckpt.show.look.words import printable

# What an entry holds so that the index can be made anew, and nobody wants to see.
_FOR_REPLAY = ("versions", "next_numbers", "serial", "elsewhere")


def history_text(entries: Sequence[tuple[Entry, bool]]) -> str:
    """A table, one write a line, the last first."""
    if not entries:
        return "nothing was done here"
    rows = [
        [entry.time, printable(entry.what), "taken back" if undone else ""]
        for entry, undone in entries
    ]
    return table(rows, ["when", "what", ""])


def entry_text(entry: Entry) -> str:
    """What was taken back: each change, from what it was to what it is again."""
    lines = [f"took back: {printable(entry.what)}  ({entry.time})"]
    for change in entry.changes:
        name = printable(f"{change.model} {change.kind} {change.name}")
        before = "removed" if change.kind == "version" and not change.before else change.before
        lines.append(f"  {name}  {said(change.after)} -> {said(before)}")
    return "\n".join(lines)


def entry_data(entry: Entry, *, undone: bool) -> dict[str, Any]:
    """An entry for JSON."""
    fields = {name: value for name, value in asdict(entry).items() if name not in _FOR_REPLAY}
    return {**fields, "undone": undone}
