"""The file that `ckpt repair` looked at."""

from typing import Any

from ckpt.ops.repair import Repaired
from ckpt.show.look.fields import fields
from ckpt.show.look.words import printable


def repaired_text(repaired: Repaired) -> str:
    """What was done to the file."""
    name = printable(str(repaired.path))
    if repaired.out is not None:
        done = (f"  {printable(change)}" for change in repaired.changes)
        return "\n".join([f"wrote {printable(str(repaired.out))}", *done])
    if repaired.restored:
        return f"{name}: restored the keys that it had before the interrupted rename"
    if repaired.had_journal:
        return f"{name}: whole; removed the journal of an in-place rename"
    return f"{name}: whole, nothing to repair"


def repaired_data(repaired: Repaired) -> dict[str, Any]:
    """The same for JSON."""
    return {
        **fields(repaired, "path", "restored", "had_journal", "changes"),
        "out": None if repaired.out is None else str(repaired.out),
    }
