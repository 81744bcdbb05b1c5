"""Real processes that train, and one that waits for a test in the middle."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HELD = Path(__file__).with_name("held.py")
Started = Callable[..., "subprocess.Popen[str]"]


def python(folder: Path, *words: str, **options: bool) -> "subprocess.Popen[str]":
    """A Python process with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *words], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def torchrun(folder: Path, *words: str) -> "subprocess.Popen[str]":
    """Two processes that train together, in a session of their own."""
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return python(folder, *two, *words, start_new_session=True)


@contextmanager
def held(started: Started, folder: Path, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """A run of ckpt that has shown that it trains, and waits; it goes on as the block ends."""
    marker = folder / "trains"
    process = started(folder, str(HELD), str(marker), *words)
    while not marker.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    yield process
    marker.unlink()
