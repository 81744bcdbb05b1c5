"""The versions that `ckpt rm` removed, as text and as JSON."""

from collections.abc import Sequence
from typing import Any

from ckpt.registry.version import Version
from ckpt.show.ls import version_data


def removed_text(versions: Sequence[Version]) -> str:
    """One line."""
    refs = [version.ref for version in versions]
    back = "it" if len(refs) == 1 else "them"
    return f"removed {', '.join(refs)}; to bring {back} back:  ckpt restore {' '.join(refs)}"


def removed_data(versions: Sequence[Version]) -> list[dict[str, Any]]:
    """The same for JSON."""
    return list(map(version_data, versions))
