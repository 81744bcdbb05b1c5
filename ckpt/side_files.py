"""Side files: what belongs to weights besides them, such as `config.json` and a tokenizer.

Laws: a name is a relative path that can be written below any folder: no `..`, no control character,
no two names that differ only in case, none that is the folder of another. A link is followed only
inside its folder, or to the blobs of Hugging Face's cache.
"""

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unicodedata import normalize

from ckpt.errors import UsageError, excerpt
from ckpt.io.durable import sync_folder
from ckpt.io.files import disk_errors, is_base_name, new_file
from ckpt.io.rights import Rights
from ckpt.io.sources import FileSource

MOST_BYTES = 100_000_000  # of all side files of a version, unless asked for more
MOST_FILES = 1000
_MOST_PARTS = 32
# Weights, which are versions of their own, or of other frameworks.
_WEIGHTS = re.compile(
    r"\.(pt|pth|bin|ckpt|safetensors|distcp|h5|keras|msgpack|onnx|gguf|tflite|ot|npz|tar)$"
    r"|\.index(\.[\w-]+)?\.json$",
    re.IGNORECASE,
)
_CONFIG = re.compile(r"config\.(json|ya?ml|toml)$|\.index(\.[\w-]+)?\.json$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SideFile:
    """A side file of a version: its relative name, size in bytes, and digest."""

    name: str
    nbytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class Readable:
    """A side file that can be read, on disk or in a version.

    Attributes:
        name: Its relative name, with slashes.
        nbytes: Its size in bytes.
        chunks: Streams its bytes.
        rights: Who may read it.
        digest: Of its bytes; None if they were not read.
    """

    name: str
    nbytes: int
    chunks: Callable[[], Iterator[bytes]]
    rights: Rights
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The side files of a checkpoint.

    Attributes:
        files: By name.
        left: What the folder holds besides: other weights, and links that lead out of it.
    """

    files: tuple[Readable, ...] = ()
    left: tuple[str, ...] = ()


def expect_names(names: Iterable[str]) -> None:
    """Make sure that files of these names can be written side by side, on any system.

    Raises:
        ValueError: Two collide, or one is not a safe relative path.
    """
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for name in names:
        parts = name.split("/")
        if len(parts) > _MOST_PARTS or not all(map(_is_safe, parts)):
            raise ValueError(f"{excerpt(name)!r} is not a name for a file in a folder")
        folded = normalize("NFC", name).casefold()
        if folded in files:
            raise ValueError(f"{files[folded]!r} and {name!r} would be one file on some systems")
        files[folded] = name
        steps = folded.split("/")
        folders |= {"/".join(steps[:end]): name for end in range(1, len(steps))}
    for folded in files.keys() & folders.keys():
        raise ValueError(
            f"{files[folded]!r} would be a file, and the folder of {folders[folded]!r}"
        )


def _is_safe(part: str) -> bool:
    return is_base_name(part) and not any("\ud800" <= char <= "\udfff" for char in part)


def of_folder(folder: Path, own: Collection[str]) -> Found:
    """The files of a checkpoint's folder, except weights and hidden files.

    Sub-folders count unless they hold weights: those are other checkpoints.

    Args:
        folder: The folder.
        own: The names of the checkpoint's files in it.
    """
    return _beside(folder, folder, own)


def among(names: Iterable[str], own: Collection[str]) -> tuple[list[str], list[str]]:
    """The side files among the names of all files in a folder and below, and the others.

    As `of_folder` chooses them, which reads a disk.
    """
    seen = [
        name
        for name in sorted(names)
        if name not in own
        and not any(part.startswith(".") or part == "__pycache__" for part in name.split("/"))
    ]
    weights = {name for name in seen if _WEIGHTS.search(name)}
    folders = tuple(f"{name.rpartition('/')[0]}/" for name in weights if "/" in name)
    left = {name for name in seen if name in weights or name.startswith(folders)}
    return [name for name in seen if name not in left], sorted(left)


def configs_beside(path: Path) -> Iterator[Readable]:
    """The configs and indexes of shards in the folder of a file."""
    for name in _listed(path.parent):
        if _CONFIG.search(name) and (target := _target(path.parent / name, path.parent)):
            yield readable(target, name)


def _beside(folder: Path, root: Path, own: Collection[str]) -> Found:
    files: list[Readable] = []
    left: list[str] = []
    names = _listed(folder)
    if ".ckpt" in names:  # a registry's
        own = {*own, "registry.json"}
    for name in names:
        path = folder / name
        if name in own or name.startswith(".") or name == "__pycache__":
            continue
        if path.is_dir() and not path.is_symlink():
            found = _beside(path, root, ())
            if any(_WEIGHTS.search(each) for each in found.left):
                left.append(f"{name}/")
            else:
                files += (_moved(each, name) for each in found.files)
                left += (f"{name}/{each}" for each in found.left)
        elif _WEIGHTS.search(name) or (target := _target(path, root)) is None:
            left.append(name)
        else:
            files.append(readable(target, name))
    return Found(tuple(files), tuple(left))


def named(paths: Iterable[Path | str]) -> Iterator[Readable]:
    """The files that somebody names; a folder's names begin with its own.

    Raises:
        RefError: There is no such file.
        UsageError: A link in a folder leads out of it.
    """
    for path in map(Path, paths):
        if path.is_dir():
            prefix = path.name if path.name != ".." else path.resolve().name
            yield from (_moved(each, prefix) for each in _all_of(path, path))
        else:
            yield readable(path, path.name)


def expect_few(files: Iterable[Readable], most: int) -> None:
    """Refuse more than 1,000 side files, or more than `most` bytes in all.

    Raises:
        UsageError: The message names the largest.
    """
    files = list(files)
    if len(files) > MOST_FILES:
        raise UsageError(
            f"{len(files):,} files beside the weights, the limit is {MOST_FILES:,}",
            hint="--no-files  leaves those of the folder out",
        )
    total = sum(file.nbytes for file in files)
    if total > most:
        largest = max(files, key=lambda file: file.nbytes)
        raise UsageError(
            f"side files of {total:,} bytes, the limit is {most:,}; the largest is "
            f"{largest.name}, {largest.nbytes:,} bytes",
            hint="--max 1GB  raises the limit; --no-files  leaves those of the folder out",
        )


def write_files(files: Iterable[Readable], folder: Path) -> int:
    """Write side files into a new folder, durably; returns the bytes."""
    done, folders = 0, {folder}
    for file in files:
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path, rights=file.rights) as out:
            for chunk in file.chunks():
                out.write(chunk)
                done += len(chunk)
        folders |= {parent for parent in path.parents if parent.is_relative_to(folder)}
    for made in folders:
        sync_folder(made)
    return done


def homes(folder: Path) -> tuple[Path, ...]:
    """The folders to which links in `folder` may lead, resolved.

    They are the folder itself and, from `snapshots/REVISION/` in the cache of Hugging Face, the
    `blobs/` of the same model.
    """
    root = Path(os.path.realpath(folder))
    blobs = (root.parent.parent / "blobs",) if root.parent.name == "snapshots" else ()
    return (root, *blobs)


def _all_of(folder: Path, root: Path) -> Iterator[Readable]:
    for name in _listed(folder):
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            yield from (_moved(each, name) for each in _all_of(path, root))
        elif (target := _target(path, root)) is not None:
            yield readable(target, name)
        else:
            raise UsageError(
                f"{path}: not a file, or a link that leads out of the folder",
                hint="copy the file into the folder if it belongs there",
            )


def _listed(folder: Path) -> list[str]:
    with disk_errors(folder):
        return sorted(os.listdir(folder))


def _target(path: Path, root: Path) -> Path | None:
    """The regular file at `path`; None if there is none, or if it is outside the folder `root`."""
    target = Path(os.path.realpath(path))
    inside = not path.is_symlink() or any(home in target.parents for home in homes(root))
    return target if inside and target.is_file() else None


def readable(path: Path, name: str) -> Readable:
    """A file on disk as the side file of a name."""
    with FileSource(path) as source:
        return Readable(name, source.size, partial(_stream, path), source.rights)


def _stream(path: Path) -> Iterator[bytes]:
    with FileSource(path) as source:
        yield from source.stream(0, source.size)
        source.expect_unchanged()


def _moved(file: Readable, folder: str) -> Readable:
    name = f"{folder}/{file.name}" if folder else file.name
    return Readable(name, file.nbytes, file.chunks, file.rights, file.digest)
