"""The versions that changed a tensor, as text and as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from ckpt.io import digest
from ckpt.ops.blame import Touch
from ckpt.show.look.terminal import table
from ckpt.show.look.words import printable


def blame_text(found: Sequence[tuple[str, Touch]], *, width: int | None) -> str:
    """A table, one tensor a line."""
    rows = [
        [printable(key), touch.version.ref, touch.version.created[:10], _did(touch),
         printable(touch.version.made_by)]
        for key, touch in found
    ]  # fmt: skip
    return table(rows, ["key", "version", "when", "did", "made by"], width=width)


def touches_text(found: Mapping[str, Sequence[Touch]], *, width: int | None) -> str:
    """A table for each tensor, newest change first."""
    parts = []
    for key, touches in found.items():
        rows = [
            [touch.version.ref, touch.version.created[:10], _did(touch), digest.short(touch.digest),
             printable(touch.version.made_by)]
            for touch in touches
        ]  # fmt: skip
        shown = table(rows, ["version", "when", "did", "bytes", "made by"], width=width)
        parts.append(f"{printable(key)}\n" + "\n".join(f"  {line}" for line in shown.splitlines()))
    return "\n\n".join(parts)


def blame_data(found: Sequence[tuple[str, Touch]]) -> list[dict[str, Any]]:
    """The same for JSON."""
    return [{"key": key, **_data(touch)} for key, touch in found]


def touches_data(found: Mapping[str, Sequence[Touch]]) -> dict[str, list[dict[str, Any]]]:
    """The same for JSON, by key."""
    return {key: [_data(touch) for touch in touches] for key, touches in found.items()}


def _did(touch: Touch) -> str:
    """``changed``, with the old key if it was renamed too."""
    if touch.before in (None, touch.key):
        return touch.did
    return f"{touch.did}, was {printable(str(touch.before))}"


def _data(touch: Touch) -> dict[str, Any]:
    return {
        "version": touch.version.ref,
        "did": touch.did,
        "as": touch.key,
        "before": touch.before,
        "digest": touch.digest,
        "created": touch.version.created,
    }
