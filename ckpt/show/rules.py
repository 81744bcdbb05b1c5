"""Imported rules, as text and as JSON."""

from typing import Any

from ckpt.ops.rules import ImportedRules
from ckpt.rules.document import rules_document
from ckpt.show.look.fields import fields
from ckpt.show.look.words import count, printable


def imported_text(imported: ImportedRules) -> str:
    """What was written."""
    path = printable(str(imported.path))
    return f"wrote {path}  {count(len(imported.rules), 'rule')}"


def left_text(imported: ImportedRules) -> str:
    """A line for each part that no rule expresses."""
    return "\n".join(printable(f"left out: {it.what}: {it.why}") for it in imported.left)


def imported_data(imported: ImportedRules) -> dict[str, Any]:
    """The same for JSON."""
    return {
        **fields(imported, "source", "path"),
        "rules": rules_document(imported.rules),
        "left": [fields(it, "what", "why") for it in imported.left],
    }
