"""The disk usage of versions, as text and as JSON."""

from typing import Any

from ckpt.ops.du import Usage
from ckpt.show.look.fields import fields
from ckpt.show.look.terminal import table
from ckpt.show.look.words import size

_USE = ("model=version.model", "version=version.label", "size=version.size", "needed", "alone")


def usage_text(usage: Usage) -> str:
    """A table, one version a line, and the sum."""
    headers = ["model", "version", "file", "in the store", "alone"]
    rows = [
        [text if isinstance(text, str) else size(text) for text in fields(use, *_USE).values()]
        for use in usage.uses
    ]
    lines = [table(rows, headers, right=headers[2:]), ""]
    ratio = f" ({usage.stored / usage.copies:.0%})" if usage.copies else ""
    lines.append(f"{size(usage.stored)} stored for {size(usage.copies)} of files{ratio}")
    if usage.unneeded:
        lines.append(f"{size(usage.unneeded)} not needed by any version")
    return "\n".join(lines)


def usage_data(usage: Usage) -> dict[str, Any]:
    """The same for JSON."""
    versions = [fields(use, *_USE) for use in usage.uses]
    return {"versions": versions, **fields(usage, "stored", "copies", "unneeded")}
