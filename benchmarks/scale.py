"""Measure a sharded model beside `cp -r`, and `--to` of many keys beside what torch needs for it.

    python benchmarks/scale.py [--gigabytes 19] [--tensors 705] [--shards 8] [--keys 100000]
                               [--runs 3] [--folder DIR] [--quick]

The shards hold random bytes. `cp -r` and the rename take turns; what both write is removed, and
`sync` runs after each. The floor of `--to` is Python code that imports torch, builds the class on
the meta device and lets it load the keys strictly, which is the verdict.
"""

import argparse
import json
import os
import shutil
import struct
import sys
import tempfile
from pathlib import Path

from large import CKPT, Cost, measure, print_costs, run
from quick import parse_options
from tabulate import tabulate

NET = """
import torch
from torch import nn
class Layer(nn.Module):
    def __init__(self, name):
        super().__init__()
        for number in range(100):
            part = nn.Module()
            part.weight = nn.Parameter(torch.empty(2, 3))
            setattr(self, f"{name}{number}", part)
class Net(nn.Module):
    def __init__(self, name="unit", layers=LAYERS):
        super().__init__()
        self.layers = nn.ModuleList(Layer(name) for _ in range(layers))
"""
FLOOR = """
import torch
from net import Net
with torch.device("meta"):
    net = Net()
net.load_state_dict(net.state_dict(), strict=True)
"""
BLOCK = os.urandom(1 << 24)
SAVE = "import torch; from net import Net; torch.save(Net('part').state_dict(), 'many.pt')"


def main() -> None:
    """Make the files, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=19.0)
    parser.add_argument("--tensors", type=int, default=705)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the files are made")
    options = parse_options(parser, gigabytes=0.002, tensors=20, shards=2, keys=1000, runs=1)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        os.chdir(folder)
        if options.gigabytes:
            make_shards(int(options.gigabytes * 1e9), options.tensors, options.shards)
            print_sharded(options.tensors, options.runs)
            shutil.rmtree("model")
        if options.keys:
            print_many(options.keys, options.runs)


def make_shards(nbytes: int, tensors: int, shards: int) -> None:
    """A folder as transformers saves it: an index, and safetensors files of random bytes."""
    Path("model").mkdir()
    elements = nbytes // tensors // 4
    keys = [f"model.layers.{i // 10}.part{i % 10}.weight" for i in range(tensors)]
    of = {
        key: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, key in enumerate(keys)
    }
    for name in dict.fromkeys(of.values()):
        own = [key for key in keys if of[key] == name]
        size = 4 * elements
        header = {
            key: {"dtype": "F32", "shape": [elements], "data_offsets": [at * size, (at + 1) * size]}
            for at, key in enumerate(own)
        }
        data = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
        data += b" " * (-len(data) % 8)
        with Path("model", name).open("wb") as out:
            out.write(struct.pack("<Q", len(data)) + data)
            out.flush()
            for _ in own:
                write_random(out.fileno(), size)
    index = {"metadata": {"total_size": 4 * elements * tensors}, "weight_map": of}
    Path("model", "model.safetensors.index.json").write_text(json.dumps(index))
    os.sync()


def write_random(out: int, nbytes: int) -> None:
    """Write a block of random bytes again and again; no file system makes holes of these."""
    left = nbytes
    while left:
        left -= os.write(out, memoryview(BLOCK)[:left])


def print_sharded(tensors: int, runs: int) -> None:
    """The rename of the folder beside `cp -r`."""
    copy = ["cp", "-r", "model", "new"]
    rename = [CKPT, "rename", "model", "--rule", "part=piece", "-o", "new", "-q"]
    costs: dict[str, list[Cost]] = {"cp -r": [], "ckpt rename": []}
    for _ in range(runs):
        for label, command in (("cp -r", copy), ("ckpt rename", rename)):
            costs[label].append(run(command))
            shutil.rmtree("new")
            os.sync()
    rows = [
        [
            label,
            *(f"{cost.wall:.1f}" for cost in found),
            f"{min(cost.cpu for cost in found):.1f}",
            f"{max(cost.memory for cost in found) / 1e6:.0f}",
        ]
        for label, found in costs.items()
    ]
    ratios = [b.wall / a.wall for a, b in zip(*costs.values(), strict=True)]
    size = sum(path.stat().st_size for path in Path("model").iterdir())
    title = f"{size / 1e9:.1f} GB, {tensors} tensors"
    print(tabulate(rows, [title, *(f"wall s, {n + 1}" for n in range(runs)), "CPU s", "peak MB"]))
    print(f"ratios to cp -r: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
    print("the target is 1.2 of cp -r, and 60 MB\n")


def print_many(keys: int, runs: int) -> None:
    """The rename `--to` a class beside the floor."""
    Path("net.py").write_text(NET.replace("LAYERS", str(keys // 100)))
    run([sys.executable, "-c", SAVE])
    commands = {
        "ckpt rename many.pt --to net.py:Net": [
            CKPT, "rename", "many.pt", "--to", "net.py:Net", "-o", "out.pt", "-q",
        ],
        "the floor: torch alone": [sys.executable, "-c", FLOOR],
    }  # fmt: skip
    costs = measure(commands, runs)
    print_costs(f"{keys:,} keys", costs)
    ckpt, floor = (cost.cpu for cost in costs.values())
    print(f"ckpt takes {ckpt / floor:.2f} times the CPU time of the floor")


if __name__ == "__main__":
    main()
