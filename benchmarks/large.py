"""Measure a large checkpoint: CPU time, wall time and memory, beside `cp` and the usual ways.

    python benchmarks/large.py [--gigabytes 3] [--keys 100000] [--runs 5] [--folder DIR]
                               [--quick]

Files of 290 tensors, and of many, are made on the spot, as .safetensors and as .pt. Every
command is a process of its own; the commands take turns, and the median of the runs is
printed. Wall times are given as a ratio to `cp` of the same file in the same run, and to `cp`
and `sync` of it: what ckpt writes is on the disk when it ends, which is not so of `cp` and of
the usual ways. Where `dd` past the page cache takes longer than `cp`, the disk sets the pace.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from quick import parse_options
from tabulate import tabulate

TENSORS = 290
CKPT = str(Path(sys.executable).with_name("ckpt"))
# Into a new registry each time, in place of the last one, as cp writes over its last copy.
REGISTER = 'rm -rf reg && mkdir reg && "$1" register "$2" --registry reg -q'
TORCH_LOAD = "import sys, torch; torch.load(sys.argv[1], weights_only=True)"
TORCH_MMAP = "import sys, torch; torch.load(sys.argv[1], weights_only=True, mmap=True)"
LIBRARY_LOAD = "import sys, safetensors.torch as s; s.load_file(sys.argv[1])"
TORCH_RENAME = (
    "import sys, torch; d = torch.load(sys.argv[1], weights_only=True); "
    "torch.save({k.replace('model', 'net'): v for k, v in d.items()}, sys.argv[2])"
)
TORCH_MMAP_RENAME = TORCH_RENAME.replace("weights_only=True", "weights_only=True, mmap=True")
LIBRARY_RENAME = (
    "import sys, safetensors.torch as s; d = s.load_file(sys.argv[1]); "
    "s.save_file({k.replace('model', 'net'): v for k, v in d.items()}, sys.argv[2])"
)


@dataclass(frozen=True)
class Cost:
    """Medians of one command: seconds of wall and CPU time, bytes of peak memory."""

    wall: float
    cpu: float
    memory: int


def main() -> None:
    """Make the files, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the files are made")
    options = parse_options(parser, gigabytes=0.002, keys=1000, runs=1)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        os.chdir(folder)
        make_files(options.gigabytes, options.keys)
        print(f"{TENSORS} tensors, {Path('big.pt').stat().st_size / 1e9:.2f} GB\n")
        print_headers("big", "reads the header", options.runs)
        print("the target is under 150 ms of CPU and 60 MB\n")
        print_copies(options.runs)
        print_headers("many", f"{options.keys:,} keys", options.runs)
        print("the target of show is under 2 s for 100,000")


def make_files(gigabytes: float, keys: int) -> None:
    """`big` of random bits and `many` of small tensors, in both formats, in another process."""
    program = (
        "import torch, safetensors.torch as s\n"
        f"n = int({gigabytes} * 1e9 / 4 / {TENSORS})\n"
        "d = {f'model.layers.{i // 10}.part{i % 10}.weight': "
        "torch.randint(-2**31, 2**31 - 1, (n,), dtype=torch.int32).view(torch.float32)"
        f" for i in range({TENSORS})}}\n"
        "torch.save(d, 'big.pt'); s.save_file(d, 'big.safetensors')\n"
        "d = {f'model.layers.{i // 100}.part{i % 100}.weight': torch.zeros(2, 3)"
        f" for i in range({keys})}}\n"
        "torch.save(d, 'many.pt'); s.save_file(d, 'many.safetensors')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def print_headers(stem: str, title: str, runs: int) -> None:
    """The commands that read headers alone."""
    commands: dict[str, list[str]] = {}
    for name, library in ((f"{stem}.pt", TORCH_LOAD), (f"{stem}.safetensors", LIBRARY_LOAD)):
        commands |= {
            f"ckpt show {name}": [CKPT, "show", name],
            f"ckpt diff --keys {name} {name}": [CKPT, "diff", "--keys", name, name],
            f"ckpt rename {name} --dry-run": [
                CKPT, "rename", name, "--rule", "model=net", "--dry-run",
            ],
            f"the library's load of {name}": [sys.executable, "-c", library, name],
        }  # fmt: skip
    print_costs(title, measure(commands, runs))


def print_copies(runs: int) -> None:
    """The commands that write a whole file, beside `cp`."""
    rows = []
    for name, other, rename in (
        ("big.pt", "out.safetensors", TORCH_RENAME),
        ("big.safetensors", "out.pt", LIBRARY_RENAME),
    ):
        out = f"out{Path(name).suffix}"
        commands = {
            f"cp {name}": ["cp", name, out],
            **past_the_cache(Path(name).stat().st_size),
            f"cp {name}, and sync": ["sh", "-c", f"cp {name} {out} && sync {out}"],
            f"sha256sum {name}": ["sha256sum", name],
            f"ckpt register {name}": ["sh", "-c", REGISTER, "sh", CKPT, name],
            f"ckpt export {name} -o {other}": [CKPT, "export", name, "-o", other, "-q"],
            f"ckpt rename {name}": [CKPT, "rename", name, "--rule", "model=net", "-o", out],
            f"the usual load, rename, save of {name}": [
                sys.executable, "-c", rename, name, out,
            ],
        }  # fmt: skip
        if name.endswith(".pt"):
            usual = [sys.executable, "-c", TORCH_MMAP_RENAME, name, out]
            commands[f"the same with mmap of {name}"] = usual
        else:  # a swap, so that every run finds what it looks for
            swap = [CKPT, "rename", name, "--rule", "part0<->part1", "--in-place"]
            commands[f"ckpt rename {name} --in-place"] = swap
            commands |= other_tools(name, out)
        costs = measure(commands, runs)
        copy, synced = (costs[f"cp {name}{more}"].wall for more in ("", ", and sync"))
        rows += [
            [
                label, f"{cost.wall:.2f}", f"{cost.wall / copy:.2f}", f"{cost.wall / synced:.2f}",
                f"{cost.memory / 1e6:.0f}",
            ]
            for label, cost in costs.items()
        ]  # fmt: skip
    print(tabulate(rows, ["writes a file", "wall s", "of cp", "of cp and sync", "peak MB"]))
    print("the target is 1.3 of cp, and 100 MB\n")


def past_the_cache(nbytes: int) -> dict[str, list[str]]:
    """A `dd` of zeros with O_DIRECT, which not every file system has."""
    try:
        os.close(os.open("out.zeros", os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
    except (AttributeError, OSError):
        print("no dd past the page cache: this folder's file system has no O_DIRECT")
        return {}
    command = [
        "dd", "if=/dev/zero", "of=out.zeros", "bs=16M", "oflag=direct", "status=none",
        "iflag=count_bytes", f"count={nbytes}",
    ]  # fmt: skip
    return {"dd of as many zeros, past the cache": command}


def other_tools(name: str, out: str) -> dict[str, list[str]]:
    """Other tools for the same task: sft-cli, if `SFT` names its command."""
    sft = os.environ.get("SFT")
    if sft is None:
        return {}
    return {
        f"sft rename {name}": [sft, "rename", name, "-o", out, "--sub", "model", "--sub", "net"]
    }


def print_costs(title: str, costs: dict[str, Cost]) -> None:
    """CPU time, wall time and memory."""
    rows = [
        [label, f"{c.cpu * 1000:,.0f}", f"{c.wall * 1000:,.0f}", f"{c.memory / 1e6:,.0f}"]
        for label, c in costs.items()
    ]
    print(tabulate(rows, [title, "CPU ms", "wall ms", "peak MB"], disable_numparse=True,
                   colalign=("left", "right", "right", "right")))  # fmt: skip


def measure(commands: dict[str, list[str]], runs: int) -> dict[str, Cost]:
    """The medians of the commands, which take turns since machines have moods."""
    found: dict[str, list[Cost]] = {label: [] for label in commands}
    for _ in range(runs):
        for label, command in commands.items():
            found[label].append(run(command))
    return {
        label: Cost(
            statistics.median(cost.wall for cost in costs),
            statistics.median(cost.cpu for cost in costs),
            max(cost.memory for cost in costs),
        )
        for label, costs in found.items()
    }


def run(command: list[str]) -> Cost:
    """Run a command once; what it wrote is removed, and nothing of it is left to be written."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    for path in Path().glob("out.*"):
        path.unlink()
    os.sync()
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


if __name__ == "__main__":
    main()
