"""Git, told of what it cannot know: how to merge `registry.json`, and how to show weights.

`install` tells git, once in every clone; `merge` and `as_text` are what git then calls.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from ckpt.errors import RefError, UsageError
from ckpt.io.files import write_whole
from ckpt.registry.index import Index, read_index
from ckpt.registry.index_file import FILE_NAME
from ckpt.registry.merge import Merged, merged
from ckpt.registry.registry import Registry

DRIVER = "ckpt git-driver merge %O %A %B"
CONFIG = {
    "merge.ckpt.name": "merge of ckpt's registry.json",
    "merge.ckpt.driver": DRIVER,
    "diff.ckpt.textconv": "ckpt git-driver text",
}
ATTRIBUTES = {
    FILE_NAME: ("merge=ckpt", "diff=ckpt"),
    **dict.fromkeys(("*.pt", "*.pth", "*.safetensors"), ("diff=ckpt",)),
}


@dataclass(frozen=True, slots=True)
class Installed:
    """What git was told.

    Attributes:
        attributes: The file `.gitattributes`, which belongs into a commit.
        added: The lines that were added to it; others stood there already.
    """

    attributes: Path
    added: tuple[str, ...]


def install(*, registry: Registry | None = None) -> Installed:
    """Have git merge the index, and show it and weights as text, in this clone.

    Args:
        registry: Beside its index the attributes are written, or here where there is none.

    Raises:
        UsageError: It is in no git repository.
    """
    registry = registry or Registry()
    for key, value in CONFIG.items():
        _git(registry.folder, "config", key, value)
    path = registry.folder / ".gitattributes"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    added = tuple(
        " ".join([pattern, *wanted])
        for pattern, wanted in ATTRIBUTES.items()
        if not any(_gives(line, pattern, wanted) for line in text.splitlines())
    )
    if added:
        if text and not text.endswith("\n"):
            text += "\n"
        with write_whole(path, replace=True) as out:
            out.write((text + "".join(f"{line}\n" for line in added)).encode())
    return Installed(path, added)


def merge(base: Path, ours: Path, theirs: Path) -> Merged:
    """Join three files, as git hands them over, into `ours`.

    Raises:
        IndexDamageError: One of them is no index; nothing is written then.
    """
    result = merged(
        _read(base, "the common ancestor", may_be_empty=True),
        _read(ours, "ours"),
        _read(theirs, "theirs"),
    )
    with write_whole(ours, replace=True) as out:
        out.write(result.index.to_text().encode("utf-8"))
    return result


def _read(path: Path, side: str, *, may_be_empty: bool = False) -> Index:
    try:
        document = path.read_bytes()
    except FileNotFoundError as error:
        raise RefError(f"{path}: no such file", hint="git calls this, with three files") from error
    if may_be_empty and not document:  # both sides added the file
        return Index()
    return read_index(document, name=f"{FILE_NAME} of {side} ({path.name})")


def _gives(line: str, pattern: str, wanted: tuple[str, ...]) -> bool:
    """Whether a line of `.gitattributes` gives the files of a pattern what is wanted."""
    first, *attributes = line.split() or [""]
    return first in (pattern, f"/{pattern}") and {*wanted} <= {*attributes}


def _git(folder: Path, *words: str) -> None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, errors="replace"
        )
    except FileNotFoundError as error:
        raise UsageError("git is not installed, or not on the PATH") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UsageError(f"{folder}: git says: {said[0]}", hint="is this in a git repository?")
