"""Trains on the .npz file named first, after a warm-up on the second; prints how it grew.

    python streamed.py LARGE.npz SMALL.npz LOADER DEFINITION

Two numbers: bytes of resident memory at the peak beyond those before, as Linux counts them, and
the run's digest of the images.
"""

import sys
from pathlib import Path

import torch

from ckpt.train.recipes.recipe import Recipe
from ckpt.train.run import train


def trained(file: str, loader: str, definition: str) -> str:
    recipe = Recipe(
        model=definition, dataset=file, loader=loader, epochs=1, batch_size=32, precision="fp32"
    )
    done = train(recipe, Path(f"{file}.{loader}.pt"), replace=True)
    assert done is not None
    return str(done.record["dataset"]["digest"])


def memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    large, small, loader, definition = sys.argv[1:]
    torch.set_num_threads(1)
    trained(small, loader, definition)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is the present size
    before = memory("VmRSS")
    digest = trained(large, loader, definition)
    print(memory("VmHWM") - before, digest)
