"""A rename: the plan, whether it fits, and what was written."""

from typing import Any

from ckpt.ops.rename import Renamed
from ckpt.show.difference import fitting_data
from ckpt.show.folding import fold
from ckpt.show.versions import added_data, added_text
from ckpt.show.words import count, printable
from ckpt.show.written import left_out_text, written_data, written_text

MOST_LINES = 8  # more renamed keys than this are folded


def renamed_text(renamed: Renamed, *, dry_run: bool) -> str:
    """The plan, then the verdict, then what stands where now."""
    parts = [plan_text(renamed)]
    if renamed.written:
        parts.append(written_text(renamed.written))
        left_out = left_out_text(renamed.written)
        parts += [f"  {left_out}"] if left_out else []
    if renamed.added:
        parts.append(added_text(renamed.added))
    if dry_run:
        parts.append("nothing written (--dry-run)")
    return parts[0] + "\n\n" + "\n".join(parts[1:])


def plan_text(renamed: Renamed) -> str:
    """Every key that changes, folded where they are many, and the count of the others."""
    changes = renamed.plan.renamed
    pairs = [(change.old, change.new) for change in changes]
    if len(pairs) <= MOST_LINES:
        rows = [(printable(old), printable(new), "") for old, new in pairs]
    else:
        rows = [
            (printable(line.cells[0]), printable(line.cells[1]), f"   {count(line.count, 'key')}")
            for line in fold(pairs)
        ]
    wide = max((len(old) for old, _, _ in rows), default=0)
    lines = [f"  {old:<{wide}}  ->  {new}{note}" for old, new, note in rows]
    kept = len(renamed.plan.changes) - len(changes)
    verdict = f"  {count(len(changes), 'key')} renamed, {kept:,} kept"
    if renamed.fitting:
        verdict += f" · fits {printable(renamed.fitting.definition)}"
    return "\n".join([*lines, verdict])


def renamed_data(renamed: Renamed) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "source": renamed.source,
        "rules": list(renamed.plan.rules),
        "keys": [
            {"old": change.old, "new": change.new, "rules": list(change.rules)}
            for change in renamed.plan.changes
        ],
        "fit": fitting_data(renamed.fitting) if renamed.fitting else None,
        "written": written_data(renamed.written) if renamed.written else None,
        "added": added_data(renamed.added) if renamed.added else None,
    }
