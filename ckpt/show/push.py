"""What was pushed, as text and as JSON."""

from typing import Any

from ckpt.remote.pushing import Pushed
from ckpt.show.fetch import fetched_data
from ckpt.show.look.words import count, printable, size

_MOST = 10  # versions in a line; --json has all


def pushed_text(pushed: Pushed) -> str:
    """One line."""
    refs = [printable(version.ref) for version in pushed.new]
    if not refs and pushed.changed:
        return f"pushed aliases, tags and history to {pushed.remote}"
    if not refs:
        return f"{pushed.remote} has everything already"
    more = f" and {count(len(refs) - _MOST, 'more version')}" if len(refs) > _MOST else ""
    sent = f"{count(pushed.objects, 'object')}, {size(pushed.nbytes)}"
    return f"pushed {', '.join(refs[:_MOST])}{more} to {pushed.remote}: {sent}"


def pushed_data(pushed: Pushed) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "remote": pushed.remote,
        "new": [version.ref for version in pushed.new],
        "changed": pushed.changed,
        "objects": pushed.objects,
        "bytes": pushed.nbytes,
        "fetched": [fetched_data(each) for each in pushed.fetched],
    }
