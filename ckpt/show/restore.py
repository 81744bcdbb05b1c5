"""The versions that `ckpt restore` brought back, as text and as JSON."""

from typing import Any

from ckpt.ops.restore import Restored
from ckpt.registry.version import Version
from ckpt.show.ls import version_data


def restored_text(restored: Restored) -> str:
    """One line each for versions that came back, and for those whose bytes the list has already."""
    said = {"restored": restored.versions, "in the list already": restored.present}
    return "\n".join(
        f"{text}: {', '.join(_name(version, restored) for version in versions)}"
        for text, versions in said.items()
        if versions
    )


def _name(version: Version, restored: Restored) -> str:
    before = restored.before.get(version.ref)
    return f"{version.ref} (was {before})" if before else version.ref


def restored_data(restored: Restored) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "restored": list(map(version_data, restored.versions)),
        "present": list(map(version_data, restored.present)),
        "before": dict(restored.before),
    }
