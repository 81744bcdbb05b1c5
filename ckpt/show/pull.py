"""What was pulled, as text and as JSON."""

from typing import Any

from ckpt.remote.pulling import Pulled
from ckpt.show.fetch import fetched_data
from ckpt.show.look.words import count, printable, size


def pulled_text(pulled: Pulled) -> str:
    """One line."""
    refs = printable(", ".join(version.ref for version in pulled.versions)) or "no version"
    if not pulled.objects:
        return f"nothing to get from {pulled.remote} for {refs}"
    got = f"{count(pulled.objects, 'object')}, {size(pulled.nbytes)}"
    return f"pulled {refs} from {pulled.remote}: {got}"


def pulled_data(pulled: Pulled) -> dict[str, Any]:
    """The same for JSON."""
    return {
        **fetched_data(pulled.fetched),
        "versions": [version.ref for version in pulled.versions],
        "objects": pulled.objects,
        "bytes": pulled.nbytes,
    }
