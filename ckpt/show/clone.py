"""A registry that was cloned, as text and as JSON."""

from typing import Any

from ckpt.ops.clone import Cloned
from ckpt.show.look.words import count, printable, size


def cloned_text(cloned: Cloned) -> str:
    """The registry, and how to get tensors."""
    folder, versions = printable(str(cloned.folder)), count(len(cloned.versions), "version")
    if cloned.nbytes:
        return f"cloned {versions} into {folder}: {size(cloned.nbytes)}"
    hint = "commands fetch tensors when they need them; to get them now:  ckpt pull"
    return f"cloned {versions} into {folder}, without tensors\n{hint}"


def cloned_data(cloned: Cloned) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "folder": str(cloned.folder),
        "url": cloned.url,
        "versions": [version.ref for version in cloned.versions],
        "bytes": cloned.nbytes,
    }
