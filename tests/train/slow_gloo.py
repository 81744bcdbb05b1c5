"""What test_processes.py starts: a run that ends while gloo's threads hardly get a processor."""

import os
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ckpt.train.processes import joined, started_by_torchrun

if __name__ == "__main__":
    torch.set_num_threads(1)
    processes = started_by_torchrun()
    with joined(processes):
        DistributedDataParallel(nn.Linear(4, 4))(torch.ones(2, 4)).sum().backward()
        for task in Path("/proc/self/task").iterdir():
            if "gloo" in (task / "comm").read_text():
                os.sched_setscheduler(int(task.name), os.SCHED_IDLE, os.sched_param(0))
        for _ in range(20):
            processes.total(torch.ones(1000))
