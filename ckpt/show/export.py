"""A file, or a folder of files, that was written."""

from collections.abc import Sequence
from typing import Any

from ckpt.show.look.words import count, printable, size
from ckpt.writing.checkpoint import Written

NAMED = 5  # of what was left out


def written_text(written: Written) -> str:
    """Where it stands, and how large it is."""
    path = printable(str(written.path))
    if written.files == 1:
        return f"wrote {path}  {size(written.size)}"
    return f"wrote {path}/  {count(written.files, 'file')}, {size(written.size)}"


def left_out_text(left_out: Sequence[str]) -> str | None:
    """What the new container has no place for, if there was any."""
    if not left_out:
        return None
    named = ", ".join(map(printable, left_out[:NAMED]))
    more = len(left_out) - NAMED
    return f"left out, it has no place there: {named}" + (f" and {more:,} more" if more > 0 else "")


def also_named_text(written: Written) -> str | None:
    """Where else in the file the names followed, if there was such a place."""
    if not written.also_named:
        return None
    named = ", ".join(map(printable, written.also_named[:NAMED]))
    more = len(written.also_named) - NAMED
    return f"renamed as well in {named}" + (f" and {more:,} more" if more > 0 else "")


def written_data(written: Written) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "path": str(written.path),
        "files": written.files,
        "size": written.size,
        "left_out": list(written.left_out),
        "also_named": list(written.also_named),
    }
