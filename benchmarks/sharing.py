"""Measure what each way of sharing a registry by git costs: in git, in Git LFS, in a shared folder.

    python benchmarks/sharing.py [--megabytes 500] [--runs 3] [--way WAY] [--folder DIR] [--quick]

Two versions are registered, committed and pushed; a tenth of the second one is new. Bytes are those
of the origin (with its LFS objects), of a clone's `.git` and of its `.ckpt`. CPU seconds are those
of both commits and pushes, and of a clone until its latest version is exported; the wall time of
the latter is a ratio to `cp` and `sync` of the file just before. The median of the runs is printed.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from quick import parse_options
from tabulate import tabulate

CKPT = str(Path(sys.executable).with_name("ckpt"))
TENSORS = 10
WAYS = ("in git", "Git LFS", "--store")
ENVIRONMENT = {
    **os.environ,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_NAME": "Ann" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "ann@example.org" for who in ("AUTHOR", "COMMITTER")},
}


def main() -> None:
    """Measure each way, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=500.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help="measure only this one")
    parser.add_argument("--folder", type=Path, help="where everything is made")
    options = parse_options(parser, megabytes=1, runs=1)
    rows = []
    for way in [options.way] if options.way else WAYS:
        if way == "Git LFS" and shutil.which("git-lfs") is None:
            print("git-lfs is not installed")
            continue
        with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
            rows.append(measured(Path(scratch), way, options.megabytes, options.runs))
    heads = ["objects", "origin, MB", "clone's .git", "its .ckpt", "push, CPU s", "clone, CPU s"]
    heads.append("of cp and sync")
    print(tabulate(rows, heads, colalign=["left", *["right"] * 6], disable_numparse=True))


def measured(scratch: Path, way: str, megabytes: float, runs: int) -> list[str]:
    """One row: a registry of two versions, pushed and cloned."""
    work = scratch / "work"
    work.mkdir()
    run(scratch, "git", "init", "-q", "--bare", "-b", "main", "origin")
    # As a server that has packed its objects: it searches them for no deltas when asked for them.
    run(scratch / "origin", "git", "config", "core.bigFileThreshold", "100k")
    run(work, "git", "init", "-q", "-b", "main")
    run(work, "git", "remote", "add", "origin", (scratch / "origin").as_uri())
    (work / ".gitignore").write_text("*.pt\n")
    run(work, CKPT, "git-driver", "install", *options_of(scratch, way), "-q")
    pushing = 0.0
    for version in range(2):
        save(work / "net.pt", megabytes, version)
        run(work, CKPT, "register", "net.pt", "-q")
        pushing -= cpu_seconds()
        run(work, "git", "add", "-A")
        run(work, "git", "commit", "-qm", f"v{version + 1}")
        run(work, "git", "push", "-q", "-u", "origin", "main")
        pushing += cpu_seconds()
    clones = [measured_clone(scratch, way, work / "net.pt") for _ in range(runs)]
    sizes = [size(scratch / name) for name in ("origin", "clone/.git", "clone/.ckpt")]
    medians = [statistics.median(each) for each in zip(*clones, strict=True)]
    figures = [*(nbytes / 1e6 for nbytes in sizes), pushing, *medians]
    return [way, *(f"{figure:,.1f}" for figure in figures)]


def options_of(scratch: Path, way: str) -> list[str]:
    """The options of `git-driver install`."""
    return {"Git LFS": ["--lfs"], "--store": ["--store", str(scratch / "store")]}.get(way, [])


def save(path: Path, megabytes: float, version: int) -> None:
    """Tensors that do not compress; the first is another one in each version."""
    numbers = int(megabytes * 1e6 / 4 / TENSORS)
    state = {}
    for at in range(TENSORS):
        generator = torch.Generator().manual_seed(at if at else 100 + version)
        state[f"layer{at}.weight"] = torch.randn(numbers, generator=generator)
    torch.save(state, path)


def timed_copy(path: Path) -> float:
    """Seconds of `cp` and `sync`."""
    began = time.perf_counter()
    run(path.parent, "sh", "-c", f"cp {path.name} copy.pt && sync copy.pt")
    return time.perf_counter() - began


def measured_clone(scratch: Path, way: str, expected: Path) -> tuple[float, float]:
    """CPU seconds, and the wall time beside a copy's, of a clone and an export."""
    copying, used = timed_copy(expected), cpu_seconds()
    clone = scratch / "clone"
    shutil.rmtree(clone, ignore_errors=True)
    began = time.perf_counter()
    run(scratch, "git", "clone", "-q", (scratch / "origin").as_uri(), "clone")
    run(clone, CKPT, "git-driver", "install", *options_of(scratch, way), "-q")
    if way == "Git LFS":
        run(clone, "git", "lfs", "pull")
    run(clone, CKPT, "export", "net", "-o", "net.pt", "-q")
    seconds, used = time.perf_counter() - began, cpu_seconds() - used
    run(clone, "cmp", "net.pt", str(expected))
    (clone / "net.pt").unlink()
    return used, seconds / copying


def cpu_seconds() -> float:
    """Of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def run(folder: Path, *command: str) -> None:
    """Run a command; what it says is shown only if it fails."""
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{shown(command)}: {done.stdout}{done.stderr}")


def shown(command: Sequence[str]) -> str:
    """A command as one types it."""
    return " ".join(command)


if __name__ == "__main__":
    main()
