"""The versions that last changed tensors, as text and as JSON."""

from collections.abc import Sequence
from typing import Any

from ckpt.ops.log import Touch
from ckpt.show.log import touch_data, what_it_did
from ckpt.show.look.by import by_text
from ckpt.show.look.terminal import table


def blame_text(found: Sequence[tuple[str, Touch]], *, width: int | None) -> str:
    """A table, one tensor a line."""
    rows = [
        [key, touch.version.ref, touch.version.created[:10], what_it_did(touch),
         touch.version.made_by, by_text(touch.by)]
        for key, touch in found
    ]  # fmt: skip
    heads = ["key", "version", "when", "did", "made by", "by"]
    if not any(row[-1] for row in rows):
        rows, heads = [row[:-1] for row in rows], heads[:-1]
    return table(rows, heads, width=width)


def blame_data(found: Sequence[tuple[str, Touch]]) -> list[dict[str, Any]]:
    """The same for JSON."""
    return [{"key": key, **touch_data(touch)} for key, touch in found]
