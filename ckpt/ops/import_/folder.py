"""A folder of checkpoints as people have it: which of its files are one, in which order.

Law: nothing in it is changed, run, or read outside of it.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from ckpt.errors import FormatError, RefError
from ckpt.formats.distributed import FILE_NAME as DISTRIBUTED
from ckpt.formats.folders import checkpoint_among, components, is_of_trainers
from ckpt.io.files import Told
from ckpt.ops.import_.adding import Adding, Read, of_import, steps
from ckpt.ops.import_.imported import Did, Found, Imported, Item, is_checkpoint
from ckpt.refs import SUFFIXES, is_alias, without_index
from ckpt.registry.registry import now
from ckpt.side_files import homes

PREFIX = "folder:"
Natural = tuple[tuple[bool, int, str], ...]
_CONFIGS = {"config.json", "adapter_config.json"}  # beside the weights of one model
_NAMED = ("best", "last")
_OF_TRAINERS = "what a trainer keeps beside the weights"


def import_folder(
    folder: Path, source: str, adding: Adding, *, by_name: bool, told: Told
) -> Imported:
    """Import the checkpoints of a folder and those below it.

    Args:
        folder: The folder.
        source: As given.
        adding: The import.
        by_name: Whether their names decide the order, not the times of their files.
        told: Called with the bytes done and the bytes in all.

    Raises:
        RefError: There is no such folder, or it holds no checkpoint.
    """
    if not folder.is_dir():
        raise RefError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    found = [*checkpoints_in(folder)]
    if not found:
        ends = ", ".join(SUFFIXES)
        raise RefError(f"{folder}: no checkpoint in it or below", hint=f"it looks for {ends}")
    skipped = [each for each in found if isinstance(each, Item)]
    files = _ordered([each for each in found if isinstance(each, Found)], by_name=by_name)
    items, aliases = _added(files, adding, told)
    return Imported(
        source,
        adding.model,
        (*items, *skipped),
        adding.point(aliases, source),
        dry_run=adding.dry_run,
        created_registry=adding.created_registry,
    )


def _added(
    files: Sequence[Found], adding: Adding, told: Told
) -> tuple[list[Item], list[tuple[str, str]]]:
    """What became of the files, and the aliases that their names ask for.

    All are read first: ``best.pt`` is a version only if no other file has its bytes.
    """
    sizes = [_nbytes(each.path) for each in files]
    telling = steps(sizes, told)
    read = [adding.read(each, next(telling)) for each in files]
    plain = {_digest(it) for each, it in zip(files, read, strict=True) if not each.alias} - {""}
    numbers = range(len(files))
    is_copy = [
        bool(each.alias) and _digest(it) in plain for each, it in zip(files, read, strict=True)
    ]
    items: dict[int, Item] = {}
    for at in sorted(numbers, key=lambda at: is_copy[at]):
        it, step = read[at], next(telling)
        items[at] = adding.add(files[at], it, step) if isinstance(it, Read) else it
    wanted = [
        (files[at].alias, version)
        for at in numbers
        if files[at].alias and (version := items[at].version) and items[at].did != "removed"
    ]
    return [items[at] for at in numbers], wanted


def _digest(it: Read | Item) -> str:
    return it.content.digest if isinstance(it, Read) else ""


def checkpoints_in(folder: Path) -> Iterator[Found | Item]:
    """The checkpoints in a folder and below it, and what only looks like one."""
    at = now()
    found = [*_below(folder, folder)]
    stems = Counter(path.stem for path, _ in found if path.stem in _NAMED)
    for path, why in found:
        name = folder.resolve().name if path == folder else path.relative_to(folder).as_posix()
        if why is not None:
            did: Did = "skipped" if why == _OF_TRAINERS else "left"
            yield Item(name, did, why=why)
            continue
        created = _time(path)
        record = of_import({"folder": str(folder), "file": name, "modified": created}, at)
        alias = _alias(name, path.stem, alone=stems[path.stem] == 1)
        yield Found(name, path, created, record, f"import {name}", alias=alias)


def _below(folder: Path, root: Path) -> Iterator[tuple[Path, str | None]]:
    """The checkpoints below a folder, each with the reason why it cannot be imported."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        yield folder, error.strerror or str(error)
        return
    if parts := components(folder):
        listed = ", ".join(parts)
        yield folder, f"a pipeline of several models ({listed}); import the folder of one"
        return
    whole = _is_one(folder, names)
    if whole:
        yield folder, None
    for name in names:
        path = folder / name
        if name.startswith(".") or name == "__pycache__":
            continue
        if path.is_dir():
            if not path.is_symlink():
                yield from _below(path, root)
        elif not whole and is_checkpoint(name):
            yield path, _refused(path, root)


def _is_one(folder: Path, names: Sequence[str]) -> bool:
    """Whether a folder is one checkpoint: shards with an index, or weights beside their config."""
    if DISTRIBUTED in names or any(without_index(name) is not None for name in names):
        return True
    try:
        return bool(_CONFIGS & {*names}) and checkpoint_among(str(folder), names) is not None
    except FormatError:  # several
        return False


def _refused(path: Path, root: Path) -> str | None:
    if is_of_trainers(path.name):
        return _OF_TRAINERS
    if not path.exists():
        return "a link to nothing"
    if path.is_symlink() and not any(
        home in Path(os.path.realpath(path)).parents for home in homes(root)
    ):
        return "a link that leads out of the folder"
    return None


def _alias(name: str, stem: str, *, alone: bool) -> str:
    """``best`` for ``best.pt``; ``run1-best`` for ``run1/best.pt`` where others are called so."""
    if stem not in _NAMED:
        return ""
    parts = [*Path(name).parent.parts, stem]
    alias = stem if alone else "-".join(parts)
    return alias if is_alias(alias) else ""


def _ordered(files: list[Found], *, by_name: bool) -> list[Found]:
    def key(each: Found) -> tuple[int, Natural]:
        return (0 if by_name else _newest(each.path), natural(each.name))

    return sorted(files, key=key)


def natural(name: str) -> Natural:
    """A name for sorting, with numbers by value: ``epoch_9`` before ``epoch_10``."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((False, int(it), "") if at % 2 else (True, 0, it) for at, it in enumerate(parts))


def _files(path: Path) -> list[os.stat_result]:
    if not path.is_dir():
        return [path.stat()]
    inner = [each for each in path.iterdir() if each.is_file()]
    weights = [each for each in inner if is_checkpoint(each.name)]
    return [each.stat() for each in weights or inner]


def _nbytes(path: Path) -> int:
    return sum(each.st_size for each in _files(path))


def _newest(path: Path) -> int:
    """When its files were last changed, in nanoseconds since 1970."""
    return max((each.st_mtime_ns for each in _files(path)), default=0)


def _time(path: Path) -> str:
    seconds = _newest(path) // 1_000_000_000
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
