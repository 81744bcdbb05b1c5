"""The disk usage of versions, as text and as JSON."""

from typing import Any

from ckpt.ops.du import Usage
from ckpt.show.look.terminal import table
from ckpt.show.look.words import size


def usage_text(usage: Usage) -> str:
    """A table, one version a line, and the sum."""
    rows = [
        [use.version.model, use.version.label, size(use.version.size), size(use.needed),
         size(use.alone)]
        for use in usage.uses
    ]  # fmt: skip
    headers = ["model", "version", "file", "in the store", "alone"]
    lines = [table(rows, headers, right=headers[2:]), ""]
    ratio = f" ({usage.stored / usage.copies:.0%})" if usage.copies else ""
    lines.append(f"{size(usage.stored)} stored for {size(usage.copies)} of files{ratio}")
    if usage.unneeded:
        lines.append(f"{size(usage.unneeded)} not needed by any version")
    return "\n".join(lines)


def usage_data(usage: Usage) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "versions": [
            {
                "model": use.version.model,
                "version": use.version.label,
                "size": use.version.size,
                "needed": use.needed,
                "alone": use.alone,
            }
            for use in usage.uses
        ],
        "stored": usage.stored,
        "copies": usage.copies,
        "unneeded": usage.unneeded,
    }
