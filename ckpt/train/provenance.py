"""Where a run took place: the machine, the versions, the code's commit, its process.

Unknown values are None; the functions never fail, and return no names of people or folders.
"""

import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ckpt.io.git import asked


def environment(device: torch.device, *, devices: int = 1) -> dict[str, Any]:
    """Versions and machine, as far as they affect the bytes of the weights.

    Args:
        device: The run's; `gpu` is None for a CPU.
        devices: How many of them.
    """
    gpu = None
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        gpu = {
            "name": torch.cuda.get_device_name(device),
            "count": devices,
            "capability": f"{major}.{minor}",  # of the chip, not of the driver
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "gpu": gpu,
        "threads": torch.get_num_threads(),
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the work tree around `folder`, and whether its tracked files have changes."""
    commit = asked(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    if not commit:
        return None
    changes = asked(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def process_age() -> float | None:
    """Seconds since this process began, including the interpreter's start and imports.

    Source: proc_pid_stat(5), field 22: its start in clock ticks since boot.
    """
    try:
        stat = Path("/proc/self/stat").read_bytes()
    except OSError:  # another system
        return None
    fields = stat.rpartition(b")")[2].split()  # from field 3, after a name of any characters
    began = int(fields[22 - 3]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began


def peak_bytes(device: torch.device) -> int | None:
    """Peak memory so far: of the GPU, or on a CPU resident memory of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024  # getrusage(2): kilobytes


def _cpu() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
