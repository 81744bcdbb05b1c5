"""Measure commands beside the same commands of another revision, in turns.

    python benchmarks/before.py [--revision HEAD] [--keys 300 10000] [--runs 5] [--quick]

Each command is a process of its own, started with the code of the work tree, and with that of the
revision, as git has it. CPU seconds of the process are printed, the smallest of the runs, and the
median of the ratios.
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
    parser.add_argument("--runs", type=int, default=5)
    options = parse_options(parser, keys=[30], runs=1)
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
        for name, words in commands(folder, options.keys):
            turns = [
                [cpu(folder, tree, words) for tree in (before, TREE)] for _ in range(options.runs)
            ]
            ms = [min(times) * 1000 for times in zip(*turns, strict=True)]
            rows.append([name, *ms, statistics.median(now / then for then, now in turns)])
    heads = ["command", f"{options.revision}, ms", "now, ms", "ratio"]
    print(tabulate(rows, heads, floatfmt=("", ".0f", ".0f", ".2f")))
    print(f"\nCPU time, the smallest of {options.runs} runs; the ratio is the median")


def commands(folder: Path, counts: list[int]) -> Iterator[tuple[str, list[str]]]:
    """Commands by what they are called, after the files that they read were made."""
    yield "--version", ["--version"]
    for count in counts:
        state = {f"block.{at}.conv.weight": torch.full((4,), float(at)) for at in range(count)}
        torch.save(state, folder / f"{count}.pt")
        save_file(state, folder / f"{count}.safetensors")
        torch.save({**state, "block.0.conv.weight": torch.ones(4)}, folder / f"{count}.other.pt")
        yield f"show {count:,} keys", ["show", f"{count}.pt"]
        yield f"diff {count:,} keys", ["diff", f"{count}.pt", f"{count}.other.pt"]
        for suffix in (".pt", ".safetensors"):
            words = ["rename", f"{count}{suffix}", "--rule", "conv->embed", "-o", f"new{suffix}"]
            yield f"rename {count:,} keys, {suffix}", words


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
