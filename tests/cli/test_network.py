"""A registry on a file system whose locks keep no other machine out."""

from pathlib import Path

import pytest
import torch

from ckpt.io import mounts
from tests.cli.support import Run


@pytest.fixture
def far(ckpt: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`net` v1, in a folder that the list of mounts calls sshfs."""
    torch.save({"w": torch.ones(2000)}, folder / "net.pt")
    assert ckpt("register", "net.pt").code == 0
    table = folder / "mountinfo"
    table.write_text(f"99 28 0:50 / {folder} rw - fuse.sshfs me@box: rw\n")
    monkeypatch.setattr(mounts, "MOUNTS", table)
    return ckpt


def test_doubt_is_said_where_one_writes(far: Run) -> None:
    ran = far("alias", "prod", "v1")
    assert (ran.code, "fuse.sshfs: locks may hold on this machine only" in ran.err) == (0, True)
    assert "locks" not in far("alias", "prod", "v1", "-q").err
    assert "locks" not in far("ls").err


def test_nothing_is_collected(far: Run, folder: Path) -> None:
    ran = far("gc", "--yes")
    assert (ran.code, "fuse.sshfs" in ran.err, "hint: " in ran.err) == (6, True, True)
