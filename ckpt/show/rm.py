"""The versions that `ckpt rm` removed, as text and as JSON."""

from collections.abc import Sequence
from typing import Any

from ckpt.registry.version import Version
from ckpt.show.ls import version_data


def removed_text(versions: Sequence[Version]) -> str:
    """One line."""
    names = ", ".join(version.ref for version in versions)
    return f"removed {names}; ckpt restore  brings back what was removed"


def removed_data(versions: Sequence[Version]) -> list[dict[str, Any]]:
    """The same for JSON."""
    return list(map(version_data, versions))
