"""The tags of a version, as text and as JSON."""

from collections.abc import Sequence
from typing import Any

from ckpt.registry.index import Version
from ckpt.show.look.words import printable


def tags_text(version: Version, tags: Sequence[str]) -> str:
    """The version and its tags."""
    return f"{version.ref}  {', '.join(map(printable, tags)) or 'no tags'}"


def tags_data(version: Version, tags: Sequence[str]) -> dict[str, Any]:
    """The same for JSON."""
    return {"model": version.model, "version": version.label, "tags": list(tags)}
