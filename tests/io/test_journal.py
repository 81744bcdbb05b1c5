"""A header is written over in place: old or new after every crash, and never for others."""

import fcntl
import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ckpt
from ckpt.errors import CkptError, ConflictError, IntegrityError
from ckpt.io.journal import journal_of, overwrite_start
from tests.effort import by_effort
from tests.faults.stage import within

STATE = {"conv1.weight": torch.arange(12.0), "fc.bias": torch.ones(3)}
NEW = {"emb1.weight": STATE["conv1.weight"], "fc.bias": STATE["fc.bias"]}
CKPT = [sys.executable, "-P", "-m", "ckpt"]
RENAME = ["rename", "a.safetensors", "--rule", "conv=emb", "--in-place"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(STATE, tmp_path / "a.safetensors", metadata={"format": "pt"})
    return tmp_path / "a.safetensors"


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[k], wanted[k]) for k in wanted)


def test_header_alone_is_written_where_it_has_room(file: Path) -> None:
    before = file.stat()
    ckpt.rename(file, "conv->emb", in_place=True)
    after = file.stat()
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)
    assert same(load_file(file), NEW)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_longer_header_makes_a_new_file(file: Path) -> None:
    before = file.stat()
    ckpt.rename(file, "conv->embedding_of_the_tokens", in_place=True)
    assert file.stat().st_ino != before.st_ino
    assert set(load_file(file)) == {"embedding_of_the_tokens1.weight", "fc.bias"}
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_other_name_of_the_file_keeps_its_keys(file: Path) -> None:
    """As in a cache of models, where one file has several names."""
    other = file.with_name("other.safetensors")
    os.link(file, other)
    ckpt.rename(file, "conv->emb", in_place=True)
    assert same(load_file(file), NEW)
    assert same(load_file(other), STATE)


def test_in_place_of_a_pt_is_all_at_once(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "a.pt")
    ckpt.rename(tmp_path / "a.pt", "conv->emb", in_place=True)
    assert same(torch.load(tmp_path / "a.pt", weights_only=True), NEW)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_link_is_not_replaced(file: Path) -> None:
    link = file.with_name("link.safetensors")
    link.symlink_to(file.name)
    with pytest.raises(CkptError, match="a symbolic link"):
        ckpt.rename(link, "conv->emb", in_place=True)
    assert same(load_file(file), STATE)


def test_what_does_not_read_back_is_put_back(file: Path) -> None:
    before = file.read_bytes()

    def refuse(_: Path) -> None:
        assert file.read_bytes()[:4] == b"xxxx"
        raise IntegrityError("no")

    with pytest.raises(IntegrityError):
        overwrite_start(file, before[:4], b"xxxx", check=refuse)
    assert file.read_bytes() == before
    assert not journal_of(file).exists()


def test_whoever_comes_meanwhile_is_told(file: Path) -> None:
    with file.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConflictError, match="another process is renaming it in place"):
            ckpt.rename(file, "conv->emb", in_place=True)
        tear(file)
        with pytest.raises(ConflictError):
            ckpt.open(file)
        with pytest.raises(ConflictError):
            ckpt.repair(file)


def leave_journal(file: Path) -> bytes:
    """Forge the journal of a rename of conv to emb; return the new header."""
    whole = file.read_bytes()
    old = whole[: 8 + int.from_bytes(whole[:8], "little")]
    new = old.replace(b"conv1", b"emb1").ljust(len(old))
    forge(file, old, new)
    return new


def forge(file: Path, old: bytes, new: bytes) -> None:
    """Write a whole journal of the file, as anybody could."""
    status = file.stat()
    body = struct.pack("<QQQ", status.st_ino, status.st_size, len(old)) + old + new
    journal_of(file).write_bytes(b"ckpt journal 2\n" + hashlib.sha256(body).digest() + body)


def tear(file: Path) -> bytes:
    """Write half of the new header; return the file's bytes before that."""
    before, new = file.read_bytes(), leave_journal(file)
    with file.open("r+b") as out:
        out.write(new[: new.index(b"emb1") + 4])
    return before


def folder_of(file: Path) -> dict[str, tuple[bytes, int]]:
    paths = file.parent.iterdir()
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


@pytest.mark.parametrize(
    "words",
    [
        ("show", "a.safetensors"),
        ("show", "a.safetensors", "--deep"),
        ("diff", "a.safetensors", "a.safetensors", "--values"),
        ("export", "a.safetensors", "-o", "b.pt"),
        ("register", "a.safetensors"),
        ("rename", "a.safetensors", "--rule", "fc=out"),
        ("rename", "a.safetensors", "--rule", "fc=out", "--in-place", "--dry-run"),
    ],
    ids=" ".join,
)
def test_reader_refuses_a_torn_file_and_writes_nothing(file: Path, words: tuple[str, ...]) -> None:
    tear(file)
    before = folder_of(file)
    ran = within(file.parent, *words)
    assert (ran.code, ran.out) == (4, "")
    assert "a.safetensors: an in-place rename was interrupted" in ran.err
    assert "ckpt repair a.safetensors" in ran.err
    assert folder_of(file) == before


def test_repair_restores_a_torn_file(file: Path) -> None:
    before = tear(file)
    assert ckpt.repair(file).restored
    assert file.read_bytes() == before
    assert same(load_file(file), STATE)
    assert not journal_of(file).exists()
    assert not ckpt.repair(file).had_journal


def test_rename_that_is_asked_for_again_restores_a_torn_file_first(file: Path) -> None:
    tear(file)
    ckpt.rename(file, "conv->emb", in_place=True)
    assert same(load_file(file), NEW)
    assert not journal_of(file).exists()


def test_journal_of_a_whole_file_is_only_removed(file: Path) -> None:
    before = file.read_bytes()
    leave_journal(file)
    assert same(dict(ckpt.open(file)), STATE)
    repaired = ckpt.repair(file)
    assert (repaired.restored, repaired.had_journal) == (False, True)
    assert file.read_bytes() == before
    assert not journal_of(file).exists()


def expect_untouched(file: Path) -> None:
    """Neither a reader, a repair nor a rename changes the file, nor what has the journal's name."""
    before, name = file.read_bytes(), journal_of(file)
    inode, written = name.lstat().st_ino, name.lstat().st_mtime_ns
    for words in (("show",), ("repair",), ("rename", "--rule", "conv=emb", "--in-place")):
        ran = within(file.parent, words[0], file.name, *words[1:])
        if words[0] != "show":
            assert ran.code in (3, 4, 6), ran.err
        assert file.read_bytes() == before, words
        assert (name.lstat().st_ino, name.lstat().st_mtime_ns) == (inode, written), words


def test_beginning_that_is_neither_is_not_touched(file: Path) -> None:
    leave_journal(file)
    with file.open("r+b") as out:
        out.write(b"something that somebody wrote")
    with pytest.raises(IntegrityError, match="not a journal of this file"):
        ckpt.repair(file)


def test_fault_46_journal_does_not_turn_a_text_into_another(tmp_path: Path) -> None:
    """Its old beginning must be a header, and of this file's size."""
    text = tmp_path / "notes.safetensors"
    text.write_bytes(b"precious words of somebody")
    forge(text, b"ssh-rsa AAAAB3NzaC1", b"precious words of s")
    with text.open("r+b") as out:
        out.write(b"ssh")  # a mixture
    expect_untouched(text)


def test_fault_46_journal_with_the_header_of_a_file_of_another_size(file: Path) -> None:
    whole = file.read_bytes()
    old = whole[: 8 + int.from_bytes(whole[:8], "little")]
    other = old.replace(b"[0,48]", b"[0,44]").replace(b"[12]", b"[11]")
    assert other != old
    forge(file, other, old[:-1] + b"\n")
    with file.open("r+b") as out:
        out.write(other[:-1] + b"\n")
    expect_untouched(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
def test_fault_46_journal_of_another_user_is_not_one(file: Path) -> None:
    """As in a folder where everybody may make files."""
    tear(file)
    os.chown(journal_of(file), 1234, 1234)
    expect_untouched(file)
    os.chown(file, 1234, 1234)
    assert ckpt.repair(file).restored, "the owner's own"


@pytest.mark.parametrize("kind", ["hard link", "link", "pipe", "folder"])
def test_fault_46_journal_that_is_another_thing_is_not_one(file: Path, kind: str) -> None:
    tear(file)
    journal, elsewhere = journal_of(file), file.with_name("elsewhere")
    journal.rename(elsewhere)
    match kind:
        case "hard link":
            os.link(elsewhere, journal)
        case "link":
            journal.symlink_to(elsewhere)
        case "pipe":
            os.mkfifo(journal)
        case "folder":
            journal.mkdir()
    expect_untouched(file)


def test_journal_of_a_file_that_is_gone_changes_no_other(file: Path) -> None:
    leave_journal(file)
    other = file.with_name("new.safetensors")
    save_file(NEW, other, metadata={"format": "pt"})
    other.replace(file)
    before = file.read_bytes()
    assert same(dict(ckpt.open(file)), NEW)
    assert file.read_bytes() == before
    ckpt.rename(file, "emb->conv", in_place=True)
    assert same(load_file(file), STATE)


@pytest.mark.parametrize("data", [b"", b"something else", b"ckpt journal 2\n" + bytes(60)])
def test_journal_of_somebody_else_is_left_alone(file: Path, data: bytes) -> None:
    journal_of(file).write_bytes(data)
    assert same(dict(ckpt.open(file)), STATE)
    with pytest.raises(ConflictError, match="has the name of the journal"):
        ckpt.rename(file, "conv->emb", in_place=True)
    assert same(load_file(file), STATE)
    assert journal_of(file).read_bytes() == data


def test_two_processes_at_once_lose_no_rule(file: Path) -> None:
    """Both rename in place: each is applied whole, or its process is told."""
    commands = [
        [*CKPT, "rename", file.name, "--rule", rule, "--in-place"]
        for rule in ("conv=emb", "fc=out")
    ]
    for _ in range(by_effort(1, 4, 4)):
        save_file(STATE, file, metadata={"format": "pt"})
        running = [
            subprocess.Popen(each, cwd=file.parent, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
            for each in commands
        ]
        for each in running:
            each.communicate()
        codes = [each.returncode for each in running]
        assert set(codes) <= {0, 6}
        keys = set(load_file(file))
        assert ("emb1.weight" in keys) == (codes[0] == 0)
        assert ("out.bias" in keys) == (codes[1] == 0)


def test_mode_of_the_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(STATE, path)
    path.chmod(0o640)
    ckpt.rename(path, "conv->emb", in_place=True)
    assert path.stat().st_mode & 0o777 == 0o640


def test_journal_that_is_longer_than_its_file_is_none(file: Path) -> None:
    """Whole by its digest, and made by nobody's rename."""
    status, start = file.stat(), bytes(file.stat().st_size + 1)
    body = struct.pack("<QQQ", status.st_ino, status.st_size, len(start)) + start + start
    journal_of(file).write_bytes(b"ckpt journal 2\n" + hashlib.sha256(body).digest() + body)
    before = file.read_bytes()
    assert same(dict(ckpt.open(file)), STATE)
    assert file.read_bytes() == before


CALLS = ["pwrite64", "fsync", "fdatasync", "link", "linkat", "rename", "unlink", "openat", "write"]


@pytest.mark.long
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_fault_27_kill_before_every_call_leaves_the_old_or_the_new(file: Path) -> None:
    """Every call that changes something, by its number in a clean run."""
    folder, good = file.parent, file.read_bytes()
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["strace", "-f", "-qq", *options, *CKPT, *RENAME],
            cwd=folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    calls = f"trace={','.join(CALLS)}"
    assert run("-o", "trace", "-e", calls).returncode == 0
    names = re.findall(r"^\d+ +(\w+)\((.*)", (folder / "trace").read_text(), re.MULTILINE)
    (folder / "trace").unlink()
    ordinals: Counter[str] = Counter()
    points = []
    for name, arguments in names:
        ordinals[name] += 1
        changes = (
            name not in ("openat", "write") or ".ckpt-" in arguments or "ckpt journal" in arguments
        )
        if changes and "/dev/null" not in arguments:
            points.append((name, ordinals[name]))
    assert len(points) >= 8
    outcomes: Counter[str] = Counter()
    for name, number in points:
        file.write_bytes(good)
        for path in folder.iterdir():
            if path != file:
                path.unlink()
        inject = f"inject={name}:signal=KILL:when={number}"
        killed = run("-o", "/dev/null", "-e", f"trace={name}", "-e", inject)
        assert killed.returncode != 0, (name, number)
        ckpt.repair(file)
        found = load_file(file)
        assert same(found, STATE) or same(found, NEW), (name, number)
        outcomes["old" if same(found, STATE) else "new"] += 1
        assert not journal_of(file).exists()
        assert same(dict(ckpt.open(file)), found)
    print(f"{len(points)} crash points: {dict(outcomes)}")
    assert outcomes["old"]
