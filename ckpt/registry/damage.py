"""Errors of a `registry.json` that cannot be read, with the commands that help.

Nothing here repairs anything: a damaged document is never truncated, guessed at or overwritten.
"""

import re
from json import JSONDecodeError

from ckpt.errors import IndexDamageError

REBUILD = "to rebuild it from .ckpt:  ckpt fsck --rebuild-index"
_HINT = f"git checkout registry.json  restores the committed one;\n{REBUILD}"
_CONFLICT_HINT = (
    "ckpt git-driver resolve  merges both sides; after  ckpt git-driver install  git does it;\n"
    f"{REBUILD}"
)
# At the beginning of a line; no line of an index begins like that.
_MARKER = re.compile(r"^(<<<<<<<|=======|>>>>>>>)", re.MULTILINE)


def damaged(name: str, text: str, error: Exception) -> IndexDamageError:
    """The error of a document that cannot be read.

    Args:
        name: Its name in messages.
        text: The document.
        error: The error of its parser.
    """
    if marker := _MARKER.search(text):
        line = text.count("\n", 0, marker.start()) + 1
        return IndexDamageError(
            f"{name}: line {line} is a git conflict marker, {marker[0]}",
            hint=_CONFLICT_HINT,
            kind="conflict",
            line=line,
        )
    line_of_error = error.lineno if isinstance(error, JSONDecodeError) else None
    return IndexDamageError(
        f"{name}: not a registry: {error}", hint=_HINT, kind="damaged", line=line_of_error
    )


def missing(name: str) -> IndexDamageError:
    """The error of an index that is missing beside stored versions."""
    return IndexDamageError(
        f"{name}: missing, but .ckpt/manifests beside it has versions", hint=_HINT, kind="missing"
    )


def newer(name: str, found: object, known: int) -> IndexDamageError:
    """The error of a newer schema; such an index is not damaged and must not be rebuilt."""
    return IndexDamageError(
        f"{name}: schema {found!r}, this ckpt reads up to {known}",
        hint="a newer ckpt wrote it: pip install -U ckpt-registry",
        kind="newer",
    )
