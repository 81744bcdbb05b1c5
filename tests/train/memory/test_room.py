"""How much memory is left: from files as the kernel writes them, and in a real group."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ckpt.train.memory.room import available_bytes, peak_growth

MB = 1 << 20
MEMINFO = "MemTotal:       24684096 kB\nMemFree: 1 kB\nMemAvailable:    9000000 kB\n"
V2 = "30 25 0:26 {root} {place} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "35 31 0:32 {root} {place} rw,relatime - cgroup cgroup rw,memory\n"
OTHER = "33 31 0:30 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"


class Machine:
    """A folder of the files that the kernel shows, and groups with limits."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.place = folder / "proc", folder / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        self.place.mkdir()
        (self.proc / "meminfo").write_text(MEMINFO)

    def in_group(self, cgroup: str, mounts: str, root: str = "/") -> None:
        (self.proc / "self/cgroup").write_text(cgroup)
        place = str(self.place).replace(" ", "\\040")
        text = OTHER + mounts.format(root=root, place=place)
        (self.proc / "self/mountinfo").write_text(text)

    def limit(self, group: str, **files: object) -> None:
        folder = self.place / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name.replace("__", ".")).write_text(f"{content}\n")

    @property
    def left(self) -> int | None:
        return available_bytes(self.proc)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "with space")


def test_without_groups_it_is_what_the_machine_has(machine: Machine) -> None:
    assert machine.left == 9_000_000 * 1024
    (machine.proc / "meminfo").unlink()
    assert machine.left is None


STAT2 = f"anon 5\nfile 9\ninactive_file {20 * MB}\nactive_file 1"
STAT1 = f"inactive_file 1\ntotal_inactive_file {20 * MB}\n"


def test_version_2_takes_the_smaller_limit_and_gives_back_the_cache(machine: Machine) -> None:
    machine.in_group("0::/user/job\n", V2)
    machine.limit("user/job", memory__max=300 * MB, memory__current=100 * MB)
    assert machine.left == 200 * MB
    machine.limit("user/job", memory__stat=STAT2)
    assert machine.left == 220 * MB
    machine.limit("user/job", memory__high=250 * MB)
    assert machine.left == 170 * MB


def test_version_1_has_names_of_its_own(machine: Machine) -> None:
    machine.in_group("9:name=systemd:/x\n4:cpu,memory:/job\n0::/\n", V1)
    machine.limit(
        "job",
        memory__limit_in_bytes=300 * MB,
        memory__usage_in_bytes=100 * MB,
        memory__stat=STAT1,
    )
    assert machine.left == 220 * MB
    machine.limit("job", memory__limit_in_bytes=9223372036854771712)
    assert machine.left == 9_000_000 * 1024


def test_group_above_may_be_the_tighter_one(machine: Machine) -> None:
    machine.in_group("0::/user/job\n", V2)
    machine.limit("user/job", memory__max="max", memory__current=100 * MB)
    machine.limit("user", memory__max=150 * MB, memory__current=140 * MB)
    machine.limit("", memory__max=1, memory__current=2)
    assert machine.left == 0
    machine.limit("", memory__max="max")
    assert machine.left == 10 * MB


@pytest.mark.parametrize(
    ("path", "root"),
    [("/", "/"), ("/docker/f00", "/docker/f00"), ("/", "/docker/f00")],
    ids=["namespace", "path of the host", "both"],
)
def test_container_sees_its_own_group_at_the_mount_point(
    machine: Machine, path: str, root: str
) -> None:
    machine.in_group(f"0::{path}\n", V2, root)
    machine.limit("", memory__max=300 * MB, memory__current=100 * MB)
    assert machine.left == 200 * MB


@pytest.mark.parametrize("text", ["", "max", "junk", "-1"])
def test_file_that_says_no_number_is_no_limit(machine: Machine, text: str) -> None:
    machine.in_group("0::/job\n", V2)
    machine.limit("job", memory__max=text, memory__current=1)
    assert machine.left == 9_000_000 * 1024
    machine.limit("job", memory__max=5, memory__current=text)
    assert machine.left == 9_000_000 * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says how large a process is")
def test_growth_is_that_of_the_peak_not_of_what_stays() -> None:
    with peak_growth() as growth:
        block = bytearray(64 * MB)
        block[::4096] = b"x" * len(range(0, len(block), 4096))
        del block
        found = growth()
    assert found is not None
    assert 60 * MB < found < 200 * MB


def test_system_that_does_not_say_has_no_growth(tmp_path: Path) -> None:
    with peak_growth(tmp_path) as growth:
        assert growth() is None


def memory_group() -> Path | None:
    """A folder of this process's memory cgroup in which groups can be made; None if there is none.

    Only version 1 lets a group that holds processes have groups with limits below it.
    """
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            return Path("/sys/fs/cgroup/memory") / path.lstrip("/")
    root = Path("/sys/fs/cgroup")
    enabled = root / "cgroup.subtree_control"
    return root if enabled.exists() and "memory" in enabled.read_text().split() else None


@pytest.fixture
def group() -> Iterator[Path]:
    """A new memory cgroup, empty; it is removed afterwards."""
    parent = memory_group() if sys.platform == "linux" else None
    folder = None if parent is None else parent / f"ckpt-test-{os.getpid()}"
    try:
        if folder is None:
            raise PermissionError("this system has none")
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made: {error}")
    yield folder
    folder.rmdir()


def limit(group: Path, nbytes: int) -> None:
    version_1 = group / "memory.limit_in_bytes"
    (version_1 if version_1.exists() else group / "memory.max").write_text(str(nbytes))


INSIDE = """
import os, sys
from pathlib import Path
(Path(sys.argv.pop(1)) / "cgroup.procs").write_text(str(os.getpid()))
from ckpt.cli import main
main()
"""


def in_group(group: Path, folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """A run of ckpt that begins by moving into the group."""
    return subprocess.run(
        [sys.executable, "-c", INSIDE, str(group), *words],
        cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip


def test_room_in_a_real_group_is_its_limit(group: Path) -> None:
    limit(group, 500 * MB)
    code = (
        "import os, sys; from pathlib import Path;"
        "(Path(sys.argv[1]) / 'cgroup.procs').write_text(str(os.getpid()));"
        "from ckpt.train.memory.room import available_bytes; print(available_bytes())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(group)], text=True, capture_output=True, check=True
    )
    assert 300 * MB < int(ran.stdout) < 500 * MB


WORDS = ("train", "--dataset", "digits", "--epochs", "1", "--batch-size", "1437")


@pytest.mark.long
def test_run_begins_below_the_limit_of_a_real_group(group: Path, tmp_path: Path) -> None:
    """At the size that was asked for, the kernel kills the same run, without a word."""
    limit(group, 700 * MB)
    killed = in_group(group, tmp_path, *WORDS, "--precision", "fp32", "-o", "never.pt")
    assert killed.returncode == -9, killed.stderr
    ran = in_group(group, tmp_path, *WORDS, "--micro-batch", "auto", "-o", "w.pt")
    assert ran.returncode == 0, ran.stderr
    assert "1,437 images at once may not fit into the" in ran.stderr
    assert (tmp_path / "w.pt").exists()
