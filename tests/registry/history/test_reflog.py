"""The reflog's file, where the system does not do what it is asked."""

import os
from pathlib import Path

import pytest

from ckpt.errors import DiskError
from ckpt.registry.history.reflog import Entry, Reflog

ENTRY = Entry(write_id="1" * 16, parent="", time="2025-01-01T00:00:00+00:00", what="x", changes=())


def test_entry_is_written_whole_although_the_system_takes_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a disk that is nearly full does, before it says that it is full."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    reflog = Reflog(tmp_path / "reflog")
    reflog.append(ENTRY)
    assert list(reflog.chain(ENTRY.write_id)) == [ENTRY]


def test_file_that_cannot_be_written_or_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "reflog").mkdir()
    reflog = Reflog(tmp_path / "reflog")
    with pytest.raises(DiskError, match=r"reflog: Is a directory"):
        reflog.append(ENTRY)
    with pytest.raises(DiskError, match=r"reflog: Is a directory"):
        next(reflog.chain(ENTRY.write_id))
