"""Configure git to merge `registry.json` and to show weights as text.

`install` configures a clone; git then calls `merge` and `as_text`. Law: a merge that has a
conflict, or could not run, leaves a file with conflict markers, which is not an index.
"""

import sys
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from shlex import quote

from ckpt.errors import RefError, UsageError
from ckpt.io.files import write_whole
from ckpt.io.git import blobs, git
from ckpt.io.small_file import read_small
from ckpt.ops.git_driver.large_files import LFS_ATTRIBUTES, StoreUse, set_up_lfs, use_store
from ckpt.ops.git_driver.published import published_indexes
from ckpt.registry.index import Index
from ckpt.registry.index_file import MOST_BYTES, read_index
from ckpt.registry.merge import Merged, merged
from ckpt.registry.places import FILE_NAME
from ckpt.registry.registry import InRegistry, Registry
from ckpt.registry.seen import remember

_PYTHON = quote(sys.executable).replace("%", "%%")
# Exit codes 0 and 6 are answers; otherwise the next command is tried. The last one is git's own
# merge of text, which must leave a marker whatever it finds. Each % is git's. -P: the working
# folder is the work tree, whose modules must not be imported.
DRIVER = (
    'try() { "$@" git-driver merge %O %A %B %P; code=$?; '
    "case $code in 0|6) exit $code;; esac; }; "
    f"try {_PYTHON} -P -m ckpt; try ckpt; "
    "git merge-file -L ours -L base -L theirs %A %O %B; "
    "grep -q '^<<<<<<<' %A || { printf '\\n<<<<<<< theirs, not merged\\n'; cat %B; } >>%A; exit 1"
)
# Without ckpt, git shows the index as it is, and the name of the bytes of any other file.
TEXTCONV = (
    f'show() {{ {quote(sys.executable)} -P -m ckpt git-driver text "$1" 2>/dev/null || '
    'ckpt git-driver text "$1" 2>/dev/null || '
    'case $1 in *.json) cat "$1";; *) git hash-object --no-filters "$1";; esac; }; show'
)
CONFIG = {
    "merge.ckpt.name": "merge of ckpt's registry.json",
    "merge.ckpt.driver": DRIVER,
    "diff.ckpt.textconv": TEXTCONV,
}
_SIDES = ("base", "ours", "theirs")  # in the order of git's stages
ATTRIBUTES = {
    FILE_NAME: ("merge=ckpt", "diff=ckpt"),
    **dict.fromkeys(("*.pt", "*.pth", "*.safetensors"), ("diff=ckpt",)),
    # Bytes as they are; for deltas of tensors, git would search for minutes and find none.
    ".ckpt/objects/**": ("-text", "-delta"),
}


@dataclass(frozen=True, slots=True)
class Installed:
    """The configuration that was installed.

    Attributes:
        attributes: The file `.gitattributes`, which must be committed.
        added: The lines that were added to it; it had the others already.
        lfs: Whether Git LFS gets the objects.
        committed: Objects that git has committed without Git LFS.
        store: The folder that keeps the objects, if one was named.
    """

    attributes: Path
    added: tuple[str, ...]
    lfs: bool = False
    committed: int = 0
    store: StoreUse | None = None


def install(
    *, lfs: bool = False, store: Path | str | None = None, registry: InRegistry | None = None
) -> Installed:
    """Configure git in this clone to merge the index, and to show it and weights as text.

    Args:
        lfs: Whether Git LFS gets the objects.
        store: A folder outside of git that gets the objects; several registries may share it.
        registry: Its folder gets the `.gitattributes`; without a registry, this folder.

    Raises:
        UsageError: The folder is not in a git repository, Git LFS is not installed, or `store`
            holds other things.
    """
    registry = Registry.of(registry)
    if lfs and store is not None:
        raise UsageError("--lfs and --store are two places for the same objects")
    used = None if store is None else use_store(registry, Path(store))
    committed = set_up_lfs(registry) if lfs else 0
    attributes = ATTRIBUTES | (LFS_ATTRIBUTES if lfs else {})
    for key, value in CONFIG.items():
        git(registry.folder, "config", key, value)
    remember(registry.folder)
    path = registry.folder / ".gitattributes"
    text = read_small(path).decode("utf-8", "surrogateescape") if path.exists() else ""
    added = tuple(
        " ".join([pattern, *wanted])
        for pattern, wanted in attributes.items()
        if not any(_gives(line, pattern, wanted) for line in text.splitlines())
    )
    if added:
        if text and not text.endswith("\n"):
            text += "\n"
        with write_whole(path, replace=True) as out:
            out.write(
                (text + "".join(f"{line}\n" for line in added)).encode("utf-8", "surrogateescape")
            )
    return Installed(path, added, lfs, committed, used)


def merge(base: Path, ours: Path, theirs: Path, path: Path = Path(FILE_NAME)) -> Merged:
    """Merge three files, as git passes them, into `ours`.

    Args:
        base: The common ancestor.
        ours: Gets the result; after a conflict that of both sides, between git's markers.
        theirs: The other side.
        path: The file's own path in the work tree, which is the working folder.

    Raises:
        IndexDamageError: One of them is not an index, or a remote branch has a damaged one, so
            the published numbers are unknown; nothing is written then.
    """
    sides = (
        _read(base, "the common ancestor", may_be_empty=True),
        _read(ours, "ours"),
        _read(theirs, "theirs"),
    )
    return _written(ours, sides, Path.cwd() / path.parent)


def resolve(*, take_theirs: bool | None = None, registry: InRegistry | None = None) -> Merged:
    """Merge an index that git reports as unmerged again, from the three sides that git keeps.

    Args:
        take_theirs: The side that wins conflicts; None leaves them in the file.
        registry: The registry.

    Raises:
        UsageError: Git has no conflict there.
    """
    registry = Registry.of(registry)
    names = {f":{stage}:./{FILE_NAME}": side for stage, side in enumerate(_SIDES, 1)}
    git(registry.folder, "rev-parse", "--show-prefix")
    found = {
        names[name]: read_index(document, name=f"{FILE_NAME} of {names[name]}")
        for name, document in blobs(registry.folder, names)
    }
    if not {"ours", "theirs"} <= found.keys():
        raise UsageError(
            f"{registry.index_file.path}: git has no conflict in it",
            hint=f"git checkout -m {FILE_NAME}  brings back one that was added",
        )
    sides = found.get("base", Index()), found["ours"], found["theirs"]
    return _written(registry.index_file.path, sides, registry.folder, take_theirs=take_theirs)


def _written(
    path: Path, sides: tuple[Index, Index, Index], folder: Path, *, take_theirs: bool | None = None
) -> Merged:
    """The merge, written to a file; conflicts are marked if no side wins them."""
    published = published_indexes(folder)
    result = merged(*sides, published, take_theirs=bool(take_theirs))
    text = result.index.to_text()
    if result.conflicts and take_theirs is None:
        text = _marked(text, merged(*sides, published, take_theirs=True).index.to_text())
    with write_whole(path, replace=True) as out:
        out.write(text.encode("utf-8"))
    return result


def _marked(ours: str, theirs: str) -> str:
    """Two texts in one, with git's markers around the lines in which they differ."""
    one, two = ours.splitlines(keepends=True), theirs.splitlines(keepends=True)
    begin = _same(one, two)
    end = _same(one[begin:][::-1], two[begin:][::-1])
    mine, other = ("".join(lines[begin : len(lines) - end]) for lines in (one, two))
    parts = ["<<<<<<< ours\n", mine, "=======\n", other, ">>>>>>> theirs\n"]
    return "".join([*one[:begin], *parts, *one[len(one) - end :]])


def _same(one: list[str], two: list[str]) -> int:
    """The number of equal lines at the beginning."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, two, strict=False))))


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
