"""Whether locks on a file system hold for all machines that can write to it.

On network file systems a lock may hold on one machine only, or not at all. Linux lists its mounts
(proc_pid_mountinfo(5)); on other systems there is no warning.
"""

import re
from dataclasses import dataclass
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
# Their server keeps the locks, unless a mount option says otherwise (nfs(5), mount.cifs(8)).
_LOCKS_AT_THE_SERVER = ("nfs", "nfs4", "cifs", "smb3", "ceph", "lustre", "gpfs", "afs")
_LOCAL_LOCKS = ("nolock", "local_lock=all", "local_lock=flock", "nobrl", "localflock", "noflock")
# Their flock is local to a machine, or unspecified: 9p, virtiofs, sshfs, buckets.
_NOT_KNOWN = re.compile(r"9p|virtiofs|beegfs|glusterfs|fuse\..*|fuse")
_LOCAL_FUSE = ("fuse.fuse-overlayfs", "fuse.mergerfs", "fuse.ntfs-3g", "fuse.bindfs")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system: where, its kind (``nfs4``) and its options."""

    point: Path
    kind: str
    options: frozenset[str]


def doubt_of_locks(folder: Path) -> str | None:
    """Why locks in `folder` may not hold for other machines; None if nothing suggests it."""
    try:
        table = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    mount = mount_of(folder.resolve(), table)
    if mount is None:
        return None
    if mount.kind in _LOCKS_AT_THE_SERVER and (local := mount.options & {*_LOCAL_LOCKS}):
        return f"{mount.kind} mounted with {min(local)}: locks hold on this machine only"
    if _NOT_KNOWN.fullmatch(mount.kind) and mount.kind not in _LOCAL_FUSE:
        return f"{mount.kind}: locks may hold on this machine only"
    return None


def mount_of(path: Path, table: str) -> Mount | None:
    """The mount that holds an absolute path, by the text of `mountinfo`."""
    mounts = [mount for line in table.splitlines() if (mount := _mount(line))]
    above = [mount for mount in mounts if path.is_relative_to(mount.point)]
    # The last mount at a point covers the others.
    return max(reversed(above), key=lambda mount: len(mount.point.parts), default=None)


def _mount(line: str) -> Mount | None:
    fields, mark, rest = line.partition(" - ")
    before, after = fields.split(), rest.split()
    if not mark or len(before) < 6 or len(after) < 3:
        return None
    point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), before[4])
    return Mount(Path(point), after[0], frozenset({*before[5].split(","), *after[2].split(",")}))
