"""Configure git to merge `registry.json` and to show weights as text.

`install` configures a clone; git then calls `merge` and `as_text`.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from ckpt.errors import RefError, UsageError
from ckpt.io.files import write_whole
from ckpt.io.small_file import read_small
from ckpt.registry.index import Index
from ckpt.registry.index_file import FILE_NAME, MOST_BYTES, read_index
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
    """The configuration that was installed.

    Attributes:
        attributes: The file `.gitattributes`, which must be committed.
        added: The lines that were added to it; it had the others already.
    """

    attributes: Path
    added: tuple[str, ...]


def install(*, registry: Registry | None = None) -> Installed:
    """Configure git in this clone to merge the index, and to show it and weights as text.

    Args:
        registry: Its folder gets the `.gitattributes`; without a registry, this folder.

    Raises:
        UsageError: The folder is not in a git repository.
    """
    registry = registry or Registry()
    for key, value in CONFIG.items():
        _git(registry.folder, "config", key, value)
    path = registry.folder / ".gitattributes"
    text = read_small(path).decode("utf-8", "surrogateescape") if path.exists() else ""
    added = tuple(
        " ".join([pattern, *wanted])
        for pattern, wanted in ATTRIBUTES.items()
        if not any(_gives(line, pattern, wanted) for line in text.splitlines())
    )
    if added:
        if text and not text.endswith("\n"):
            text += "\n"
        with write_whole(path, replace=True) as out:
            out.write(
                (text + "".join(f"{line}\n" for line in added)).encode("utf-8", "surrogateescape")
            )
    return Installed(path, added)


def merge(base: Path, ours: Path, theirs: Path) -> Merged:
    """Merge three files, as git passes them, into `ours`.

    Raises:
        IndexDamageError: One of them is not an index; nothing is written then.
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
        document = read_small(path, most=MOST_BYTES)
    except RefError as error:
        raise RefError(str(error), hint="git calls this command with three files") from error
    if may_be_empty and not document:  # both sides added the file
        return Index()
    return read_index(document, name=f"{FILE_NAME} of {side} ({path.name})")


def _gives(line: str, pattern: str, wanted: tuple[str, ...]) -> bool:
    """Whether a line of `.gitattributes` gives a pattern the wanted attributes."""
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
        raise UsageError(f"{folder}: git says: {said[0]}", hint="is this a git repository?")
