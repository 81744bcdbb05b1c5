"""A file, or a folder of files, that was written."""

from collections.abc import Sequence
from typing import Any

from ckpt.show.look.fields import fields
from ckpt.show.look.words import count, printable, size
from ckpt.writing.checkpoint import Written

NAMED = 5  # names in a remark


def written_text(written: Written) -> str:
    """Its path and size."""
    path = printable(str(written.path))
    if written.files == 1:
        return f"wrote {path}  {size(written.size)}"
    return f"wrote {path}/  {count(written.files, 'file')}, {size(written.size)}"


def left_out_text(left_out: Sequence[str]) -> str | None:
    """The content that the new container cannot hold, if there was any."""
    return (
        f"not written (the new file cannot hold it): {_first_names(left_out)}" if left_out else None
    )


def also_named_text(written: Written) -> str | None:
    """Other places in the file where the keys were renamed, if there were any."""
    return f"also renamed in {_first_names(written.also_named)}" if written.also_named else None


def _first_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(map(printable, names[:NAMED])) + more


def written_data(written: Written) -> dict[str, Any]:
    """The same for JSON."""
    return fields(written, "path", "files", "size", "left_out", "also_named")
