"""Who may read a file. Law: a copy is never more readable than its source.

Whether its owner may write to a copy, and what else nobody may do, is up to the umask.
"""

import errno
import os
import stat
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ckpt.errors import DiskWarning, UsageError

_ACL = "system.posix_acl_access"  # acl(5), on Linux
_KEPT_BY_THE_SYSTEM = "security."  # labels that the system gives to new files


@dataclass(frozen=True, slots=True)
class Rights:
    """Who may read a file besides its owner.

    Attributes:
        bits: Its permission bits; only those for reading count.
        group: The group that the bits speak of; None for any.
    """

    bits: int
    group: int | None = None

    def mode(self, group: int | None) -> int:
        """The most permission bits for a copy that belongs to a group; None for the same one."""
        is_same = self.group is None or group in (None, self.group)
        bits = self.bits if is_same else self._for_all
        return 0o600 | (0o060 if bits & 0o040 else 0) | (0o006 if bits & 0o004 else 0)

    def __and__(self, other: "Rights") -> "Rights":
        """Who may read both files."""
        if self.group == other.group:
            return Rights(self.bits & other.bits, self.group)
        if None in (self.group, other.group):
            return Rights(self.bits & other.bits, self.group or other.group)
        return Rights(self._for_all & other._for_all)

    @property
    def _for_all(self) -> int:
        """The bits whatever the group: all may read it, or nobody."""
        return 0o044 if self.bits & 0o044 == 0o044 else 0


EVERYBODY = Rights(0o666)
OWNER = Rights(0o600)


def rights_of(fd: int) -> Rights:
    """Who may read an open file; with an access list the bits of its group mean nothing."""
    status = os.fstat(fd)
    hidden = 0o070 if _ACL in _attributes(fd) else 0
    return Rights(stat.S_IMODE(status.st_mode) & ~hidden, status.st_gid)


def restrict(fd: int, rights: Rights, mode: int | None = None) -> None:
    """Take from a new file what its source does not allow, on file systems that have rights.

    Args:
        fd: The file.
        rights: Who may read its source.
        mode: The permission bits that it should have otherwise; None for its own.
    """
    status = os.fstat(fd)
    own = stat.S_IMODE(status.st_mode)
    wanted = (own if mode is None else mode) & (rights.mode(status.st_gid) | 0o7711)
    if wanted != own:
        set_mode(fd, wanted)


def set_mode(fd: int, mode: int) -> None:
    """Give a file permission bits, on file systems that have them."""
    try:
        os.fchmod(fd, mode)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP):
            raise
        warnings.warn(
            "this file system does not keep permissions: others may be able to read the files",
            DiskWarning,
            stacklevel=2,
        )


def is_shared(folder: Path) -> bool:
    """Whether a folder is shared with its group: the group may write, and new files belong to it.

    As `core.sharedRepository` of git, but the folder's own bits say it.
    """
    mode = folder.stat().st_mode
    return bool(mode & stat.S_ISGID and mode & stat.S_IWGRP)


def with_group(mode: int) -> int:
    """The bits of a file or a folder with the group's like the owner's."""
    bits = stat.S_IMODE(mode) | (mode & 0o700) >> 3
    return bits | stat.S_ISGID if stat.S_ISDIR(mode) else bits


def share(fd: int, folder: Path) -> None:
    """Let the group use a new file or folder like its owner, if `folder` is shared."""
    status = os.fstat(fd)
    mode = with_group(status.st_mode)
    is_own = status.st_uid == os.geteuid()
    if mode != stat.S_IMODE(status.st_mode) and is_own and is_shared(folder):
        set_mode(fd, mode)


def keep_rights(path: Path, fd: int) -> None:
    """Give a new file the owner, group, mode, access list and attributes of an old one.

    Raises:
        UsageError: The system refuses one of them.
    """
    old, new = path.stat(), os.fstat(fd)
    try:
        if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
            os.fchown(fd, old.st_uid, old.st_gid)
        if old.st_mode != new.st_mode:  # FAT has one mode for all files, and no fchmod
            os.fchmod(fd, stat.S_IMODE(old.st_mode))
        wanted, found = _attributes(path), _attributes(fd)
        for name, value in wanted.items():
            if found.get(name) != value:
                os.setxattr(fd, name, value)
        for name in found.keys() - wanted.keys():
            if not name.startswith(_KEPT_BY_THE_SYSTEM):
                os.removexattr(fd, name)
    except OSError as error:
        raise UsageError(
            f"{path}: its owner, mode or attributes cannot be kept in place: {error.strerror}",
            hint="-o  writes a new file instead",
        ) from error


def _attributes(file: int | Path) -> dict[str, bytes]:
    """The extended attributes of a file, its access list among them; Linux only."""
    listed: Callable[[int | Path], list[str]] | None = getattr(os, "listxattr", None)
    if listed is None:
        return {}
    try:
        return {name: os.getxattr(file, name) for name in listed(file)}
    except OSError:  # a file system without them
        return {}
