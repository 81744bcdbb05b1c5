"""What came from a remote, as text and as JSON."""

from collections.abc import Iterator
from typing import Any

from ckpt.remote.merging import Fetched
from ckpt.show.git_driver import merged_lines
from ckpt.show.look.words import count, printable

_MOST = 10  # versions in a line; --json has all


def fetched_text(fetched: Fetched) -> str:
    """The new versions, and those whose number changed."""
    lines = [*fetched_lines(fetched)]
    return "\n".join(lines or [f"nothing new on {fetched.remote}"])


def fetched_lines(fetched: Fetched) -> Iterator[str]:
    """A line for the new versions, and one for each that a merge moved; none if nothing is new."""
    if fetched.new:
        refs = [version.ref for version in fetched.new]
        more = f" and {count(len(refs) - _MOST, 'more version')}" if len(refs) > _MOST else ""
        yield printable(f"fetched {', '.join(refs[:_MOST])}{more} from {fetched.remote}")
    if fetched.merged is not None:
        yield from merged_lines(fetched.merged)


def fetched_data(fetched: Fetched) -> dict[str, Any]:
    """The same for JSON."""
    moved = fetched.merged.renumbered if fetched.merged else ()
    return {
        "remote": fetched.remote,
        "new": [version.ref for version in fetched.new],
        "renumbered": [
            {"before": each.before, "after": each.after} for each in moved if each.side == "ours"
        ],
    }
