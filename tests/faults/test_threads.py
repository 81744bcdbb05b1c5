"""FAULTS 31: no thread can be started, as where a container limits its processes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.effort import SHORT
from tests.faults import checker
from tests.faults.stage import CKPT, ENVIRONMENT, run

# A thread's stack is as large as RLIMIT_STACK says, which is more than RLIMIT_AS leaves.
WITHOUT_THREADS = ("sh", "-c", 'ulimit -s 1073741824 && exec "$@"', "sh")
LIMITED = """
import resource, sys, threading
import ckpt.cli, ckpt.ops.register.storing
resource.setrlimit(resource.RLIMIT_AS, (1 << 36, resource.RLIM_INFINITY))
try:
    threading.Thread(target=print).start()
except RuntimeError:
    ckpt.ops.register.storing._WORTH_THREADS = 0
    ckpt.cli.main(sys.argv[1:])
sys.exit("a thread was started")
"""
LINES = [
    ("register", "net.pt"),
    ("register", "other.pt", "--name", "net"),
    ("alias", "prod", "v1"),
    ("verify",),
    ("show", "v1", "--deep"),
    ("diff", "net.pt", "other.pt", "--values"),
    ("diff", "v1", "v2", "--values"),
    ("rename", "net.pt", "--rule", "a=d", "-o", "made.pt"),
    ("rename", "v1", "--drop", "^a"),
    ("export", "v1", "-o", "out.safetensors"),
    ("gc", "--yes"),
]
QUICK = [("register", "net.pt"), ("alias", "prod", "v1"), ("show", "v1", "--deep")]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux limits the memory of a process")
@pytest.mark.long
def test_fault_31_commands_work_where_no_thread_can_be_started(tmp_path: Path) -> None:
    for seed, name in enumerate(("net", "other")):
        generator = torch.Generator().manual_seed(seed)
        state = {key: torch.randn(1_200_000, generator=generator) for key in ("a", "b", "c")}
        torch.save(state, tmp_path / f"{name}.pt")
    for line in LINES:
        ran = run(tmp_path, sys.executable, "-P", "-c", LIMITED, *line, around=WITHOUT_THREADS)
        assert ran.code == 0, (line, ran)
    plain = run(tmp_path, *CKPT, "verify")
    assert plain.code == 0, plain
    exported = run(tmp_path, *CKPT, "export", "v1", "-o", "out.pt")
    assert exported.code == 0, exported
    assert (tmp_path / "out.pt").read_bytes() == (tmp_path / "net.pt").read_bytes()


# RLIMIT_NPROC counts the processes and threads of a user, but of root. Its own power to read lets
# the user start a Python in root's home.
POWER = "+dac_read_search"


@pytest.fixture
def limited(tmp_path: Path) -> tuple[str, ...]:
    """The words before a command that gets no thread and no process.

    It owns the folder, a work tree, where a file is larger than git should keep.
    """
    if os.geteuid():
        pytest.skip("not root")
    if not shutil.which("setpriv"):
        pytest.skip("setpriv is not installed")
    for name, count in (("net", 4_500_000), ("other", 1000)):
        state = {key: torch.arange(count) / 3 for key in ("a", "b", "c")}
        torch.save(state, tmp_path / f"{name}.pt")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    user = 60_000 + os.getpid() % 5000  # of this test alone
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, user, user)
    return (
        *("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"),
        *(f"--inh-caps={POWER}", f"--ambient-caps={POWER}", "prlimit", "--nproc=1:1"),
    )


def test_fault_31_commands_work_at_a_limit_on_processes(
    tmp_path: Path, limited: tuple[str, ...]
) -> None:
    probe = "import threading; threading.Thread(target=print).start()"
    ran = run(tmp_path, sys.executable, "-c", probe, around=limited)
    assert "can't start new thread" in ran.err
    for line in [each for each in LINES if each in QUICK or not SHORT]:
        ran = run(tmp_path, *CKPT, *line, around=limited)
        assert ran.code == 0, (line, ran)
    ran = run(tmp_path, *CKPT, "git-driver", "install", around=limited)
    said = "error: git cannot be started: Resource temporarily unavailable\n"
    assert (ran.code, ran.err) == (5, said)
    assert "net:v1" in checker.check(tmp_path).versions


def test_second_command_in_one_process_works(tmp_path: Path) -> None:
    script = """
import sys
from ckpt.cli import main
for words in (["gc", "--yes"], ["ls"], ["gc", "--yes"]):
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as done:
        print(done.code)
"""
    (tmp_path / "registry.json").write_text(
        '{"schema": 1, "serial": 0, "write_id": "", "models": {}}'
    )
    ran = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=tmp_path, env=ENVIRONMENT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in ran.stderr
    assert [line for line in ran.stdout.splitlines() if line.isdigit()] == ["0", "0", "0"], ran
