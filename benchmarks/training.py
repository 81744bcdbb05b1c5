"""Measure training here, beside the public PyTorch example and beside Lightning Fabric.

    CKPT_DATA=/path/to/data python benchmarks/training.py [--epochs 6] [--only NAME,...]
                                                          [--quick]

The same network on MNIST, each in a process of its own: (a) the public PyTorch MNIST example's
way, a DataLoader over PIL images with ToTensor and Normalize, batch 64, shuffled, Adadelta; (b)
Lightning Fabric around the same; and the recipes of ckpt. All are scored on the test images after
each epoch, which is not counted in the times. Seconds to 99 % is the time of the epochs until
that score. A training of ckpt itself reads the test images once; this is to compare.

Source of (a): github.com/pytorch/examples, mnist/main.py, as of 2025, without CUDA.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from time import perf_counter
from typing import Any, Literal

import torch
from apart import apart, here
from epochs import train_epoch
from images import Images, find_images
from quick import parse_options
from tabulate import tabulate
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from ckpt.definitions import find_definition
from ckpt.train.batches import Batches
from ckpt.train.loop import Trainer, evaluate
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.recipes.recipe_file import read_recipe
from ckpt.train.trials import choose_precision

NET = find_definition("ckpt.models.mnist_cnn:Net")
Epochs = Iterator[tuple[float, float]]  # seconds of one, accuracy after it


def public_example(
    images: Images, fabric_precision: Literal["32-true", "bf16-mixed"] | None = None
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
    while True:
        began = perf_counter()
        model.train()
        for batch, labels in loader:
            optimizer.zero_grad()
            backward(functional.nll_loss(model(batch), labels))
            optimizer.step()
        scheduler.step()
        yield perf_counter() - began, accuracy(model, test)


def accuracy(model: nn.Module, batches: Any) -> float:
    """In [0, 1], over all test images."""
    model.eval()
    with torch.inference_mode():
        hits = [model(images).argmax(1) == labels for images, labels in batches]
    return float(torch.cat(hits).float().mean())


def recipe_of_ckpt(images: Images, name: str, precision: str) -> Epochs:
    """The trainer of `ckpt train`, an epoch at a time."""
    recipe = Recipe(**{**read_recipe(name), "dataset": images.name, "precision": precision})
    dataset = images.load()
    batches = Batches(dataset, recipe, torch.device("cpu"))
    torch.manual_seed(recipe.seed)
    model = NET.build().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    chosen = choose_precision(recipe, model, batches.first_images(64)).name
    trainer = Trainer(model, chosen, recipe, windows=batches.window_count)
    for epoch in range(1, recipe.epochs + 1):
        began = perf_counter()
        train_epoch(trainer, batches.windows(epoch))
        seconds = perf_counter() - began
        score = evaluate(model, batches.test())
        yield seconds, score.accuracy


WAYS: dict[str, tuple[Callable[..., Epochs], tuple[str, ...]]] = {
    "(a) public example": (public_example, ()),
    "(b) Fabric 32-true": (public_example, ("32-true",)),
    "(b) Fabric bf16-mixed": (public_example, ("bf16-mixed",)),
    "ckpt classic fp32": (recipe_of_ckpt, ("classic", "fp32")),
    "ckpt classic auto": (recipe_of_ckpt, ("classic", "auto")),
    "ckpt fast auto": (recipe_of_ckpt, ("fast", "auto")),
}


def measure(way: str, images: Images, epochs: int) -> dict[str, Any]:
    """Train for some epochs; in a process of its own."""
    torch.manual_seed(1)
    function, arguments = WAYS[way]
    steps = function(images, *arguments)
    done = [step for step, _ in zip(steps, range(epochs), strict=False)]
    seconds, scores = zip(*done, strict=True)
    to_99 = next((sum(seconds[: at + 1]) for at, s in enumerate(scores) if s >= 0.99), None)
    return {"seconds": sum(seconds) / len(seconds), "scores": scores, "to_99": to_99}


def main() -> None:
    """Train all ways, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--only", help="names of ways, with commas")
    options = parse_options(parser, epochs=1)
    names = options.only.split(",") if options.only else list(WAYS)
    if options.quick and find_spec("lightning_fabric") is None:
        print("quick: without (b), lightning-fabric is not installed (the extra `bench` has it)")
        names = [name for name in names if "Fabric" not in name]
    with find_images(quick=options.quick) as images:
        count = len(images.load().train)
        found: dict[str, dict[str, Any]] = {}
        for name in names:
            run = here if options.quick else apart
            found[name] = run(measure, name, images, options.epochs)
            print(name, found[name], file=sys.stderr, flush=True)
    print_table(found, count)
    print(f"\n{options.epochs} epochs of each at most, {torch.get_num_threads()} threads")
    print("target: at least 2 times (a) and (b) at the same accuracy")


def print_table(found: dict[str, dict[str, Any]], count: int) -> None:
    """A row for each way; an epoch has `count` images."""
    names = list(found)
    base = found[names[0]]["seconds"]
    rows = [
        [
            name,
            f"{count / each['seconds']:,.0f}",
            f"{each['seconds']:.1f}",
            f"{base / each['seconds']:.2f}",
            f"{each['peak_mb']:,.0f}",
            f"{each['to_99']:.0f}"
            if each["to_99"]
            else f"> {each['seconds'] * len(each['scores']):.0f}",
            f"{max(each['scores']):.2%}",
        ]
        for name, each in found.items()
    ]
    heads = ["way", "images/s", "s/epoch", f"× {names[0]}", "peak MB", "s to 99 %", "best"]
    print(tabulate(rows, heads, disable_numparse=True))


if __name__ == "__main__":
    main()
