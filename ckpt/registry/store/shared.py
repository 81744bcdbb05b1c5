"""A folder of objects outside of git, which several registries share.

`.ckpt/store`, which git keeps, names the folder; `users/` in the folder names the registries. Law:
a registry uses only a folder that names it, so that no clone opens a path that nobody has named.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from ckpt.errors import DiskError, IntegrityError, UsageError
from ckpt.io import digest
from ckpt.io.durable import make_folder
from ckpt.io.files import read_plain, unlinked, write_whole

FILE = "store"
PLACE = "CKPT_STORE"  # where the folder is on this machine, if elsewhere
_MOST_BYTES = 4096  # of a path


@dataclass(frozen=True, slots=True)
class SharedStore:
    """The folder as one registry sees it.

    Attributes:
        path: The folder, without links.
        registry: The registry's folder.
    """

    path: Path
    registry: Path

    @property
    def user(self) -> Path:
        """The file in it that names the registry."""
        name = digest.of_bytes(os.fsencode(os.path.realpath(self.registry)))
        return self.path / "users" / name.removeprefix("sha256:")[:16]

    def folder(self) -> Path:
        """The folder.

        Raises:
            UsageError: It is not there, or does not name the registry.
        """
        if not self.path.is_dir():
            raise UsageError(
                f"{self.registry}: its objects are in {self.path}, which is not there",
                hint=f"mount it, or {PLACE}=PATH  names its place on this machine",
            )
        if not self.user.is_file():
            raise UsageError(
                f"{self.registry}: its objects are in {self.path}, which it does not use yet",
                hint=f"to use it:  ckpt git-driver install --store {self.path}",
            )
        return self.path

    def join(self) -> None:
        """Name the registry in the folder, which is made if there is none.

        Raises:
            UsageError: The folder holds other things.
        """
        is_free = not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir()))
        if not is_free and not (self.path / "users").is_dir():
            raise UsageError(
                f"{self.path}: holds other things than a store of objects",
                hint="name a new or an empty folder",
            )
        make_folder(unlinked(self.path, "users"))
        with write_whole(self.user, replace=True, shared=True) as out:
            out.write(os.fsencode(os.path.realpath(self.registry)) + b"\n")

    def users(self) -> list[tuple[Path, Path]]:
        """The file and the registry's folder of every user."""
        files = sorted(unlinked(self.path, "users").glob("[0-9a-f]*"))
        return [(file, Path(os.fsdecode(_line(file)))) for file in files]


def shared_store(folder: Path, root: Path) -> SharedStore | None:
    """The folder that a registry names; None if its objects are in its own store.

    Args:
        folder: The registry's folder.
        root: Its own store, `.ckpt`.

    Raises:
        IntegrityError: The file that names it is not a plain file with an absolute path.
    """
    try:
        named = Path(os.fsdecode(_line(root / FILE)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    path = Path(os.environ.get(PLACE) or named)
    if not path.is_absolute() or "\0" in str(path):
        raise IntegrityError(f"{root / FILE}: {str(path)[:80]!r} is not an absolute path")
    return SharedStore(Path(os.path.realpath(path)), folder)


def name_store(store: SharedStore, root: Path) -> None:
    """Write into the registry's own store which folder it uses."""
    make_folder(unlinked(root))
    with write_whole(root / FILE, replace=True, shared=True) as out:
        out.write(os.fsencode(store.path) + b"\n")


def _line(path: Path) -> bytes:
    try:
        return read_plain(path, most=_MOST_BYTES).removesuffix(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}") from error
