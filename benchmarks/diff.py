"""Measure `ckpt diff` of two large checkpoints, beside `cmp` and a loop over torch's tensors.

    python benchmarks/diff.py [--gigabytes 3] [--runs 3] [--folder DIR] [--quick]

A file of 290 tensors, one in which the last of them differs, so that `cmp` has to read all, and one
in which all differ. Every command is a process of its own; they take turns, and the median of the
runs is printed, as seconds and as a ratio to `cmp`. Then two registered versions that differ
in one tensor, with the bytes of objects that were opened. Then a file of 249,000 tensors of one
element and its half, each compared with itself: twice the tensors take twice the time. The files
are in the page cache, if they fit into it.
"""

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from large import CKPT, TENSORS, measure
from quick import parse_options
from tabulate import tabulate

BASE = "a/big.pt"  # of one name all, since torch writes it into the file
CMP = "cmp a/big.pt one/big.pt > /dev/null; test $? = 1"  # 1: they differ
TORCH_LOOP = """
import sys, torch
a, b = (torch.load(path, mmap=True, weights_only=True) for path in sys.argv[1:])
for key in a:
    if not torch.equal(a[key], b[key]):
        x, y = a[key].double(), b[key].double()
        d = (y - x).abs()
        print(key, int((d != 0).sum()), d.max(), d.mean(), d.norm() / x.norm(), x @ y)
"""
OPENED = """
import os, sys
sizes = {}
def hook(event, arguments):
    if event == "open" and "/objects/" in str(arguments[0]):
        sizes[arguments[0]] = os.path.getsize(arguments[0])
sys.addaudithook(hook)
from ckpt.cli import main
try:
    main(sys.argv[1:])
finally:
    print(f"OPENED {sum(sizes.values())}", file=sys.stderr)
"""


def main() -> None:
    """Make the files, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--tensors", type=int, default=249_000, help="in the file of small ones")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the files are made")
    options = parse_options(parser, gigabytes=0.002, tensors=1000, runs=1)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        os.chdir(folder)
        make_files(options.gigabytes)
        print_files(options.runs)
        Path("all/big.pt").unlink()
        print_versions(options.runs)
        print_small(options.tensors, options.runs)


def make_files(gigabytes: float) -> None:
    """A file in the folder `a`; in `one` its last tensor differs, in `all` every tensor."""
    for folder in ("a", "one", "all"):
        Path(folder).mkdir()
    program = (
        "import torch\n"
        f"n = int({gigabytes} * 1e9 / 4 / {TENSORS})\n"
        "d = {f'model.layers.{i // 10}.part{i % 10}.weight': torch.randn(n)"
        f" for i in range({TENSORS})}}\n"
        "torch.save(d, 'a/big.pt')\n"
        "d[key := list(d)[-1]] *= 1.001\n"
        "torch.save(d, 'one/big.pt')\n"
        "for each in d.values(): each *= 1.001\n"
        "torch.save(d, 'all/big.pt')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    print(f"{TENSORS} tensors, {Path(BASE).stat().st_size / 1e9:.2f} GB a file\n")


def print_files(runs: int) -> None:
    """The ways to compare two files."""
    commands = {"cmp, one tensor differs": ["sh", "-c", CMP]}
    for other in ("one", "all"):
        commands |= {
            f"ckpt diff --values, {other}": [CKPT, "diff", "--values", BASE, f"{other}/big.pt"],
            f"torch: load(mmap), equal, double; {other}": [
                sys.executable, "-c", TORCH_LOOP, BASE, f"{other}/big.pt",
            ],
        }  # fmt: skip
    commands["ckpt diff --tolerance 0, a file and itself"] = [
        CKPT, "diff", "--tolerance", "0", BASE, BASE,
    ]  # fmt: skip
    costs = measure(commands, runs)
    base = costs["cmp, one tensor differs"]
    rows = [
        [
            label, f"{cost.wall:.2f}", f"{cost.wall / base.wall:.2f}", f"{cost.cpu:.2f}",
            f"{cost.cpu / base.cpu:.2f}", f"{cost.memory / 1e6:,.0f}",
        ]
        for label, cost in costs.items()
    ]  # fmt: skip
    headers = ["two files", "wall s", "of cmp", "CPU s", "of cmp", "peak MB"]
    print(tabulate(rows, headers, disable_numparse=True, colalign=("left", *["right"] * 5)))
    print("the target where one tensor differs is 1.5 of cmp, and 300 MB\n")


def print_versions(runs: int) -> None:
    """Two registered versions: equal digests need no reading."""
    for file in (BASE, "one/big.pt"):
        subprocess.run([CKPT, "register", file, "--name", "big", "-q"], check=True)
    commands = {
        "ckpt diff v1 v2": [CKPT, "diff", "v1", "v2"],
        "ckpt diff v1 v2 --values": [CKPT, "diff", "v1", "v2", "--values"],
    }
    rows = [
        [label, f"{c.cpu * 1e3:,.0f}", f"{c.wall * 1e3:,.0f}", f"{opened(commands[label]):,}"]
        for label, c in measure(commands, runs).items()
    ]
    headers = ["two versions", "CPU ms", "wall ms", "bytes of objects"]
    print(tabulate(rows, headers, disable_numparse=True, colalign=("left", *["right"] * 3)))


def print_small(tensors: int, runs: int) -> None:
    """Files of many tensors of one element: twice as many take twice the time."""
    commands = {}
    for count in (tensors // 2, tensors):
        header = {
            f"layers.{n // 100}.{n % 100}.weight": {
                "dtype": "F32", "shape": [1], "data_offsets": [4 * n, 4 * n + 4],
            }
            for n in range(count)
        }  # fmt: skip
        text, file = json.dumps(header).encode(), f"{count}.safetensors"
        Path(file).write_bytes(struct.pack("<Q", len(text)) + text + bytes(4 * count))
        commands[f"{count:,}"] = [CKPT, "diff", file, file]
    rows = [
        [label, f"{c.wall:.2f}", f"{c.cpu:.2f}", f"{c.memory / 1e6:,.0f}"]
        for label, c in measure(commands, runs).items()
    ]
    headers = ["small tensors", "wall s", "CPU s", "peak MB"]
    print()
    print(tabulate(rows, headers, disable_numparse=True, colalign=("left", *["right"] * 3)))


def opened(command: list[str]) -> int:
    """The bytes of the objects that a command opens."""
    program = [sys.executable, "-c", OPENED, *command[1:]]
    done = subprocess.run(program, check=False, capture_output=True, text=True)
    return int(done.stderr.partition("OPENED ")[2])


if __name__ == "__main__":
    main()
