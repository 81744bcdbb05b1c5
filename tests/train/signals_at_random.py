"""What test_signals.py starts: many short runs, each ended by a signal at a random moment.

A moment is the n-th call of a Python function, not a time: the run waits there until the signal
has come, so that a slow or busy machine changes nothing. Runs are forked from a process that has
imported everything, with one thread, so that each costs a fraction of a second. Prints a line of
JSON for each: what was sent, how it ended, what it left.
"""

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import sklearn.datasets
import torch
import torch._dynamo  # which every optimizer imports, in seconds

from ckpt.cli import main
from ckpt.train import run

FOLDER, COUNT, SEED = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
TRAIN = ["train", "--dataset", "digits", "--precision", "fp32", "--epochs", "3", "-q",
         "--model", f"{FOLDER}/net.py:net", "--save-every", "0", "-o", "w.pt"]  # fmt: skip
RESUME = ["train", "--resume", "net.state.pt", "-q", "-o", "w.pt"]


class Moment:
    """The n-th call of a function in a run that is to be interrupted there."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._reached, self._reach = os.pipe()
        self._continued, self._continue = os.pipe()

    def wait_in_run(self) -> None:
        """Be profiled from here on; at the moment say so, and wait for the signal."""
        os.close(self._reached)  # and so the test sees a run that ends before its moment
        os.close(self._continue)
        count = 0

        def profile(_frame: FrameType, event: str, _argument: object) -> None:
            nonlocal count
            count += event == "call"
            if count == self.number and event == "call":
                os.write(self._reach, b".")
                os.read(self._continued, 1)

        sys.setprofile(profile)

    def send(self, pid: int, number: signal.Signals, *, twice: bool) -> None:
        """The signal, once the run has come there, and again as it goes on; not if it has ended."""
        os.close(self._reach)
        os.close(self._continued)
        reached = os.read(self._reached, 1)
        if reached:
            os.kill(pid, number)
        os.close(self._continue)
        if reached and twice:
            os.kill(pid, number)
        os.close(self._reached)


def start(folder: Path, words: list[str], before: Callable[[], None] = lambda: None) -> int:
    """A forked process that runs a command in `folder`, silently."""
    pid = os.fork()
    if not pid:
        os.chdir(folder)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        before()
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


def calls() -> int:
    """How many functions a whole run calls; its weights stay in the folder ``whole``."""
    counted, count = os.pipe()
    total = 0

    def profile(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal total
        total += event == "call"
        if _frame.f_code is main.__code__ and event == "return":
            os.write(count, str(total).encode())

    assert wait(start(fresh("whole"), TRAIN, lambda: sys.setprofile(profile))) == 0
    return int(os.read(counted, 100))


def once(number: int, of: int) -> dict[str, object]:
    folder = fresh(str(number))
    chosen = (signal.SIGINT, signal.SIGTERM)[number % 2]
    twice = number % 3 == 0
    moment = Moment(random.randrange(1, of))
    pid = start(folder, TRAIN, moment.wait_in_run)
    moment.send(pid, chosen, twice=twice)
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
    assert run is not None
    random.seed(SEED)
    total = calls()
    for at in range(COUNT):
        print(json.dumps(once(at, total)), flush=True)
