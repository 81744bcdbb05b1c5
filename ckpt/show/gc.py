"""What `ckpt gc` would remove, or did."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from ckpt.ops.gc import Garbage
from ckpt.show.look.words import count, size


def garbage_text(
    garbage: Garbage, *, keep_removed: timedelta, grace: timedelta, removed: bool
) -> str:
    """What goes, and what is kept although nothing needs it.

    Args:
        garbage: What was found.
        keep_removed: For how long removed versions were kept.
        grace: For how long all was kept.
        removed: Whether it is gone.
    """
    lines = list(_gone(garbage, keep_removed, removed=removed))
    if garbage.young:
        nbytes = sum(each.nbytes for each in garbage.young)
        lines.append(f"kept {size(nbytes)} that nothing needs, as younger than {_time(grace)}")
    return "\n".join(lines)


def garbage_data(garbage: Garbage, *, removed: bool) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "removed": removed,
        "versions": [version.ref for version in garbage.forgotten],
        "objects": sorted(each.digest for each in garbage.held if not each.is_manifest),
        "manifests": sorted(each.digest for each in garbage.held if each.is_manifest),
        "temporaries": [str(path) for path in garbage.temporaries],
        "bytes": garbage.nbytes,
        "young_bytes": sum(each.nbytes for each in garbage.young),
    }


def _gone(garbage: Garbage, keep_removed: timedelta, *, removed: bool) -> Iterator[str]:
    if garbage.is_empty:
        yield "nothing to remove"
        return
    yield "removed" if removed else "would remove"
    for version in garbage.forgotten:
        when = version.removed[:10] or "earlier"
        yield f"  {version.ref}  rm of {when}, kept for {_time(keep_removed)}"
    manifests = sum(each.is_manifest for each in garbage.held)
    parts = [
        count(number, noun)
        for number, noun in [
            (len(garbage.held) - manifests, "object"),
            (manifests, "manifest"),
            (len(garbage.temporaries), "temporary file"),
        ]
        if number
    ]
    if parts:
        yield f"  {', '.join(parts)}  {size(garbage.nbytes)}"


def _time(duration: timedelta) -> str:
    """``30 days``, ``1 h``."""
    if duration.days:
        return count(duration.days, "day")
    hours, seconds = divmod(duration.seconds, 3600)
    if hours and not seconds:
        return f"{hours} h"
    return f"{duration.seconds // 60} min" if duration.seconds >= 60 else f"{seconds} s"
