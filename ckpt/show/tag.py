"""The tags of a version, as text and as JSON."""

from typing import Any

from ckpt.registry.version import Version
from ckpt.show.look.words import printable


def tags_text(tagged: tuple[Version, list[str]]) -> str:
    """The version and its tags."""
    version, tags = tagged
    return f"{version.ref}  {', '.join(map(printable, tags)) or 'no tags'}"


def tags_data(tagged: tuple[Version, list[str]]) -> dict[str, Any]:
    """The same for JSON."""
    version, tags = tagged
    return {"model": version.model, "version": version.label, "tags": tags}
