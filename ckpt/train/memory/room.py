"""How much memory this process may still take before the system kills it.

A process that takes more than its cgroup allows gets no error: the kernel kills it. So does a
machine without free memory. Only Linux says how much is left; elsewhere the answer is None.

Sources: Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst; proc(5),
/proc/pid/cgroup, mountinfo, status and clear_refs; kubelet takes inactive_file from usage, too.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_UNLIMITED = 1 << 60  # version 1 writes a number near 2^63 for no limit
# By the version of cgroups: limits, usage, and what of it is reclaimable in memory.stat.
_FILES = {
    1: (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
    2: (("memory.max", "memory.high"), "memory.current", "inactive_file"),
}


def available_bytes(proc: Path = Path("/proc")) -> int | None:
    """The memory that is left: of the machine, and of each cgroup that this process is in.

    Args:
        proc: The mount point of procfs.
    """
    rooms = [_of_machine(proc / "meminfo"), *_of_groups(proc / "self")]
    return min((room for room in rooms if room is not None), default=None)


@contextmanager
def peak_growth(proc: Path = Path("/proc")) -> Iterator[Callable[[], int | None]]:
    """A function that says by how much this process has grown at its largest since the start.

    In bytes of resident memory; None where the system does not say.
    """
    try:
        (proc / "self/clear_refs").write_text("5")  # the peak is the present size
    except OSError:
        yield lambda: None
        return
    began = _status(proc, "VmRSS")

    def growth() -> int | None:
        peak = _status(proc, "VmHWM")
        return None if began is None or peak is None else max(peak - began, 0)

    yield growth


def _of_machine(meminfo: Path) -> int | None:
    return _in_kilobytes(meminfo, "MemAvailable")


def _of_groups(process: Path) -> Iterator[int | None]:
    """The room in the group of each hierarchy with memory limits, and in those above it."""
    for version, place, group in _memory_groups(process):
        for folder in (group, *group.parents):
            if folder == place or place in folder.parents:
                yield _in_group(folder, version)


def _in_group(folder: Path, version: int) -> int | None:
    limits, usage, reclaimable = _FILES[version]
    numbers = [number for name in limits if (number := _number(folder / name)) is not None]
    used = _number(folder / usage)
    if not numbers or used is None or min(numbers) >= _UNLIMITED:
        return None
    return max(min(numbers) - used + _statistic(folder / "memory.stat", reclaimable), 0)


def _memory_groups(process: Path) -> Iterator[tuple[int, Path, Path]]:
    """Version, mount point and folder of the groups that limit this process's memory."""
    paths = dict(_group_paths(_lines(process / "cgroup")))
    for line in _lines(process / "mountinfo"):
        mounted, _, kind = line.partition(" - ")
        fields, (name, *_, options) = mounted.split(), kind.split()
        version = {"cgroup2": 2, "cgroup": 1}.get(name, 0)
        if version not in paths or (version == 1 and "memory" not in options.split(",")):
            continue
        root, place = fields[3], Path(_unescaped(fields[4]))
        # In a container the mount shows a part of the hierarchy, whose root the path may name.
        inside = paths[version].removeprefix(root if root != "/" else "")
        yield version, place, place / inside.lstrip("/")


def _group_paths(lines: list[str]) -> Iterator[tuple[int, str]]:
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            yield 2, path
        elif "memory" in controllers.split(","):
            yield 1, path


def _unescaped(path: str) -> str:
    return path.replace("\\040", " ").replace("\\134", "\\")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    """The number in a file; None for ``max`` and for a file that is not there."""
    (text,) = _lines(path)[:1] or ("",)
    return int(text) if text.strip().isdecimal() else None


def _statistic(path: Path, name: str) -> int:
    """A line ``name 123``, in bytes."""
    found = (line.split() for line in _lines(path))
    return next((int(words[1]) for words in found if words[0] == name), 0)


def _in_kilobytes(path: Path, name: str) -> int | None:
    """A line ``name:  123 kB``, in bytes."""
    found = (line.split() for line in _lines(path) if line.startswith(f"{name}:"))
    return next((int(words[1]) * 1024 for words in found), None)


def _status(proc: Path, name: str) -> int | None:
    return _in_kilobytes(proc / "self/status", name)
