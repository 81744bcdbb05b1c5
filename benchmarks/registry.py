"""Measure a registry: time with ten versions and with 10,000, and bytes beside plain copies.

    python benchmarks/registry.py [--versions 10000] [--copies 20] [--gigabytes 1 3] [--runs 5]
                                  [--keys 100000] [--quick]

Commands are processes of their own; the median of the runs is printed, and how much longer it took
than with ten versions. The 10,000 are lines of the index, as registering makes them, over ten
manifests. Registering large files takes turns with `cp` and `sync` of the same file, with one pass
of SHA-256 over it in one thread, and with a program that only reads, hashes, writes and syncs the
same pieces in two threads; the medians of the ratios are printed. Of large manifests, the
bytes are printed beside those of its rows as JSON, and beside what cannot be smaller: 32 random
bytes for each digest, and the tensors that are part of it.
"""

import argparse
import base64
import gzip
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from quick import parse_options
from tabulate import tabulate

import ckpt
from ckpt.definitions import find_definition
from ckpt.io.digest import of_bytes
from ckpt.registry.columns import to_rows
from ckpt.registry.index import Index
from ckpt.registry.index_file import IndexFile
from ckpt.registry.manifest import INLINE_BYTES, Hole, Manifest, Skeleton, canonical
from ckpt.registry.registry import Registry
from ckpt.tensors import TensorEntry

CKPT = str(Path(sys.executable).with_name("ckpt"))
NET = "ckpt.models.mnist_cnn:Net"
TARGET_MS = 300
State = dict[str, torch.Tensor]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument(
        "--copies", type=int, default=20, help="versions of which bytes are counted"
    )
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--keys", type=int, default=100_000, help="of the large manifests")
    options = parse_options(parser, versions=20, copies=2, gigabytes=[0.04], runs=1, keys=2000)
    print_large(options.gigabytes, options.runs)
    print_times(options.versions, options.runs)
    print_bytes(options.copies)
    print_manifests(options.keys)


def print_large(gigabytes: list[float], runs: int) -> None:
    """Registering large files, in both containers, beside `cp` and `sync`."""
    rows = []
    for size in gigabytes:
        for suffix in (".pt", ".safetensors"):
            with tempfile.TemporaryDirectory() as scratch:
                folder, name = Path(scratch), f"big{suffix}"
                program = MAKE_LARGE.format(
                    count=int(size * 1e9 / 4 / TENSORS), tensors=TENSORS, name=name
                )
                subprocess.run([sys.executable, "-c", program], cwd=folder, check=True)
                commands = (
                    f"cp {name} copy && sync copy",
                    f"openssl dgst -sha256 {name}",
                    f"{quote(sys.executable)} -c {quote(BY_HAND)} {name} {TENSORS}",
                    f"{quote(CKPT)} register {name} --registry reg -q",
                )
                turns = [[seconds(folder, command) for command in commands] for _ in range(runs)]
            times = [statistics.median(of_one) for of_one in zip(*turns, strict=True)]
            ratios = [statistics.median(turn[at] / turn[0] for turn in turns) for at in (2, 3)]
            rows.append([f"{size:g} GB {suffix}", *times, *ratios])
    heads = ["registering", "cp and sync, s", "SHA-256, s", "by hand, s", "ckpt register, s"]
    print(tabulate(rows, [*heads, "by hand / cp", "ckpt / cp"], floatfmt=".2f"))
    print(f"\nmedians of {runs}; the target of the last is 1.5\n")


TENSORS = 290
MAKE_LARGE = """
import torch, safetensors.torch
state = {{f"layer{{at}}.weight": torch.rand({count}) for at in range({tensors})}}
if "{name}".endswith(".pt"):
    torch.save(state, "{name}")
else:
    safetensors.torch.save_file(state, "{name}")
"""

BY_HAND = """
import hashlib, os, sys
from concurrent.futures import ThreadPoolExecutor

def copy(at):
    digest, begin, end = hashlib.sha256(), at * piece, min((at + 1) * piece, size)
    out = os.open(f"copy/{at}", os.O_WRONLY | os.O_CREAT)
    while begin < end:
        chunk = os.pread(file, min(1 << 18, end - begin), begin)
        digest.update(chunk)
        os.write(out, chunk)
        begin += len(chunk)
    return syncing.submit(os.fsync, out)

file = os.open(sys.argv[1], os.O_RDONLY)
size, count = os.fstat(file).st_size, int(sys.argv[2])
piece = -(-size // count)
os.mkdir("copy")
with ThreadPoolExecutor(8) as syncing, ThreadPoolExecutor(2) as hashing:
    for waiting in list(hashing.map(copy, range(count))):
        waiting.result()
"""


def seconds(folder: Path, command: str) -> float:
    """Wall time of a command; what it makes is removed, and nothing is left to be written."""
    subprocess.run("rm -rf copy reg && mkdir reg && sync", shell=True, cwd=folder, check=True)
    began = time.perf_counter()
    subprocess.run(command, shell=True, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def print_times(versions: int, runs: int) -> None:
    """Ten versions beside many."""
    with tempfile.TemporaryDirectory() as scratch:
        few, many = (Path(scratch) / name for name in ("few", "many"))
        for folder in (few, many):
            folder.mkdir()
            register_ten(folder)
        grow(many, versions)
        rows = []
        for name, words in commands().items():
            times = [median_ms(folder, words, runs) for folder in (few, many)]
            rows.append([name, *(f"{ms:.0f}" for ms in times), f"{times[1] - times[0]:.0f}"])
    print(tabulate(rows, ["command", "10 versions, ms", f"{versions:,}", "more"]))
    print(f"\nmedian of {runs}; the target is at most {TARGET_MS} ms more\n")


def register_ten(folder: Path) -> None:
    """`net` v1 to v10, and a file that is none of them for each run to come."""
    for seed in range(10):
        torch.save(weights(seed), folder / "net.pt")
        ckpt.register(folder / "net.pt", registry=Registry(folder), metrics={"accuracy": 0.99})


def weights(seed: int) -> State:
    """Of a small network, so that the index is what counts."""
    generator = torch.Generator().manual_seed(seed)
    return {f"layer{at}.weight": torch.randn(64, 64, generator=generator) for at in range(4)}


def grow(folder: Path, versions: int) -> None:
    """Add lines to the index, each with content of its own."""

    def grown(index: Index) -> Index:
        model = index.model("net")
        kept = dict(model.versions)
        for number in range(model.next_number, versions + 1):
            like = kept[1 + number % 10]
            kept[number] = replace(like, number=number, content=of_bytes(b"%d" % number))
        return index.with_model(replace(model, versions=kept, next_number=versions + 1))

    IndexFile(folder).commit(grown, "grow")


def commands() -> dict[str, Callable[[Path, int], list[str]]]:
    """Command lines, made for a folder and the number of a run."""

    def registering(folder: Path, run: int) -> list[str]:
        torch.save(weights(1000 + run), folder / "new.pt")
        return ["register", "new.pt", "--name", "net"]

    return {
        "ckpt ls --where 'version<11'": lambda *_: ["ls", "--where", "version<11"],
        "ckpt show net:v3": lambda *_: ["show", "net:v3"],
        "ckpt diff net:v1 net:v2": lambda *_: ["diff", "net:v1", "net:v2"],
        "ckpt alias prod net:v3": lambda _, run: ["alias", "prod", f"net:v{3 + run % 2}"],
        "ckpt register new.pt": registering,
        "ckpt ls": lambda *_: ["ls"],
    }


def median_ms(folder: Path, words: Callable[[Path, int], list[str]], runs: int) -> float:
    """Wall time of a command."""
    times = []
    for run in range(runs):
        command = [CKPT, *words(folder, run)]
        began = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def print_bytes(count: int) -> None:
    """Versions of the MNIST network, of six kinds, beside as many copies."""
    rows = []
    for name, files in KINDS.items():
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            copies = 0
            for command, copied in files(folder, count):
                subprocess.run([CKPT, *command, "-q"], cwd=folder, check=True, capture_output=True)
                copies += copied
            stored = sum(
                path.stat().st_size
                for path in [folder / "registry.json", *(folder / ".ckpt").rglob("*")]
                if path.is_file()
            )
        rows.append([name, f"{copies / 1e6:.1f}", f"{stored / 1e6:.2f}", f"{stored / copies:.1%}"])
    heads = [f"{count} versions of the MNIST network", "copies, MB", "ckpt, MB", "of copies"]
    print(tabulate(rows, heads, disable_numparse=True, stralign="right"))


Files = Iterator[tuple[list[str], int]]


def registered(
    folder: Path, states: Iterator[dict[str, Any]], suffixes: tuple[str, ...] = (".pt",)
) -> Files:
    """Write each and register it; with every suffix."""
    from safetensors.torch import save_file

    for state in states:
        for suffix in suffixes:
            path = folder / f"net{suffix}"
            if suffix == ".pt":
                torch.save(state, path)
            else:
                save_file(state, path)
            yield ["register", path.name], path.stat().st_size


def net(seed: int) -> State:
    """The MNIST network's weights, freshly drawn."""
    torch.manual_seed(seed)
    return dict(find_definition(NET).build().state_dict())


def renamed(folder: Path, count: int) -> Files:
    """One version and renames of it."""
    yield from registered(folder, iter([net(1)]))
    size = (folder / "net.pt").stat().st_size
    for at in range(2, count + 1):
        yield ["rename", "net:v1", "--rule", f"conv=embed{at}_"], size


def new_head(seed: int) -> State:
    """A frozen backbone: all but the last layer as in seed 1."""
    other = net(seed)
    return {**net(1), **{key: other[key] for key in other if key.startswith("fc2")}}


KINDS: dict[str, Callable[[Path, int], Files]] = {
    "the same bytes again": lambda f, n: registered(f, (net(1) for _ in range(n))),
    "renamed": renamed,
    ".pt and .safetensors of half as many": lambda f, n: registered(
        f, (net(seed) for seed in range(n // 2)), (".pt", ".safetensors")
    ),
    "frozen backbone, new head": lambda f, n: registered(f, map(new_head, range(n))),
    "new metadata": lambda f, n: registered(
        f, ({"model": net(1), "epoch": epoch} for epoch in range(n))
    ),
    "all weights new": lambda f, n: registered(f, map(net, range(n))),
}


def print_manifests(keys: int) -> None:
    """Large manifests beside their rows."""
    rows = []
    for name, nbytes, different in (
        ("different, 16 bytes each", 16, keys),
        ("different, 8 KiB each", 8192, keys),
        ("the same, 8 KiB each", 8192, 1),
    ):
        manifest = large_manifest(keys, nbytes, different)
        whole, plain = len(manifest.to_bytes()), len(canonical(rows_of(manifest)))
        least = sum(map(len, manifest.inline.values())) + 32 * len(manifest.objects())
        shares = (f"{part / plain:.1%}" for part in (whole, least))
        rows.append([name, *(f"{part / 1e6:.2f}" for part in (plain, whole, least)), *shares])
    heads = [f"{keys:,} tensors", "rows, MB", "manifest, MB", "least, MB", "of rows", "least"]
    print()
    print(tabulate(rows, heads, disable_numparse=True, stralign="right"))


def large_manifest(keys: int, nbytes: int, different: int) -> Manifest:
    """The manifest of a `.pt` file with so many tensors of random bytes."""
    holes, entries, inline, position = [], [], {}, 0
    for at in range(keys):
        data = random.Random(at % different).randbytes(nbytes)
        name = of_bytes(data)
        if nbytes <= INLINE_BYTES:
            inline[name] = data
        position += 128 + len(str(at))
        holes.append(Hole(position, nbytes, name))
        position += nbytes
        key = f"model.layers.{at // 8}.block{at % 8}.weight"
        entries.append(TensorEntry(key, "float32", (nbytes // 4,), digest=name))
    skeleton = Skeleton(position, tuple(holes), of_bytes(b"skeleton"))
    return Manifest("torch-zip", "big.pt", None, skeleton, tuple(entries), inline=inline)


def rows_of(manifest: Manifest) -> dict[str, Any]:
    """The document of a manifest as a small one has it: a row for each tensor and hole."""
    rows = to_rows(json.loads(gzip.decompress(manifest.to_bytes())))
    packed = {
        name: base64.b64encode(zlib.compress(rows["inline"][name])) for name in rows["inline"]
    }
    return {**rows, "inline": {name: text.decode("ascii") for name, text in packed.items()}}


if __name__ == "__main__":
    os.environ.pop("CKPT_REGISTRY", None)
    main()
