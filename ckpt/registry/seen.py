"""The numbers that the last command in this clone saw, to say once which of them a pull moved.

They are in git's own folder, not in the registry: no command that reads writes there. Law: where
`remember` was never called, nothing is written.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ckpt.errors import DiskError, IndexDamageError, IntegrityError
from ckpt.io import digest
from ckpt.io.files import open_plain, read_plain, write_whole
from ckpt.registry.index import Index
from ckpt.registry.index_file import MOST_BYTES, read_index
from ckpt.registry.places import FILE_NAME, seen_file
from ckpt.registry.version import Version


@dataclass(frozen=True, slots=True)
class Moved:
    """A number that got another version.

    Attributes:
        ref: ``net:v3``.
        now: The label of the version that had it, ``v4``; None if the index no longer has it.
    """

    ref: str
    now: str | None


def moved_numbers(folder: Path) -> tuple[Moved, ...]:
    """The numbers of the registry in `folder` that mean something else than at the last call."""
    path = seen_file(folder)
    if path is None:
        return ()
    try:
        before, document = read_plain(path, most=MOST_BYTES), _document(folder)
        known, *lines = before.decode("utf-8", "replace").splitlines()
        if known == digest.of_bytes(document):
            return ()
        index = read_index(document, name=FILE_NAME)
    except (OSError, ValueError, IntegrityError):
        return ()  # the command itself says what is wrong with the index
    remember(folder)
    return tuple(_moved(index, dict(line.split(" ", 1) for line in lines if " " in line)))


def remember(folder: Path) -> None:
    """Keep the current numbers for the next command, if the folder is in a git work tree."""
    path, document = seen_file(folder), _document(folder)
    if path is not None:
        try:
            index = read_index(document, name=FILE_NAME)
        except IndexDamageError:  # or there is none yet
            index = Index()
        lines = [f"{each.ref} {each.content}" for each in index.every_version()]
        text = "\n".join([digest.of_bytes(document), *lines])
        with suppress(DiskError), write_whole(path, replace=True) as out:
            out.write(f"{text}\n".encode())


def saw(folder: Path, version: Version) -> None:
    """Add the number of a version that was just added, and shown, to those of the last command."""
    path = seen_file(folder)
    if path is not None:
        with suppress(OSError, IntegrityError):  # also where `remember` was never called
            fd = open_plain(path, os.O_WRONLY | os.O_APPEND, single=True)
            with open(fd, "ab") as out:
                out.write(f"{version.ref} {version.content}\n".encode())


def _moved(index: Index, before: dict[str, str]) -> Iterator[Moved]:
    now = {version.ref: version.content for version in index.every_version()}
    places = {(each.model, each.content): each.label for each in index.every_version()}
    for ref, content in before.items():
        if ref in now and now[ref] != content:
            yield Moved(ref, places.get((ref.partition(":")[0], content)))


def _document(folder: Path) -> bytes:
    try:
        return read_plain(folder / FILE_NAME, most=MOST_BYTES)
    except FileNotFoundError:
        return b""
