"""A version that was copied to another registry, as text and as JSON."""

from typing import Any

from ckpt.io import digest
from ckpt.ops.copy import Copied
from ckpt.show.look.words import printable, size
from ckpt.show.ls import version_data


def copied_text(copied: Copied) -> str:
    """One line."""
    version, folder = copied.version, printable(str(copied.folder))
    name = f"{version.ref}  {digest.short(version.manifest)}"
    if not copied.new:
        return f"{folder} has {name} already: the same bytes, nothing copied"
    return f"copied {copied.source.ref} to {folder} as {name}, {size(version.new_bytes)} new"


def copied_data(copied: Copied) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "source": copied.source.ref,
        "registry": str(copied.folder),
        **version_data(copied.version),
        "new": copied.new,
    }
