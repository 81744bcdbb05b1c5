import errno
import os
from pathlib import Path

import pytest

from ckpt.errors import DiskError, FormatError, UsageError
from ckpt.io.durable import make_folder
from ckpt.io.files import write_whole


def test_file_appears_whole_and_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new.pt"
    with write_whole(path) as out:
        out.write(b"abc")
        assert not path.exists()
    assert path.read_bytes() == b"abc"
    with pytest.raises(UsageError, match="already exists"), write_whole(path) as out:
        out.write(b"xyz")
    with write_whole(path, replace=True) as out:
        out.write(b"xyz")
    assert path.read_bytes() == b"xyz"
    assert list(tmp_path.iterdir()) == [path]


def test_file_that_somebody_made_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "new.pt"
    with pytest.raises(UsageError, match="already exists"), write_whole(path) as out:
        out.write(b"abc")
        path.write_bytes(b"theirs")
    assert path.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("replace", [False, True])
def test_writer_that_fails_leaves_what_was_there(tmp_path: Path, replace: bool) -> None:
    path = tmp_path / "new.pt"
    if replace:
        path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), write_whole(path, replace=replace) as out:
        out.write(b"abc")
        raise KeyboardInterrupt
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([b"old"] if replace else [])


def test_check_that_fails_keeps_the_file_from_appearing(tmp_path: Path) -> None:
    def check(written: Path) -> None:
        assert written.read_bytes() == b"abc"
        raise FormatError("not as planned")

    with pytest.raises(FormatError), write_whole(tmp_path / "new.pt", check=check) as out:
        out.write(b"abc")
    assert list(tmp_path.iterdir()) == []


def test_early_sync_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []

    def fail(fd: int) -> None:
        synced.append(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", fail)
    monkeypatch.setattr("ckpt.io.durable.EARLY_SECONDS", 0.0)
    with pytest.raises(DiskError, match="Input/output error"), write_whole(tmp_path / "x") as out:
        while not synced:
            out.write(b"abc")
    assert len(synced) == 1
    assert list(tmp_path.iterdir()) == []


def test_folders_are_made_once(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_what_is_no_regular_file_is_never_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "link":
            (tmp_path / "file").write_bytes(b"precious")
            path.symlink_to("file")
        case "folder":
            path.mkdir()
    before = path.lstat()
    with pytest.raises(UsageError), write_whole(path, replace=True) as out:
        out.write(b"x")
    assert path.lstat() == before
    assert len(list(tmp_path.iterdir())) == (2 if kind == "link" else 1)


def test_nothing_is_written_to_a_file_called_dash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="not to stdout"), write_whole(Path("-")) as out:
        out.write(b"x")
    assert list(tmp_path.iterdir()) == []
