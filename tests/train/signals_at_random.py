"""What test_signals.py starts: many short runs, each ended by a signal at a random moment.

Runs are forked from a process that has imported everything, with one thread, so that each costs
a fraction of a second. Prints a line of JSON for each: what was sent, how it ended, what it left.
"""

import contextlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import sklearn.datasets
import torch

import ckpt.train.run
from ckpt.cli import main

FOLDER, COUNT, SEED = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
TRAIN = ["train", "--dataset", "digits", "--precision", "fp32", "--epochs", "3", "-q",
         "--model", f"{FOLDER}/net.py:net", "--save-every", "0", "-o", "w.pt"]  # fmt: skip
RESUME = ["train", "--resume", "net.state.pt", "-q", "-o", "w.pt"]


def start(folder: Path, words: list[str]) -> int:
    """A forked process that runs a command in `folder`, silently."""
    pid = os.fork()
    if not pid:
        os.chdir(folder)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        main(words)
    return pid


def wait(pid: int) -> int:
    """Exit code as a shell has it."""
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def fresh(name: str) -> Path:
    folder = FOLDER / name
    folder.mkdir()
    return folder


def once(number: int, seconds: float) -> dict[str, object]:
    folder = fresh(str(number))
    chosen = (signal.SIGINT, signal.SIGTERM)[number % 2]
    twice = number % 3 == 0
    pid = start(folder, TRAIN)
    for wait_for in (random.uniform(0, seconds), 0.01)[: 1 + twice]:
        time.sleep(wait_for)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, chosen)
    code = wait(pid)
    left = sorted(path.name for path in folder.iterdir())
    again = RESUME if "net.state.pt" in left else TRAIN
    # The second signal may fall after w.pt was written, which is kept unless --force says so.
    resumed = wait(start(folder, [*again, "--force"]))
    return {
        "signal": int(chosen), "twice": twice, "code": code, "left": left, "resumed": resumed,
        "same": (folder / "w.pt").read_bytes() == (FOLDER / "whole" / "w.pt").read_bytes(),
    }  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    assert sklearn.datasets is not None
    assert ckpt.train.run is not None
    random.seed(SEED)
    began = time.perf_counter()
    assert wait(start(fresh("whole"), TRAIN)) == 0
    took = time.perf_counter() - began
    for at in range(COUNT):
        print(json.dumps(once(at, took)), flush=True)
