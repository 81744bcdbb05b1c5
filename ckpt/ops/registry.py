"""Registry: create one before its first version, and share one with a group."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ckpt.errors import UsageError
from ckpt.io.files import disk_errors, unlinked
from ckpt.io.rights import with_group
from ckpt.printed import Printed
from ckpt.registry.registry import InRegistry, Registry


@dataclass(frozen=True, slots=True, repr=False)
class Initialised(Printed):
    """A registry.

    Attributes:
        folder: Its folder.
        created: Whether it is new.
        group: The name of the group that it is shared with; None if it was not asked for.
    """

    VIEW: ClassVar = "ckpt.show.registry:initialised_text"

    folder: Path
    created: bool
    group: str | None


def init_registry(*, shared: bool = False, registry: InRegistry | None = None) -> Initialised:
    """Create a registry in its folder, if there is none yet.

    Args:
        shared: Whether the group of the folder may use the registry like its owner. What is in
            it, and what anybody adds, gets the group's bits, whatever the umask.
        registry: The registry; None finds it as the command line does.

    Raises:
        UsageError: A file belongs to another user, or the user is not a member of the group.
        IntegrityError: The index is damaged, or missing beside stored versions.
    """
    registry = Registry.of(registry)
    registry.index()  # a lost index is not replaced by an empty one
    created = not registry.exists
    if shared:
        _share(registry.folder, registry.folder)
    if created:
        registry.create()
    if shared:
        for path in _files(registry):
            _share(path, registry.folder)
    return Initialised(registry.folder, created, _group(registry.folder) if shared else None)


def _files(registry: Registry) -> Iterator[Path]:
    """The index, and all that is in the store; folders come first."""
    yield registry.index_file.path
    for folder, folders, files in os.walk(unlinked(registry.store.root)):
        yield Path(folder)
        yield from (Path(folder, name) for name in (*folders, *files))


def _share(path: Path, folder: Path) -> None:
    """Give a file or a folder to the group of the registry's folder, with the owner's bits."""
    status, group = path.lstat(), folder.stat().st_gid
    mode = with_group(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return
    if (status.st_gid, stat.S_IMODE(status.st_mode)) == (group, mode):
        return
    if status.st_uid != os.geteuid() and os.geteuid():
        raise UsageError(
            f"{path}: belongs to another user (uid {status.st_uid}), who alone can share it",
            hint=f"they run  ckpt registry init --shared group  in {folder}, too",
        )
    with disk_errors(path):
        if status.st_gid != group:
            os.chown(path, -1, group)
        path.chmod(mode)
        if stat.S_IMODE(path.lstat().st_mode) != mode:  # the system drops what it does not allow
            raise UsageError(f"{path}: you are not a member of its group {_group(folder)}")


def _group(folder: Path) -> str:
    from grp import getgrgid

    number = folder.stat().st_gid
    try:
        return getgrgid(number).gr_name
    except KeyError:
        return str(number)
