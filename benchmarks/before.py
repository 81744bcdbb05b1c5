"""Measure commands beside the same commands of another revision, in turns.

    python benchmarks/before.py [--revision HEAD] [--keys 300 10000] [--megabytes 500] [--runs 5]
                                [--quick]

Each command is a process of its own, started with the code of the work tree, and with that of the
revision, as git has it; each tree has a registry of its own. CPU seconds of the process are
printed, the smallest of the runs, and the median of the ratios.
"""

import argparse
import compileall
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from quick import parse_options
from safetensors.torch import save_file
from tabulate import tabulate

TREE = Path(__file__).resolve().parent.parent
RUN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from ckpt.cli import main; main()"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--revision", default="HEAD")
    parser.add_argument("--keys", type=int, nargs="+", default=[300, 10_000])
    parser.add_argument("--megabytes", type=int, default=500, help="of the large files")
    parser.add_argument("--runs", type=int, default=5)
    options = parse_options(parser, keys=[30], megabytes=1, runs=1)
    with tempfile.TemporaryDirectory() as scratch:
        folder, before = Path(scratch, "files"), Path(scratch, "before")
        folder.mkdir()
        before.mkdir()
        archive = ["git", "-C", str(TREE), "archive", options.revision, "ckpt"]
        packed = subprocess.run(archive, check=True, stdout=subprocess.PIPE)
        subprocess.run(["tar", "-x", "-C", str(before)], check=True, input=packed.stdout)
        for tree in (before, TREE):
            compileall.compile_dir(tree / "ckpt", quiet=1)
        rows = []
        for tree, at in ((before, "then"), (TREE, "now")):
            (folder / at).mkdir()
            register(folder / at, tree)
        for name, words in commands(folder, options.keys, options.megabytes):
            turns = [
                [cpu(folder / at, tree, words) for tree, at in ((before, "then"), (TREE, "now"))]
                for _ in range(options.runs)
            ]
            ms = [min(times) * 1000 for times in zip(*turns, strict=True)]
            rows.append([name, *ms, statistics.median(now / then for then, now in turns)])
    heads = ["command", f"{options.revision}, ms", "now, ms", "ratio"]
    print(tabulate(rows, heads, floatfmt=("", ".0f", ".0f", ".2f")))
    print(f"\nCPU time, the smallest of {options.runs} runs; the ratio is the median")


def register(folder: Path, tree: Path) -> None:
    """Two versions of a small network, by the code of a tree."""
    for seed in range(2):
        state = {f"conv{at}.weight": torch.full((64, 64), float(at + seed)) for at in range(8)}
        torch.save(state, folder / "net.pt")
        cpu(folder, tree, ["register", "net.pt"])


def commands(folder: Path, counts: list[int], megabytes: int) -> Iterator[tuple[str, list[str]]]:
    """Commands by what they are called, after the files that they read were made."""
    yield "--version", ["--version"]
    yield "ls", ["ls"]
    yield "show v1", ["show", "net:v1"]
    yield "diff v1 v2", ["diff", "net:v1", "net:v2"]
    yield "rename v1", ["rename", "net:v1", "--rule", "conv->embed"]
    for count in counts:
        state = {f"block.{at}.conv.weight": torch.full((4,), float(at)) for at in range(count)}
        save(folder, f"{count}", state, "block.0.conv.weight")
        yield f"show {count:,} keys", ["show", f"../{count}.pt"]
        yield from changes(f"{count}", f"{count:,} keys")
    large = {f"conv{at}.weight": torch.rand(megabytes * 1000 // 4 * 10) for at in range(100)}
    save(folder, "large", large, "conv99.weight")
    yield from changes("large", f"{megabytes:,} MB")


def save(folder: Path, name: str, state: dict[str, torch.Tensor], other: str) -> None:
    """Write files of a state_dict, and one in which one tensor is another."""
    torch.save(state, folder / f"{name}.pt")
    save_file(state, folder / f"{name}.safetensors")
    torch.save({**state, other: state[other] + 1}, folder / f"{name}.other.pt")


def changes(name: str, what: str) -> Iterator[tuple[str, list[str]]]:
    """Compare and rename these files."""
    yield f"diff {what}", ["diff", f"../{name}.pt", f"../{name}.other.pt"]
    for suffix in (".pt", ".safetensors"):
        rename = ["rename", f"../{name}{suffix}", "--rule", "conv->embed"]
        yield f"rename {what}, {suffix}", [*rename, "-o", f"new{suffix}"]


def cpu(folder: Path, tree: Path, words: list[str]) -> float:
    """CPU seconds of a command with the code of a tree."""
    for path in folder.glob("new.*"):
        path.unlink()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-P", "-c", RUN, str(tree), *words],
        cwd=folder, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
