"""The disk usage of versions, as text and as JSON."""

from typing import Any

from ckpt.ops.du import Held, Usage
from ckpt.registry.needs.needed import GIT, REFLOG, REMOVED, VERSION
from ckpt.show.look.fields import fields
from ckpt.show.look.terminal import table
from ckpt.show.look.words import size

_USE = (
    *("model=version.model", "version=version.label", "size=version.size"),
    *("needed", "alone", "here"),
)


def usage_text(usage: Usage) -> str:
    """A table, one version a line, and the sum."""
    is_partial = any(use.here < use.needed for use in usage.uses)
    shown = _USE if is_partial else _USE[:-1]
    headers = ["model", "version", "file", "in the store", "alone", "here"][: len(shown)]
    rows = [
        [text if isinstance(text, str) else size(text) for text in fields(use, *shown).values()]
        for use in usage.uses
    ]
    lines = [table(rows, headers, right=headers[2:]), ""]
    ratio = f" ({usage.stored / usage.copies:.0%})" if usage.copies else ""
    lines.append(f"{size(usage.stored)} stored for {size(usage.copies)} of files{ratio}")
    lines += [f"{size(held.nbytes)} {_reason(held)}" for held in usage.held if held.by != VERSION]
    return "\n".join(lines)


def usage_data(usage: Usage) -> dict[str, Any]:
    """The same for JSON."""
    versions = [fields(use, *_USE) for use in usage.uses]
    held = [fields(each, "by", "bytes=nbytes") | {"until": _day(each)} for each in usage.held]
    return {"versions": versions, **fields(usage, "stored", "copies", "unneeded"), "held": held}


def _reason(held: Held) -> str:
    until = f" until {_day(held)}" if held.until else ""
    return {
        REMOVED: f"of removed versions: ckpt restore  brings them back{until}",
        GIT: "of versions that only git's history has: ckpt fsck  lists them",
        REFLOG: f"of versions that registry.json lost: ckpt fsck  lists them{until}",
    }.get(held.by, "that nothing needs: ckpt gc  frees them")


def _day(held: Held) -> str | None:
    return held.until.date().isoformat() if held.until else None
