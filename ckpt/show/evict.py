"""What was evicted, as text and as JSON."""

from collections.abc import Sequence
from typing import Any

from ckpt.ops.evict import Evicted
from ckpt.show.look.fields import fields
from ckpt.show.look.words import count, printable, size


def evicted_text(evicted: Evicted) -> str:
    """One line, and one for each object that the remote lacks."""
    freed = "freed" if evicted.removed else "would free"
    refs = printable(", ".join(version.ref for version in evicted.versions))
    what = f"{freed} {count(evicted.objects, 'object')}, {size(evicted.nbytes)}, of {refs}"
    lines = [f"{what}; {evicted.remote} has them" if evicted.objects else f"{what}"]
    lines += [f"kept {printable(each)}: {evicted.remote} lacks it" for each in evicted.kept]
    return "\n".join([*lines, *(["to send it:  ckpt push"] if evicted.kept else [])])


def tracked_text(evicted: Evicted, steps: Sequence[str]) -> str:
    """That git tracks what was evicted, and the commands after which it tracks no object."""
    shows = "shows" if evicted.removed else "would show"
    them = "it" if evicted.tracked == 1 else "them"
    said = f"git tracks {evicted.tracked:,} of these objects and {shows} {them} as deleted"
    return "\n".join([f"{said}; to keep objects out of git:", *(f"  {step}" for step in steps)])


def evicted_data(evicted: Evicted) -> dict[str, Any]:
    """The same for JSON."""
    refs = [version.ref for version in evicted.versions]
    return {
        "versions": refs,
        **fields(evicted, "remote", "objects", "bytes=nbytes", "kept", "removed", "tracked"),
    }
