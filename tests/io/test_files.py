import errno
import os
from pathlib import Path

import pytest

from ckpt.errors import DiskError, FormatError, RefError, UsageError
from ckpt.io.files import CHUNK, FileSource, make_folder, write_whole


def test_file_appears_whole_and_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new.pt"
    with write_whole(path) as out:
        out.write(b"abc")
        assert not path.exists()
    assert path.read_bytes() == b"abc"
    with pytest.raises(UsageError, match="exists already"), write_whole(path) as out:
        out.write(b"xyz")
    with write_whole(path, replace=True) as out:
        out.write(b"xyz")
    assert path.read_bytes() == b"xyz"
    assert list(tmp_path.iterdir()) == [path]


def test_file_that_somebody_made_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "new.pt"
    with pytest.raises(UsageError, match="exists already"), write_whole(path) as out:
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
    monkeypatch.setattr("ckpt.io.files.EARLY_SECONDS", 0.0)
    with pytest.raises(DiskError, match="Input/output error"), write_whole(tmp_path / "x") as out:
        while not synced:
            out.write(b"abc")
    assert len(synced) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("in_kernel", [True, False])
def test_source_copies_a_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_kernel: bool
) -> None:
    data = os.urandom(3 * CHUNK + 17)
    (tmp_path / "source").write_bytes(data)
    if not in_kernel:

        def refuse(*_: object) -> int:
            raise OSError(errno.EXDEV, "no")

        monkeypatch.setattr(os, "copy_file_range", refuse)
    with FileSource(tmp_path / "source") as source, (tmp_path / "out").open("wb") as out:
        out.write(b"head")
        source.copy(5, 2 * CHUNK, out)
        out.write(b"tail")
        source.copy(0, 0, out)
        source.copy(len(data) - 3, 3, out)
    expected = b"head" + data[5 : 5 + 2 * CHUNK] + b"tail" + data[-3:]
    assert (tmp_path / "out").read_bytes() == expected


def test_source_that_ends_early_is_refused(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"abc")
    with FileSource(tmp_path / "source") as source, (tmp_path / "out").open("wb") as out:
        with pytest.raises(FormatError, match="ends at byte 3, 9 were expected"):
            source.read(1, 8)
        with pytest.raises(FormatError, match="ends at byte 3, 9 were expected"):
            source.copy(1, 8, out)


def test_source_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name, error in (("pipe", FormatError), ("loop", RefError), (".", FormatError)):
        with pytest.raises(error):
            FileSource(tmp_path / name)
    with pytest.raises(FormatError, match="not a regular file"):
        FileSource(Path("/dev/zero"))


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
