"""What is stored, by name and size; no byte of it is read."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ckpt.io import digest
from ckpt.io.files import unlinked


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object or manifest in the store, by its name; its bytes are not read.

    Attributes:
        digest: The digest that its name says.
        modified: Seconds since 1970, by the file system's clock.
    """

    digest: str
    is_manifest: bool
    path: Path
    nbytes: int
    modified: float


def stored_in(folder: Path, larger_than: int = -1, *, is_manifest: bool) -> Iterator[StoredObject]:
    """What is in `objects` or `manifests`, if it has more than `larger_than` bytes."""
    for prefix in [path.name for path in folder.glob("??")]:
        for path, rest, status in _files_in(unlinked(folder, prefix)):
            name, size = f"sha256:{prefix}{rest}", status.st_size
            if size > larger_than and digest.is_digest(name):
                yield StoredObject(name, is_manifest, Path(path), size, status.st_mtime)


def _files_in(folder: Path) -> Iterator[tuple[str, str, os.stat_result]]:
    """Path and name of what can be listed in a folder, or could until just now."""
    with (
        suppress(FileNotFoundError, NotADirectoryError, PermissionError),
        os.scandir(folder) as found,
    ):
        for each in found:
            with suppress(FileNotFoundError):
                yield each.path, each.name, each.stat(follow_symlinks=False)
