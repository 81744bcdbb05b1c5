"""Measure commands that do not need torch: CPU time and imports, beside `import torch`.

    python benchmarks/startup.py [--runs N] [--quick]

Works on a copy of the shipped registry. Each command runs N times; the minimum and the
median of its CPU time (user + system, the whole process) are printed, and the ratio of the
median to that of `python -c "import torch"` in the same run.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from quick import parse_options
from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
TARGET_MS = 150
CKPT = [str(Path(sys.executable).with_name("ckpt"))]
# An installed package has its bytecode; compiling it is not part of the measurement.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
COMMANDS = {
    "ckpt --help": [*CKPT, "--help"],
    "ckpt ls": [*CKPT, "ls"],
    "ckpt show v1": [*CKPT, "show", "v1"],
    "ckpt diff v1 v2": [*CKPT, "diff", "v1", "v2"],
    "ckpt rename v1 --rule conv=embed": [*CKPT, "rename", "v1", "--rule", "conv=embed"],
    "ckpt rename v1 --rule fc=head": [*CKPT, "rename", "v1", "--rule", "fc=head"],
    "python -c 'import torch'": [sys.executable, "-c", "import torch"],
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    runs = parse_options(parser, runs=1).runs
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "registry"
        times = {name: cpu_ms(command, copy, runs) for name, command in COMMANDS.items()}
        grown = growth(copy)
    torch = statistics.median(times["python -c 'import torch'"])
    rows = [
        [
            name,
            f"{min(ms):.0f}",
            f"{statistics.median(ms):.0f}",
            f"{statistics.median(ms) / torch:.3f}",
        ]
        for name, ms in times.items()
    ]
    print(tabulate(rows, ["command", "min ms", "median ms", "of import torch"]))
    print(f"\nCPU time of {runs} runs each; the target is under {TARGET_MS} ms")
    print(f"a rename of a version adds {grown:,} bytes (manifest and line of index); under 16,384")


def cpu_ms(command: list[str], registry: Path, runs: int) -> list[float]:
    """CPU milliseconds of each run, in a fresh copy of the shipped registry."""
    found = []
    for _ in range(runs):
        fresh(registry)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            command, cwd=registry, check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found.append(spent * 1000)
    return found


def growth(registry: Path) -> int:
    """Bytes that a rename adds to a registry."""
    fresh(registry)
    before = total(registry)
    command = COMMANDS["ckpt rename v1 --rule fc=head"]
    subprocess.run(command, cwd=registry, check=True, stdout=subprocess.DEVNULL)
    return total(registry) - before


def fresh(registry: Path) -> None:
    """Copy the shipped registry."""
    shutil.rmtree(registry, ignore_errors=True)
    registry.mkdir()
    shutil.copy(ROOT / "registry.json", registry)
    shutil.copytree(ROOT / ".ckpt", registry / ".ckpt")


def total(folder: Path) -> int:
    """Bytes of all files in a folder."""
    paths = (Path(base) / name for base, _, names in os.walk(folder) for name in names)
    return sum(path.stat().st_size for path in paths)


if __name__ == "__main__":
    main()
