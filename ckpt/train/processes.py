"""The processes of one run, as torchrun starts them; without it there is one.

Each has a share of every window, all have the same weights, and only rank 0 prints and writes.
Apart from gradients they communicate over gloo, on any device.
"""

import atexit
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Processes:
    """This process: its rank, from 0, among `count` of them, and among those of its machine."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which alone prints and writes."""
        return self.rank == 0

    def largest(self, numbers: list[int]) -> list[int]:
        """The largest value of each number in any process."""
        if self.count == 1:
            return numbers
        shared = torch.tensor(numbers)
        distributed.all_reduce(shared, op=distributed.ReduceOp.MAX)
        return [int(number) for number in shared]

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of all processes' tensors, on the CPU; `tensor` does not change."""
        if self.count == 1:
            return tensor
        shared = tensor.detach().cpu().clone()
        distributed.all_reduce(shared)
        return shared

    def of_first(self, value: T) -> T:
        """Rank 0's value."""
        values = [value]
        if self.count > 1:
            distributed.broadcast_object_list(values)
        return values[0]

    def of_all(self, value: T) -> list[T]:
        """All processes' values, by rank."""
        values: list[Any] = [value] * self.count
        if self.count > 1:
            distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Wait for all processes."""
        if self.count > 1:
            distributed.barrier()


ALONE = Processes()


def started_by_torchrun() -> Processes:
    """The processes that torchrun's environment variables describe; `ALONE` without them.

    Source: PyTorch's documentation, torchrun, Environment Variables.
    """
    rank, count, local = (os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if rank is None or count is None:
        return ALONE
    return Processes(int(rank), int(count), int(local or 0))


@contextmanager
def joined(processes: Processes) -> Iterator[None]:
    """Connect the processes, unless they are already connected."""
    if processes.count == 1 or distributed.is_initialized():
        yield
        return
    atexit.register(_wait_for_gloo)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _wait_for_gloo() -> None:
    """Wait until gloo's threads are idle, at exit, but not longer than half a minute.

    A thread that drops its last tensor while Python shuts down aborts the process, although the
    run has ended well: it needs the lock of an interpreter that is gone. DDP keeps these threads
    alive past `destroy_process_group`. Where the system does not list threads, 0.1 s must do.
    """
    for _ in range(300):
        time.sleep(0.1)  # without the interpreter's lock, so that they can have it
        if not any(map(_is_busy, Path("/proc/self/task").glob("*/stat"))):
            return


def _is_busy(stat: Path) -> bool:
    """Whether a thread is one of gloo's and has work to do. Source: proc_pid_stat(5)."""
    try:
        name, _, state = stat.read_text().partition(") ")
    except OSError:  # the thread has ended
        return False
    return "gloo" in name and state[0] in "RD"
