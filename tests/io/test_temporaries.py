"""FAULTS 52: what a killed writer leaves, and who removes it. The signals are real."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from ckpt.io.temporaries import temporary_file, temporary_folder
from tests.effort import PATIENCE
from tests.faults.stage import within

CKPT = [sys.executable, "-P", "-m", "ckpt"]
STATE = {"conv.weight": torch.arange(4096.0), "fc.bias": torch.ones(3)}
RENAME = [*CKPT, "rename", "a.pt", "--rule", "conv=emb", "-o", "out.pt"]
GC = ("gc", "--files", ".")
ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.save(STATE, tmp_path / "a.pt")
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def traced(call: str, *signals: str) -> list[str]:
    """strace's options that send signals when a call is made for the first time."""
    calls = {call, *(each.partition(":")[0] for each in signals if ":" in each)}
    options = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={','.join(calls)}"]
    for each in signals:
        name, _, number = each.rpartition(":")
        options += ["-e", f"inject={name or call}:signal={number}:when=1"]
    return options


def run(folder: Path, *line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        line, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE
    )


@contextmanager
def stopped_writer(folder: Path):
    """A writer that is stopped when it has written everything, before its sync."""
    line = [*traced("fsync", "STOP"), *RENAME]
    with subprocess.Popen(line, cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE) as strace:
        children = Path(f"/proc/{strace.pid}/task/{strace.pid}/children")
        while not any(
            Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
            for child in children.read_text().split()
            if len(names(folder)) == 2
        ):
            assert strace.poll() is None
            os.sched_yield()
        (child,) = children.read_text().split()
        yield int(child)
        os.kill(int(child), signal.SIGCONT)
        assert strace.wait(PATIENCE) == 0


@needs_strace
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("INT", 130),
        pytest.param("TERM", 143, marks=pytest.mark.long),
        pytest.param("HUP", 129, marks=pytest.mark.long),
    ],
)
def test_fault_52_signal_leaves_no_temporary(folder: Path, name: str, code: int) -> None:
    ran = run(folder, *traced("fsync", name), *RENAME)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert ran.stderr.startswith("error: ")
    assert names(folder) == {"a.pt"}


@needs_strace
def test_fault_52_second_signal_does_not_stop_the_tidying(folder: Path) -> None:
    """As `timeout` sends it, to the process and to its group."""
    ran = run(folder, *traced("fsync", "TERM", "unlink:TERM"), *RENAME)
    assert ran.returncode == 143
    assert names(folder) == {"a.pt"}


@needs_strace
def test_fault_52_signal_leaves_no_temporary_in_the_store(folder: Path) -> None:
    ran = run(folder, *traced("fchmod", "TERM"), *CKPT, "register", "a.pt")
    assert ran.returncode == 143
    assert not list((folder / ".ckpt" / "tmp").iterdir())
    assert run(folder, *CKPT, "register", "a.pt").returncode == 0


@needs_strace
def test_fault_52_signal_that_is_ignored_stays_ignored(folder: Path) -> None:
    """As nohup does with SIGHUP."""
    line = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *traced("fsync", "HUP"), *RENAME]
    assert run(folder, *line).returncode == 0
    assert names(folder) == {"a.pt", "out.pt"}


@needs_strace
@pytest.mark.parametrize("next_output", ["out.pt", "folder"])
def test_fault_52_next_writer_removes_what_a_killed_one_left(
    folder: Path, next_output: str
) -> None:
    assert run(folder, *traced("fsync", "KILL"), *RENAME).returncode != 0
    (left,) = names(folder) - {"a.pt"}
    assert (folder / left).stat().st_size > 4 * 4096
    others = [".ckpt-0123.tmp", ".ckpt-0123456789abcdef.tmp.bak", "notes.tmp"]
    for name in others:
        (folder / name).write_bytes(b"somebody's")
    assert run(folder, *RENAME).returncode == 0
    assert names(folder) == {"a.pt", "out.pt", *others}


@needs_strace
def test_fault_52_temporary_of_a_running_writer_stays(folder: Path) -> None:
    with stopped_writer(folder):
        (held,) = names(folder) - {"a.pt"}
        other = [*RENAME[:-1], "other.pt"]
        assert run(folder, *other).returncode == 0
        assert names(folder) == {"a.pt", "other.pt", held}
        ran = run(folder, *CKPT, "gc", "--files", ".", "--yes", "--json")
        (found,) = json.loads(ran.stdout)
        assert (found["path"], found["removed"], found["kept"]) == (held, False, "being written")
    assert names(folder) == {"a.pt", "other.pt", "out.pt"}
    assert torch.load(folder / "out.pt").keys() == {"emb.weight", "fc.bias"}


def test_fault_52_gc_lists_leftovers_and_removes_them_if_asked(folder: Path) -> None:
    file, inner = folder / ".ckpt-0123456789abcdef.tmp", folder / ".ckpt-fedcba9876543210.tmp"
    file.write_bytes(b"half")
    inner.mkdir()
    (inner / "a.pt").write_bytes(b"whole")
    assert within(folder, *GC).out == (
        ".ckpt-0123456789abcdef.tmp  4 B  would remove\n"
        ".ckpt-fedcba9876543210.tmp  5 B  would remove\n\n"
        "to remove them, run the same command with --yes\n"
    )
    assert names(folder) == {"a.pt", file.name, inner.name}
    assert within(folder, *GC, "--yes").out.count("  removed\n") == 2
    assert names(folder) == {"a.pt"}
    assert within(folder, *GC).out == "nothing to remove\n"
    assert within(folder, *GC[:-1], "nowhere").code == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
def test_fault_52_leftover_of_another_user_stays(folder: Path) -> None:
    left = folder / ".ckpt-0123456789abcdef.tmp"
    left.write_bytes(b"half")
    os.chown(left, 1234, 1234)
    assert within(folder, *RENAME[len(CKPT) :]).code == 0
    assert left.exists()
    assert "kept: of another user" in within(folder, *GC).out


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_fault_52_what_only_has_the_name_leads_nowhere(folder: Path, kind: str) -> None:
    left = folder / ".ckpt-0123456789abcdef.tmp"
    if kind == "link":
        left.symlink_to("a.pt")
    else:
        os.mkfifo(left)
    before = (folder / "a.pt").read_bytes()
    assert within(folder, *RENAME[len(CKPT) :]).code == 0
    assert (folder / "a.pt").read_bytes() == before


def test_folder_that_is_swept_in_its_first_moment_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process removes it between the two calls that make and open it."""
    removed: list[Path] = []

    def late(path: Path, *arguments: int, **named: int) -> int:
        if not removed:
            removed.append(path)
            path.rmdir()
        return real(path, *arguments, **named)

    real = os.open
    monkeypatch.setattr(os, "open", late)
    with temporary_folder(tmp_path) as folder:
        assert folder.is_dir()
        assert [folder] != removed
    assert [*tmp_path.iterdir()] == []


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc: Linux has it")
def test_folder_that_takes_no_files_is_an_error_at_once() -> None:
    with pytest.raises(FileNotFoundError), temporary_file(Path("/proc")):
        pass
