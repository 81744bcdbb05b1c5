"""The digest ref of a version."""

from typing import Any

from ckpt.registry.version import Version
from ckpt.show.look.fields import fields


def pinned_text(version: Version) -> str:
    """The ref alone, so that a script can take it."""
    return version.manifest


def pinned_data(version: Version) -> dict[str, Any]:
    """The ref, and the version that it names."""
    return fields(version, "ref=manifest", "model", "version=label")
