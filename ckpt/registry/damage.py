"""What is wrong with a `registry.json` that is no index, and what to type.

Nothing here repairs anything: a damaged document is never cut short, guessed at or written over.
"""

import re
from json import JSONDecodeError

from ckpt.errors import IndexDamageError

REBUILD = "ckpt fsck --rebuild-index  makes it anew out of what is in .ckpt"
_HINT = f"git checkout registry.json  takes the committed one back;\n{REBUILD}"
_CONFLICT_HINT = (
    "git checkout --ours registry.json  takes one side, and after  ckpt git-driver install  "
    f"git merges both;\n{REBUILD}"
)
# At the beginning of a line; no line of an index begins so.
_MARKER = re.compile(r"^(<<<<<<<|=======|>>>>>>>)", re.MULTILINE)


def damaged(name: str, text: str, error: Exception) -> IndexDamageError:
    """What to say of a document that could not be read.

    Args:
        name: What to call it.
        text: The document.
        error: What its parser said.
    """
    if marker := _MARKER.search(text):
        line = text.count("\n", 0, marker.start()) + 1
        return IndexDamageError(
            f"{name}: line {line} is a conflict marker of git, {marker[0]}",
            hint=_CONFLICT_HINT,
            kind="conflict",
            line=line,
        )
    line_of_error = error.lineno if isinstance(error, JSONDecodeError) else None
    return IndexDamageError(
        f"{name}: not a registry: {error}", hint=_HINT, kind="damaged", line=line_of_error
    )


def missing(name: str) -> IndexDamageError:
    """What to say of an index that is gone while its versions are there."""
    return IndexDamageError(
        f"{name}: not there, but .ckpt/manifests beside it has versions", hint=_HINT, kind="missing"
    )


def newer(name: str, found: object, known: int) -> IndexDamageError:
    """What to say of a schema of the future; such an index is whole, and not to be rebuilt."""
    return IndexDamageError(
        f"{name}: schema {found!r}, this ckpt reads up to {known}",
        hint="a newer ckpt wrote it: pip install -U ckpt-registry",
        kind="newer",
    )
