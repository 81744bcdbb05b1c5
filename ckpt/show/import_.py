"""What was imported, as text and as JSON."""

from collections.abc import Iterator
from typing import Any

from ckpt.ops.import_.imported import Imported, Item, Pointed
from ckpt.show.look.fields import fields
from ckpt.show.look.terminal import table
from ckpt.show.look.words import count, printable

_DID = {
    "new": "new",
    "same": "same bytes",
    "known": "known already",
    "removed": "was removed here",
    "skipped": "skipped",
    "left": "not imported",
}


def imported_text(imported: Imported) -> str:
    """A line for each checkpoint, the aliases, and the sum."""
    rows = [
        [item.name, item.version or "", item.created[:10], _did(item)] for item in imported.items
    ]
    parts = [table(rows, ["from", "version", "made", ""])]
    if imported.aliases:
        parts.append("\n".join(_alias_line(imported, each) for each in imported.aliases))
    parts.append(_sum(imported))
    return "\n\n".join(parts)


def _did(item: Item) -> str:
    return f"skipped: {item.why}" if item.did == "skipped" else _DID[item.did]


def _alias_line(imported: Imported, alias: Pointed) -> str:
    ref = printable(f"{imported.model}@{alias.name}")
    if alias.did == "kept":
        now = f"points to {alias.now} here" if alias.now else "was deleted here"
        expect = f" --expect {alias.now}" if alias.now else ""
        move = f"ckpt alias {ref} {alias.version}{expect}"
        return f"{ref} {now}, and points to {alias.version} there; to move it:  {move}"
    would = "would point" if imported.dry_run and alias.did == "new" else "points"
    return f"{ref} {would} to {alias.version}"


def _sum(imported: Imported) -> str:
    new = count(imported.number_of("new"), "version")
    text = f"{'would add' if imported.dry_run else 'added'} {new} of {printable(imported.model)}"
    others = [
        (imported.number_of("known", "removed"), "known already"),
        (imported.number_of("same"), "of the same bytes"),
        (len(imported.left), "not imported"),
    ]
    return ", ".join([text, *(f"{number:,} {what}" for number, what in others if number)])


def left_text(imported: Imported) -> str:
    """A line for each checkpoint that could not be imported; then what helps, each hint once."""
    lines = [f"not imported: {item.name}: {item.why}" for item in imported.left]
    hints = dict.fromkeys(item.hint for item in imported.left if item.hint)
    helps = [f"  {line}" for hint in hints for line in hint.split("\n")]
    return "\n".join(map(printable, [*lines, *helps]))


def remarks_text(imported: Imported) -> str:
    """What the versions lack."""
    return "\n".join(map(printable, [*imported.remarks, *_plain(imported)]))


def _plain(imported: Imported) -> Iterator[str]:
    changed = [item for item in imported.items if item.plain]
    if changed:
        first = f"{changed[0].name}: {changed[0].plain[0]}"
        yield f"without classes: {count(len(changed), 'checkpoint')}, e.g. {first}"


def imported_data(imported: Imported) -> dict[str, Any]:
    """The same for JSON."""
    return {
        **fields(imported, "source", "model", "dry_run"),
        "items": [
            {
                **fields(item, "name", "did", "version"),
                "created": item.created or None,
                "why": item.why or None,
                "plain": list(item.plain),
            }
            for item in imported.items
        ],
        "aliases": [fields(each, "name", "version", "now", "did") for each in imported.aliases],
        "remarks": list(imported.remarks),
        "resolved": imported.resolved or None,
    }
