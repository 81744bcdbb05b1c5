"""Measure training here, beside the public PyTorch example, Lightning Fabric and a loop by hand.

    CKPT_DATA=/path/to/data python benchmarks/training.py [--epochs 6] [--batches N]
                                                          [--only NAME,...] [--quick]

The same network on MNIST, each in a process of its own, an epoch each in turns: (a) the public
PyTorch MNIST example's way, a DataLoader over PIL images with ToTensor and Normalize, batch 64,
shuffled, Adadelta; (b) Lightning Fabric around the same; (c) a loop by hand, for speed, with all
images in memory, channels last, in fp32 and in bfloat16; and the recipes of ckpt. Speeds beside (a)
are the median of the ratios in the same turn. All are scored on the test images after each epoch,
which is not counted in the times. Seconds to 99 % is the time from the start of the process until
an epoch ends with that score, start-up and epochs; the score is that of the last epoch. A training
of ckpt itself reads the test images once; this is to compare.

`--batches N` stops each epoch after N steps, without a score, to compare speeds where an epoch is
too long. The machine's arithmetic decides: bfloat16 is fast with AVX-512 or AMX only.

Source of (a): github.com/pytorch/examples, mnist/main.py, as of 2025, without CUDA.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import islice
from statistics import median
from time import perf_counter
from typing import Any, Literal

import torch
from by_hand import steps_by_hand
from epochs import train_epoch
from images import Images, find_images
from quick import parse_options
from tabulate import tabulate
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from turns import Apart, Here

from ckpt.definitions import find_definition
from ckpt.train.batches import Batches
from ckpt.train.loop import Trainer, evaluate
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.recipes.recipe_file import read_recipe
from ckpt.train.trials import choose_precision

NET = find_definition("ckpt.models.mnist_cnn:Net")
# Images a second in an epoch, accuracy after it; zeros before the first, when all is built.
Epochs = Iterator[tuple[float, float]]


def public_example(
    images: Images,
    batches: int | None,
    fabric_precision: Literal["32-true", "bf16-mixed"] | None = None,
) -> Epochs:
    """(a), or with a precision (b)."""
    loader: Any = DataLoader(images.one_by_one(train=True), batch_size=64, shuffle=True)
    test: Any = DataLoader(images.one_by_one(train=False), batch_size=1000)
    model = NET.build()
    optimizer: Any = torch.optim.Adadelta(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    backward: Callable[[torch.Tensor], None] = torch.Tensor.backward
    if fabric_precision is not None:
        from lightning_fabric import Fabric

        fabric = Fabric(accelerator="cpu", devices=1, precision=fabric_precision)
        model, optimizer = fabric.setup(model, optimizer)
        loader = fabric.setup_dataloaders(loader)
        backward = fabric.backward
    yield 0.0, 0.0
    while True:
        began, seen = perf_counter(), 0
        model.train()
        for batch, labels in islice(loader, batches):
            optimizer.zero_grad()
            backward(functional.nll_loss(model(batch), labels))
            optimizer.step()
            seen += len(labels)
        scheduler.step()
        speed = seen / (perf_counter() - began)
        yield speed, 0.0 if batches else accuracy(model, test)


def by_hand(images: Images, batches: int | None, precision: str) -> Epochs:
    """(c)."""
    found = images.one_by_one(train=True)
    test: Any = DataLoader(images.one_by_one(train=False), batch_size=1000)
    steps = steps_by_hand(NET.build(), found.data, found.targets, lower=precision == "bf16")
    model, count = next(steps), -(-len(found) // 64)
    yield 0.0, 0.0
    while True:
        began = perf_counter()
        model.train()
        taken = sum(1 for _ in islice(steps, min(count, batches or count)))
        speed = min(64 * taken, len(found)) / (perf_counter() - began)
        yield speed, 0.0 if batches else accuracy(model, test)


def accuracy(model: nn.Module, batches: Any) -> float:
    """In [0, 1], over all test images."""
    model.eval()
    with torch.inference_mode():
        hits = [model(images).argmax(1) == labels for images, labels in batches]
    return float(torch.cat(hits).float().mean())


def recipe_of_ckpt(images: Images, batches: int | None, name: str, precision: str) -> Epochs:
    """The trainer of `ckpt train`, an epoch at a time."""
    recipe = Recipe(**{**read_recipe(name), "dataset": images.name, "precision": precision})
    dataset = images.load()
    made = Batches(dataset, recipe, torch.device("cpu"))
    torch.manual_seed(recipe.seed)
    model = NET.build().to(memory_format=torch.channels_last)  # type: ignore[call-overload] # not in its stub
    chosen = choose_precision(recipe, model, made.first_images(64)).name
    trainer = Trainer(model, chosen, recipe, windows=made.window_count)
    yield 0.0, 0.0
    for epoch in range(1, recipe.epochs + 1):
        began = perf_counter()
        seen = train_epoch(trainer, islice(made.windows(epoch), batches))
        speed = seen / (perf_counter() - began)
        yield speed, 0.0 if batches else evaluate(model, made.test()).accuracy


WAYS: dict[str, tuple[Callable[..., Epochs], tuple[str, ...]]] = {
    "(a) public example": (public_example, ()),
    "(b) Fabric 32-true": (public_example, ("32-true",)),
    "(b) Fabric bf16-mixed": (public_example, ("bf16-mixed",)),
    "(c) by hand, fp32": (by_hand, ("fp32",)),
    "(c) by hand, bf16": (by_hand, ("bf16",)),
    "ckpt classic fp32": (recipe_of_ckpt, ("classic", "fp32")),
    "ckpt classic auto": (recipe_of_ckpt, ("classic", "auto")),
    "ckpt fast auto": (recipe_of_ckpt, ("fast", "auto")),
}


def seeded(way: str, images: Images, batches: int | None) -> Epochs:
    """The epochs of a way; in a process of its own."""
    torch.manual_seed(1)
    function, arguments = WAYS[way]
    return function(images, batches, *arguments)


def main() -> None:
    """Train all ways in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batches", type=int, help="steps of each epoch; by default all")
    parser.add_argument("--only", help="names of ways, separated by semicolons")
    options = parse_options(parser, epochs=1)
    names = options.only.split(";") if options.only else list(WAYS)
    if options.quick and find_spec("lightning_fabric") is None:
        print("quick: without (b), lightning-fabric is not installed (the extra `bench` has it)")
        names = [name for name in names if "Fabric" not in name]
    with find_images(quick=options.quick) as images:
        kind = Here if options.quick else Apart
        ways = {name: kind(seeded, name, images, options.batches) for name in names}
        found: dict[str, list[Any]] = {name: [] for name in names}
        for _ in range(options.epochs):
            for name, way in ways.items():
                if turn := way.turn():
                    found[name].append(turn)
                    print(name, turn, file=sys.stderr, flush=True)
        count = len(images.load().train)
        print_table(found, {name: way.start_up for name, way in ways.items()}, count)
    print(f"\n{options.epochs} epochs of each at most, {torch.get_num_threads()} threads")
    print("wished: 2.8, better 3.5 times (a), with bfloat16")


def print_table(found: dict[str, list[Any]], start_up: dict[str, float], count: int) -> None:
    """A row for each way; an epoch has `count` images."""
    first = next(iter(found))
    rows = []
    for name, turns in found.items():
        speeds = [speed for (speed, _), _ in turns]
        scores = [score for (_, score), _ in turns]
        ratios = [speed / other[0][0] for speed, other in zip(speeds, found[first], strict=False)]
        seconds, to_99 = start_up[name], None
        last = f"{scores[-1]:.2%}" if scores[-1] else ""
        for speed, score in zip(speeds, scores, strict=True):
            seconds += count / speed
            to_99 = to_99 or (seconds if score >= 0.99 else None)
        rows.append([
            name, f"{median(speeds):,.0f}", f"{median(ratios):.2f}",
            f"{min(ratios):.2f}-{max(ratios):.2f}", f"{start_up[name]:.1f}", f"{turns[-1][1]:,.0f}",
            f"{to_99:.0f}" if to_99 else f"> {seconds:.0f}", last,
        ])  # fmt: skip
    heads = ["way", "images/s", "× first", "spread", "start s", "peak MB", "s to 99 %", "last"]
    print(tabulate(rows, heads, disable_numparse=True))


if __name__ == "__main__":
    main()
