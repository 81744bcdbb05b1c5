"""Which file systems keep locks to one machine."""

from pathlib import Path

import pytest

from ckpt.io import mounts
from ckpt.io.mounts import doubt_of_locks, mount_of

# As proc_pid_mountinfo(5), nfs(5) and the tools themselves write them.
TABLE = r"""
22 28 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
28 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
90 28 0:44 / /home rw,relatime shared:50 - nfs4 box:/home rw,vers=4.2,hard,local_lock=none
91 28 0:45 / /old rw,relatime shared:51 - nfs box:/old rw,vers=3,nolock,hard,local_lock=all
92 28 0:46 / /team\040share rw,relatime - cifs //box/share rw,vers=3.0,nobrl
93 28 0:47 / /far rw,nosuid,relatime shared:9 master:3 - fuse.sshfs me@box: rw,user_id=0
94 28 0:48 / /host rw,relatime - 9p host rw,access=client,trans=virtio
95 93 254:1 / /far/disk rw,relatime - xfs /dev/vdb rw
96 28 0:49 / /covered rw,relatime - fuse.sshfs me@box: rw
97 28 254:2 / /covered rw,relatime - ext4 /dev/vdc rw
a line that is none
"""


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(TABLE)
    monkeypatch.setattr(mounts, "MOUNTS", path)
    return path


@pytest.mark.parametrize(
    ("folder", "doubt"),
    [
        ("/srv/models", None),
        ("/home/me/models", None),
        ("/homely", None),
        ("/old/models", "nfs mounted with local_lock=all"),
        ("/team share/models", "cifs mounted with nobrl"),
        ("/far/models", "fuse.sshfs: locks may"),
        ("/host", "9p: locks may"),
        ("/far/disk/models", None),
        ("/covered/models", None),
    ],
)
def test_locks_are_doubted_where_one_machine_keeps_them(
    folder: str, doubt: str | None, table: Path
) -> None:
    said = doubt_of_locks(Path(folder))
    assert said is None if doubt is None else said is not None and said.startswith(doubt)


def test_mounts_of_this_machine_are_read(tmp_path: Path) -> None:
    if not mounts.MOUNTS.exists():
        pytest.skip("this system does not list its mounts in /proc")
    mount = mount_of(tmp_path.resolve(), mounts.MOUNTS.read_text())
    assert mount is not None
    assert tmp_path.resolve().is_relative_to(mount.point)


def test_system_that_lists_no_mounts_is_not_doubted(table: Path) -> None:
    table.unlink()
    assert doubt_of_locks(Path("/old")) is None
