"""Locks between processes: FAULTS 34."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from ckpt.errors import ConflictError, IntegrityError, UsageError
from ckpt.io.lock import exclusive_lock, shared_lock

Lock = Callable[[Path], AbstractContextManager[None]]
HOLD = """
import sys, time
from pathlib import Path
from ckpt.io import lock
with getattr(lock, sys.argv[1])(Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(600)
"""
both = pytest.mark.parametrize("lock", [exclusive_lock, shared_lock])


@contextmanager
def holder(kind: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the lock."""
    command = [sys.executable, "-c", HOLD, kind, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CKPT_LOCK_SECONDS", "0.2")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def is_free(path: Path) -> bool:
    try:
        with exclusive_lock(path):
            return True
    except ConflictError:
        return False


@both
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_fault_34_lock_ends_with_its_holder(lock: Lock, ending: int, path: Path, impatient) -> None:
    with holder(lock.__name__, path) as process:
        assert not is_free(path)
        process.send_signal(ending)
        process.wait()
        assert is_free(path)


@both
def test_fault_34_stopped_holder_is_named_by_process_and_host(
    lock: Lock, path: Path, impatient
) -> None:
    with holder(lock.__name__, path) as process:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(ConflictError) as caught, exclusive_lock(path):
            pass
        assert f"process {process.pid} on {socket.gethostname()}" in str(caught.value)
        assert "CKPT_LOCK_SECONDS" in str(caught.value.hint)
        process.send_signal(signal.SIGCONT)


def test_shared_lock_is_shared_and_keeps_the_exclusive_one_out(path: Path, impatient) -> None:
    with holder("shared_lock", path), shared_lock(path):
        assert not is_free(path)
    with holder("exclusive_lock", path), pytest.raises(ConflictError), shared_lock(path):
        pass


@both
@pytest.mark.parametrize("left", [b"", b"process 1 on elsewhere: ckpt", b"\x00\xff\x1b[31m"])
def test_fault_34_file_that_was_left_is_no_lock(lock: Lock, left: bytes, path: Path) -> None:
    path.write_bytes(left)
    with lock(path):
        pass


@both
def test_fault_34_symbolic_link_is_refused_and_its_target_untouched(
    lock: Lock, path: Path, tmp_path: Path
) -> None:
    """CVE-2025-68146: a lock's file that is a link truncated what the link led to."""
    precious = tmp_path / "precious"
    precious.write_text("weights")
    path.symlink_to(precious)
    with pytest.raises(IntegrityError, match="a symbolic link"), lock(path):
        pass
    assert precious.read_text() == "weights"


@both
def test_fault_46_second_name_of_a_file_is_refused_and_its_text_untouched(
    lock: Lock, path: Path, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_text("weights")
    os.link(tmp_path / "precious", path)
    with pytest.raises(IntegrityError, match="a hard link"), lock(path):
        pass
    assert path.read_text() == "weights"


@both
def test_lock_whose_file_was_removed_is_taken_again(lock: Lock, path: Path, impatient) -> None:
    """As by `git clean`: whoever comes next must not wait for a file without a name."""
    with holder(lock.__name__, path):
        path.unlink()
        with lock(path):
            assert path.exists()


@both
def test_fault_34_forked_process_does_not_keep_the_lock(lock: Lock, path: Path, impatient) -> None:
    with lock(path):
        child = os.fork()
        if not child:
            time.sleep(30)
            os._exit(0)
    try:
        assert is_free(path)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize("text", ["", "soon", "-1", "nan"])
def test_patience_that_is_no_number_is_refused(
    text: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CKPT_LOCK_SECONDS", text)
    with pytest.raises(UsageError, match="CKPT_LOCK_SECONDS"), exclusive_lock(path):
        pass
