"""Five tips for training on a small machine, with and without each: what they bring here.

    CKPT_DATA=/path/to/data python benchmarks/tips.py [--images 60000] [--only TIP,...] [--quick]

The same network on MNIST, one epoch of `--images` images, each row in a process of its own:
images per second, the most memory that the process held, and the accuracy on the test images
afterwards, where all images were trained on: some rows see a part of them, for they are slow, or
would take all the memory that there is.
Where a tip is usually written down wrong, the wrong way has a row too. With CUDA at hand the rows
run there, and the memory is the device's.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from apart import apart, here
from epochs import train_epoch
from images import Images, find_images
from quick import parse_options
from tabulate import tabulate
from torch import Tensor, nn
from torch.autograd import backward
from torch.nn.functional import nll_loss
from torch.utils.data import DataLoader, Subset

from ckpt.definitions import find_definition
from ckpt.train.batches import Batches
from ckpt.train.data.dataset import Dataset
from ckpt.train.data.normalisation import MicroBatch
from ckpt.train.data.samples import Samples
from ckpt.train.loop import Trainer, evaluate
from ckpt.train.recipes.recipe import Recipe

NET = find_definition("ckpt.models.mnist_cnn:Net")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PLAIN = Recipe(dataset="mnist", precision="fp32", epochs=1, seed=1)
# Adadelta divides by the gradient's own size, which hides a gradient of the wrong size.
SGD = replace(PLAIN, optimizer="sgd", lr=0.05, momentum=0.9, schedule="constant")


@dataclass(frozen=True)
class Row:
    """One way to train: its tip, what it is called, and what makes it."""

    tip: str
    name: str
    run: Callable[..., None]
    arguments: tuple[Any, ...] = ()
    share: float = 1.0  # of the images, where a row would take all memory there is


@dataclass(frozen=True)
class Given:
    """The images of a row: files for torchvision, and in memory, where there may be fewer."""

    images: Images
    dataset: Dataset


def ours(model: nn.Module, given: Given, recipe: Recipe) -> None:
    """An epoch of the trainer of `ckpt train`."""
    batches = Batches(given.dataset, recipe, DEVICE)
    trainer = Trainer(model, recipe.precision, recipe, windows=batches.window_count)
    train_epoch(trainer, batches.windows(1))


def images_one_by_one(model: nn.Module, given: Given, workers: int, batch: int) -> None:
    """The usual DataLoader: PIL images, each through ToTensor and Normalize."""
    subset = Subset(given.images.one_by_one(train=True), range(len(given.dataset.train)))
    loader = DataLoader(
        subset,
        batch_size=batch,
        shuffle=True,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,  # Linux's default until Python 3.14
    )
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    for batch_of_images, labels in loader:
        optimizer.zero_grad()
        backward(nll_loss(model(batch_of_images.to(DEVICE)), labels.to(DEVICE)))
        optimizer.step()


def snippet(model: nn.Module, given: Given, mistake: str) -> None:
    """Accumulation over four batches of 64, as it is often copied."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    for number, (images, labels) in enumerate(micro_batches(given.dataset), 1):
        if mistake == "zeroed inside the loop":
            optimizer.zero_grad()
        loss = nll_loss(model(images), labels)
        backward(loss if mistake == "not divided" else loss / 4)
        if number % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()


def micro_batches(dataset: Dataset) -> Iterator[MicroBatch]:
    """Batches of 64 in the trainer's order."""
    for window in Batches(dataset, PLAIN, DEVICE).windows(1):
        yield from window.micro_batches(64)


def losses_kept(model: nn.Module, given: Given, how: str) -> None:
    """An epoch whose losses are remembered, as tensors or as floats; the last part validates."""
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    losses: list[Tensor | float] = []
    for images, labels in micro_batches(given.dataset):
        loss = nll_loss(model(images), labels)
        if not how.startswith("validation"):
            optimizer.zero_grad()
            backward(loss)
            optimizer.step()
        losses.append(loss if how.endswith("tensors") else loss.item())


def with_no_grad(model: nn.Module, given: Given) -> None:
    """The same validation without graphs."""
    with torch.inference_mode():
        losses_kept(model, given, "validation, floats")


ROWS = [
    Row("loader", "DataLoader, PIL, 0 workers, batch 64", images_one_by_one, (0, 64)),
    Row("loader", "DataLoader, PIL, 1 worker, batch 64", images_one_by_one, (1, 64)),
    Row("loader", "DataLoader, PIL, 2 workers, batch 64", images_one_by_one, (2, 64)),
    Row("loader", "DataLoader, PIL, 2 workers, batch 512", images_one_by_one, (2, 512)),
    Row("loader", "ckpt resident, batch 64", ours, (PLAIN,)),
    Row("loader", "ckpt --num-workers 1, batch 64", ours, (replace(PLAIN, num_workers=1),)),
    Row("loader", "ckpt resident, batch 512", ours, (replace(PLAIN, batch_size=512),)),
    Row("16 bits", "fp32", ours, (PLAIN,)),
    Row("16 bits", "bf16 autocast", ours, (replace(PLAIN, precision="bf16"),)),
    Row("16 bits", "fp16 autocast, GradScaler", ours, (replace(PLAIN, precision="fp16"),), 0.005),
    Row("accumulation", "batch 256 = 256 × 1", ours, (replace(SGD, batch_size=256),)),
    Row("accumulation", "batch 256 = 64 × 4", ours, (replace(SGD, accumulate=4),)),
    Row("accumulation", "batch 64", ours, (SGD,)),
    Row("accumulation", "wrong: not divided", snippet, ("not divided",)),
    Row("accumulation", "wrong: zeroed inside the loop", snippet, ("zeroed inside the loop",)),
    Row("metrics", "training losses as floats", losses_kept, ("floats",), 0.2),
    Row("metrics", "wrong: training losses as tensors", losses_kept, ("tensors",), 0.2),
    Row("metrics", "validation in inference mode", with_no_grad, (), 0.2),
    Row(
        "metrics", "wrong: validation losses as tensors", losses_kept, ("validation tensors",), 0.2
    ),
]


def measure(index: int, images: Images, count: int) -> dict[str, Any]:
    """Run a row; in a process of its own."""
    row = ROWS[index]
    dataset = images.load()
    count = max(1, int(count * row.share))
    some = replace(
        dataset, train=Samples(dataset.train.images[:count], dataset.train.labels[:count])
    )
    torch.manual_seed(1)
    model = NET.build().to(DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload] # not in its stub
    model.train()
    began = perf_counter()
    row.run(model, Given(images, some), *row.arguments)
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    seconds = perf_counter() - began
    on_device = torch.cuda.max_memory_allocated() / 1e6 if DEVICE.type == "cuda" else None
    return {"speed": count / seconds, "accuracy": score(model, dataset), "device_mb": on_device}


def score(model: nn.Module, dataset: Dataset) -> float:
    """On the test images, in [0, 1]."""
    return evaluate(model, Batches(dataset, PLAIN, DEVICE).test()).accuracy


def main() -> None:
    """Train all ways, rename, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--only", default="loader,16 bits,accumulation,metrics,rename")
    options = parse_options(parser, images=256)
    tips = options.only.split(",")
    print(f"{options.images:,} images, {DEVICE}, {torch.get_num_threads()} threads\n")
    with find_images(quick=options.quick) as images:
        print_rows(images, options.images, tips, quick=options.quick)
    if "rename" in tips:
        print_rename()


def print_rows(images: Images, count: int, tips: list[str], *, quick: bool) -> None:
    """A table for each tip; if quick, only the first row has a process of its own."""
    chosen = [(at, row) for at, row in enumerate(ROWS) if row.tip in tips]
    for tip in dict.fromkeys(row.tip for _, row in chosen):
        rows = [
            (row, (here if quick and at else apart)(measure, at, images, count))
            for at, row in chosen
            if row.tip == tip
        ]
        heads = [tip, "images/s", "× first", "peak MB", "accuracy"]
        print(tabulate(lines(rows), heads, disable_numparse=True), end="\n\n")


def lines(rows: Iterable[tuple[Row, dict[str, Any]]]) -> list[list[str]]:
    """The cells of every row."""
    made, first = [], 0.0
    for row, found in rows:
        first = first or found["speed"]
        memory = found["device_mb"] or max(found["peak_mb"], found["child_mb"])
        trained = f"{found['accuracy']:.2%}" if row.share == 1.0 else ""
        made.append([
            row.name, f"{found['speed']:,.0f}", f"{found['speed'] / first:.2f}",
            f"{memory:,.0f}", trained,
        ])  # fmt: skip
    return made


def print_rename() -> None:
    """Measure renaming the layers of saved weights, instead of training them again."""
    ckpt = str(Path(sys.executable).with_name("ckpt"))
    with tempfile.TemporaryDirectory() as folder:
        torch.save(NET.build().state_dict(), Path(folder) / "old.pt")
        began = perf_counter()
        command = [ckpt, "rename", "old.pt", "--rule", "conv=embed", "-o", "new.pt", "-q"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        seconds = perf_counter() - began
        old, new = (torch.load(Path(folder) / f"{name}.pt") for name in ("old", "new"))
    same = all(torch.equal(old[key.replace("embed", "conv")], new[key]) for key in new)
    print(f"rename: {seconds:.2f} s for a file of 8 tensors; bytes of all tensors kept: {same}")


if __name__ == "__main__":
    main()
