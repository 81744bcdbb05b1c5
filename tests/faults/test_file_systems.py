"""File systems that lack something, and disks whose locks are doubted without need.

Real ones where they can be had; what they refuse is else refused by strace, at real calls.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ckpt.io import mounts
from tests.effort import long_but
from tests.faults import checker, strace
from tests.faults.disk import mounted, unmount
from tests.faults.stage import CKPT, Ran, run, save, within

REGISTER = ("register", "0.safetensors", "--name", "net")
GC = ("gc", "--grace", "0", "--keep-removed", "0", "--yes")
DOUBT = "locks may hold on this machine only; write from one machine at a time"
NO_LINKS = "this file system has no hard links"
NO_SYNC = "this file system does not sync folders"
NO_RIGHTS = "this file system does not keep permissions"


def refusing(folder: Path, calls: str, error: str, *paths: str) -> tuple[str, ...]:
    """The words before a command whose calls fail; of `paths` alone, if there are any."""
    places = (word for path in paths for word in ("-P", str(folder / path)))
    options = ("-o", "/dev/null", *places, "-e", f"inject={calls}:error={error}")
    return strace.traced(*options, names=(calls,))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in range(3):
        save(tmp_path / f"{seed}.safetensors", seed)
    return tmp_path


LACKS = [
    *(("link,linkat", error, (), NO_LINKS) for error in ("EXDEV", "EMLINK", "EPERM")),
    *(("fsync", error, (".", ".ckpt"), NO_SYNC) for error in ("EINVAL", "EOPNOTSUPP")),
    *(("fchmod", error, (), NO_RIGHTS) for error in ("EPERM", "EOPNOTSUPP")),
]
QUICK = [each for each in LACKS if each[1] in ("EXDEV", "EINVAL")]


@strace.needed
@pytest.mark.parametrize("lack", long_but(QUICK, LACKS), ids=lambda lack: " ".join(lack[:2]))
def test_command_does_without_what_a_file_system_lacks_and_says_it_once(
    folder: Path, lack: tuple[str, str, tuple[str, ...], str]
) -> None:
    calls, error, paths, said = lack
    made = (*CKPT, "rename", "0.safetensors", "--rule", "conv=emb", "-o", "out.safetensors")
    for line in ((*CKPT, *REGISTER), made):
        ran = run(folder, *line, around=refusing(folder, calls, error, *paths))
        assert ran.code == 0, ran
        remarks = [text for text in ran.err.splitlines() if text.startswith("this file system")]
        # Of these two, only an object changes its mode after it was made.
        expected = [said] if calls != "fchmod" or "register" in line else []
        assert [text[: len(said)] for text in remarks] == expected
    quiet = (*CKPT, "register", "1.safetensors", "--name", "net", "-q")
    ran = run(folder, *quiet, around=refusing(folder, calls, error, *paths))
    assert (ran.code, ran.err) == (0, "")
    assert checker.check(folder).versions.keys() == {"net:v1", "net:v2"}
    assert within(folder, "verify").code == 0


@strace.needed
def test_rename_in_place_changes_no_mode_that_is_right_already(folder: Path) -> None:
    """On FAT all files have one mode, and fusefat has no fchmod."""
    file, new = folder / "0.safetensors", "embedding" * 20  # the header no longer fits its place
    line = (*CKPT, "rename", file.name, "--rule", f"conv={new}", "--in-place")
    around = refusing(folder, "fchmod", "ENOSYS")
    file.chmod(0o644)
    ran = run(folder, *line, around=around)
    assert (ran.code, "cannot be kept in place" in ran.err) == (2, True), ran
    file.chmod(0o600)
    assert run(folder, *line, around=around).code == 0
    assert f"{new}.weight" in within(folder, "show", file.name).out


@strace.needed
def test_folder_whose_sync_fails_is_named(folder: Path) -> None:
    """A file that cannot be synced, and a disk that fails, are no matter of the file system."""
    assert within(folder, *REGISTER).code == 0
    alias = (*CKPT, "alias")
    ran = run(folder, *alias, "one", "net:v1", around=refusing(folder, "fsync", "EIO", "."))
    assert (ran.code, "Input/output error" in ran.err) == (5, True)
    assert f"error: {folder}" in ran.err
    around = refusing(folder, "fsync", "EINVAL", ".ckpt/reflog")
    ran = run(folder, *alias, "two", "net:v1", around=around)
    assert (ran.code, ran.err.startswith("error: ")) == (5, True)
    assert f"{folder}/.ckpt/reflog: Invalid argument" in ran.err


@pytest.fixture
def doubted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry on what the table of mounts calls sshfs."""
    assert within(folder, *REGISTER).code == 0
    table = folder.parent / "mountinfo"
    table.write_text(f"93 28 0:47 / {folder.resolve()} rw - fuse.sshfs me@box: rw\n")
    monkeypatch.setattr(mounts, "MOUNTS", table)
    return folder


def expect_collected(do: Callable[..., Ran], folder: Path) -> None:
    """`gc` refuses, until it is told that the disk is this machine's."""
    left = folder / ".ckpt-0123456789abcdef.tmp"
    left.write_bytes(b"half")
    for words in (GC, ("gc", "--local", "--dry-run")):
        ran = do(folder, *words)
        assert DOUBT in ran.err
        assert "to remember that no other machine can:  ckpt gc --local" in ran.err
    assert do(folder, *GC).code == 6
    assert left.exists()
    ran = do(folder, *GC, "--local")
    assert (ran.code, ran.out) == (0, "removed\n  1 temporary file  0 B\n"), ran
    assert not left.exists()
    assert do(folder, "rm", "net:v1", "--yes").err == ""
    ran = do(folder, *GC)
    assert (ran.code, ran.err, "net:v1" in ran.out) == (0, "", True)


def test_disk_of_this_machine_alone_is_remembered(doubted: Path) -> None:
    expect_collected(within, doubted)
    assert "local" in (doubted / ".ckpt" / ".gitignore").read_text().splitlines()


def test_disk_of_another_machine_is_not(doubted: Path) -> None:
    """As after a clone, or where a disk was carried to."""
    assert within(doubted, *GC, "--local").code == 0
    (doubted / ".ckpt" / "local").write_text("another\n")
    assert within(doubted, *GC).code == 6
    empty = doubted / "empty"
    empty.mkdir()
    ran = within(empty, "gc", "--local", "--registry", ".")
    assert (ran.code, ran.err) == (
        2,
        "error: .: no registry here\nhint:  ckpt register FILE  creates one\n",
    )
    assert not list(empty.iterdir())


def test_list_of_ignored_files_keeps_the_lines_of_others(doubted: Path) -> None:
    ignored = doubted / ".ckpt" / ".gitignore"
    ignored.write_text("mine\nid\nlock")
    assert within(doubted, *GC, "--local").code == 0
    assert ignored.read_text() == "mine\nid\nlock\nlocal\nreflog\nremotes/\ntmp/\nwriting\n"


@pytest.fixture
def bound(tmp_path: Path) -> Iterator[Path]:
    """A folder through bindfs, which refuses to change permissions."""
    if not shutil.which("bindfs") or not os.access("/dev/fuse", os.W_OK):
        pytest.skip("bindfs is not installed")
    (tmp_path / "source").mkdir()
    words = ("-t", "fuse.bindfs", "-o", "chmod-deny", str(tmp_path / "source"))
    with mounted(tmp_path / "bound", *words) as root:
        yield root


def test_registry_through_bindfs(bound: Path) -> None:
    save(bound / "0.safetensors", 0)
    ran = run(bound, *CKPT, *REGISTER)
    assert ran.code == 0
    assert NO_RIGHTS in ran.err
    found = json.loads(run(bound, *CKPT, "verify", "--json").out)
    assert found["damages"] == []
    kind = mounts.mount_of(bound.resolve(), mounts.MOUNTS.read_text())
    assert kind is not None
    if kind.kind == "fuse":  # of bindfs before 1.16, as of anything else
        expect_collected(lambda folder, *words: run(folder, *CKPT, *words), bound)


@pytest.fixture
def fat(tmp_path: Path) -> Iterator[Path]:
    """FAT by fusefat, which has neither hard links nor fchmod."""
    if os.geteuid() != 0:  # fusefat ends with 0 where it could not mount
        pytest.skip("not root")
    if not shutil.which("fusefat") or not os.access("/dev/fuse", os.W_OK):
        pytest.skip("fusefat is not installed")
    image, root = tmp_path / "image", tmp_path / "fat"
    root.mkdir()
    with image.open("wb") as file:
        file.truncate(40 << 20)
    subprocess.run(["mkfs.vfat", image], capture_output=True, check=True)
    subprocess.run(["fusefat", "-o", "rw+", image, root], capture_output=True, check=True)
    try:
        yield root
    finally:
        unmount(root)


def test_registry_on_fat(fat: Path) -> None:
    for seed in range(2):
        save(fat / f"{seed}.safetensors", seed)
    with pytest.raises(PermissionError):
        (fat / "hard").hardlink_to(fat / "0.safetensors")
    ran = run(fat, *CKPT, *REGISTER)
    assert ran.code == 0
    assert [said in ran.err for said in (NO_LINKS, NO_RIGHTS)] == [True, True]
    original = (fat / "1.safetensors").read_bytes()
    for line in (
        *(("register", "1.safetensors", "--name", "net"), ("tag", "net:v2", "golden")),
        *(("rename", "net:v1", "--rule", "conv=emb"), ("alias", "prod", "net:v3")),
        ("rename", "0.safetensors", "--rule", "conv=emb", "-o", "out.safetensors"),
        ("rename", "1.safetensors", "--rule", "conv=emb", "--in-place"),
        *(("rm", "net:v2", "--yes"), ("undo",), ("verify",), ("fsck",)),
        ("export", "net:v2", "-o", "back.safetensors"),
    ):
        ran = within(fat, *line)
        assert ran.code == 0, ran
    assert (fat / "back.safetensors").read_bytes() == original
    assert checker.check(fat).versions.keys() == {"net:v1", "net:v2", "net:v3"}
    expect_collected(within, fat)
