"""What `ckpt registry init` did, as text and as JSON."""

from typing import Any

from ckpt.ops.registry import Initialised
from ckpt.show.look.fields import fields
from ckpt.show.look.words import printable


def initialised_text(done: Initialised) -> str:
    """A line for the registry, and for the group that may use it."""
    folder = printable(str(done.folder))
    lines = [f"{'created a registry' if done.created else 'already a registry'}: {folder}"]
    if done.group is not None:
        lines.append(f"shared: the group {printable(done.group)} can read and write everything")
        lines.append(f"its members use it with  --registry {folder}  or  CKPT_SAFE_REGISTRIES")
    return "\n".join(lines)


def initialised_data(done: Initialised) -> dict[str, Any]:
    """The same for JSON."""
    return fields(done, "folder", "created", "group")
