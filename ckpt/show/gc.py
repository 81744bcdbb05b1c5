"""The garbage that `ckpt gc` found or removed."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from ckpt.io.temporaries import Leftover
from ckpt.ops.gc import Garbage
from ckpt.show.look.lost import lost_data, lost_lines
from ckpt.show.look.words import count, printable, size


def garbage_text(garbage: Garbage) -> str:
    """The removed files, and unreferenced ones that are kept."""
    lines = [*lost_lines(garbage.lost), *_gone(garbage)]
    if garbage.young:
        under = f"under {_time(garbage.grace)} old"
        lines.append(f"kept {size(_young_bytes(garbage))}, unreferenced but {under}")
    return "\n".join([*lines, *_restorable(garbage)])


def _restorable(garbage: Garbage) -> Iterator[str]:
    """The removed versions that are kept, until when, and the command that deletes them."""
    found = garbage.restorable
    if not found.versions:
        return
    what = f"{count(len(found.versions), 'removed version')}, {size(found.nbytes)}"
    day = _until(garbage)
    until = f" until {day}" if day and len(found.versions) == 1 else ""
    until = f" at least until {day}" if day and not until else until
    yield f"{what}, can be restored{until}"
    it = "it" if len(found.versions) == 1 else "them"
    yield f"to delete {it} now:  ckpt gc --keep-removed 0 --grace 0"


def _until(garbage: Garbage) -> str | None:
    """The day from which the first removed version is no longer kept."""
    with suppress(OverflowError):
        since = garbage.restorable.since
        return (since + garbage.keep_removed).date().isoformat() if since else None
    return None


def garbage_data(garbage: Garbage) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "removed": garbage.removed,
        "versions": [version.ref for version in garbage.forgotten],
        "objects": _digests(garbage, manifests=False),
        "manifests": _digests(garbage, manifests=True),
        "temporaries": garbage.temporaries,
        "bytes": garbage.nbytes,
        "young_bytes": _young_bytes(garbage),
        "lost": lost_data(garbage.lost),
        "restorable": {
            "versions": [version.ref for version in garbage.restorable.versions],
            "bytes": garbage.restorable.nbytes,
            "until": _until(garbage),
        },
    }


def leftovers_text(found: Sequence[Leftover], *, removed: bool) -> str:
    """The leftovers of a folder of files, each with what became of it."""
    lines = []
    for left in found:
        did = f"kept: {left.kept}" if left.kept else "removed" if removed else "would remove"
        lines.append(f"{printable(str(left.path))}  {size(left.nbytes)}  {did}")
    if not removed and not all(left.kept for left in found):
        lines.append("\nto remove them, run the same command with --yes")
    return "\n".join(lines) or "nothing to remove"


def leftovers_data(found: Sequence[Leftover], *, removed: bool) -> list[dict[str, Any]]:
    """The same for JSON."""
    return [
        {
            "path": str(left.path),
            "bytes": left.nbytes,
            "removed": removed and not left.kept,
            "kept": left.kept or None,
        }
        for left in found
    ]


def _digests(garbage: Garbage, *, manifests: bool) -> list[str]:
    return sorted(stored.digest for stored in garbage.objects if stored.is_manifest == manifests)


def _young_bytes(garbage: Garbage) -> int:
    return sum(stored.nbytes for stored in garbage.young)


def _gone(garbage: Garbage) -> Iterator[str]:
    if garbage.is_empty:
        yield "nothing to remove"
        return
    yield "removed" if garbage.removed else "would remove"
    for version in garbage.forgotten:
        on = f" on {version.removed[:10]}" if version.removed else ""
        yield f"  {version.ref}  removed{on}, kept for {_time(garbage.keep_removed)}"
    manifests = sum(stored.is_manifest for stored in garbage.objects)
    numbers = {
        "object": len(garbage.objects) - manifests,
        "manifest": manifests,
        "temporary file": len(garbage.temporaries),
    }
    if parts := [count(number, noun) for noun, number in numbers.items() if number]:
        yield f"  {', '.join(parts)}  {size(garbage.nbytes)}"


def _time(duration: timedelta) -> str:
    """``30 days``, ``1 h``."""
    if duration.days:
        return count(duration.days, "day")
    hours, seconds = divmod(duration.seconds, 3600)
    if hours and not seconds:
        return f"{hours} h"
    return f"{duration.seconds // 60} min" if duration.seconds >= 60 else f"{seconds} s"
