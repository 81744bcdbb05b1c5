"""What two processes do in test_sharded.py; started by torchrun, writes into its folder."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ckpt.errors import InterruptedTrainingError
from ckpt.train.batches import Window
from ckpt.train.data.windows import shares
from ckpt.train.loop import Trainer
from ckpt.train.memory.size import MicroBatchSize
from ckpt.train.processes import joined, started_by_torchrun
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.run import train
from ckpt.train.sharding import local
from ckpt.train.state import read_state, states_of
from ckpt.train.weights import portable
from tests.train.networks import ALIKE, APART, CLASSES
from tests.train.two_processes import Stops

ME = started_by_torchrun()
# Samples of windows: shares of 6 and 5 are two micro-batches and one; the third has one sample.
SIZES, MICRO = (12, 11, 1, 7), 5
AVERAGED = {"optimizer": "sgd", "lr": 0.1, "clip": 0.05, "ema": 0.5, "schedule": "cosine"}

# Name of the case: network, settings of the recipe.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"sgd, {name}": (name, {"optimizer": "sgd", "lr": 0.1}) for name in ALIKE},
    "adadelta": ("mlp", {"optimizer": "adadelta", "clip": 0.05, "schedule": "step"}),
    "adam": ("mlp", {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.1}),
    "adamw": ("mlp", {"optimizer": "adamw", "lr": 0.01, "clip": 0.05, "ema": 0.9}),
    "clipped average": ("tied", AVERAGED),
}  # fmt: skip
# Cases without a plain loop: beside DDP.
BESIDE: dict[str, tuple[str, dict[str, Any]]] = {
    "fp16": ("mlp", {"precision": "fp16", "clip": 0.05}),
    "bf16": ("mlp", {"precision": "bf16", "clip": 0.05}),
    "BatchNorm": ("BatchNorm", {"ema": 0.5}),
    "BatchNorm, frozen": ("BatchNorm", {"batch_norm": "frozen"}),
    "dropout": ("dropout", {}),
    "checkpointing": ("checkpointing", {}),
    "blocks": ("blocks", {}),
    "blocks, recomputed": ("blocks", {"gradient_checkpointing": True}),
}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(64, 64)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.inner(hidden).tanh() + hidden


class Blocks(nn.Module):
    """Three blocks: two are shards of their own, the third shares a matrix with another module."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(Block(), Block(), Block())
        self.twice, self.head = nn.Linear(64, 64), nn.Linear(64, CLASSES)
        self.twice.weight = self.layers[2].inner.weight

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.twice(self.layers(images.flatten(1)))).log_softmax(1)


NETWORKS = {**ALIKE, **APART, "blocks": Blocks}


def epochs(dtype: torch.dtype) -> list[list[tuple[Tensor, Tensor]]]:
    generator = torch.Generator().manual_seed(11)

    def window(size: int) -> tuple[Tensor, Tensor]:
        images = torch.randn(size, 1, 8, 8, generator=generator, dtype=torch.float64)
        return images.to(dtype), torch.randint(0, CLASSES, (size,), generator=generator)

    return [[window(size) for size in SIZES] for _ in range(2)]


def network(name: str, precision: str = "fp32") -> nn.Module:
    torch.manual_seed(5)
    model = NETWORKS[name]().train()
    return model.double() if precision == "fp32" else model


def share_of(images: Tensor, labels: Tensor) -> Window:
    """A window of all samples as this process sees it."""
    whole, mine = next(shares(len(labels), len(labels), rank=ME.rank, count=ME.count))
    most = len(next(shares(len(labels), len(labels), rank=0, count=ME.count))[1])
    chosen = mine or whole[:1]
    mine_images, truth = images[chosen.start : chosen.stop], labels[chosen.start : chosen.stop]
    return Window(len(whole), len(mine), lambda part: (mine_images[part], truth[part]), most)


def trained(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Weights, gradient norms of the epochs, and the parts of this process."""
    recipe = Recipe(epochs=2, **{"schedule": "constant", "precision": "fp32", **settings})
    precision = recipe.precision
    model = network(name, precision)
    trainer = Trainer(
        model, precision, recipe, windows=len(SIZES), processes=ME, size=MicroBatchSize(MICRO)
    )
    norms = []
    torch.manual_seed(ME.rank)
    for windows in epochs(torch.float64 if precision == "fp32" else torch.float32):
        progress = trainer.new_epoch()
        for _ in trainer.steps([share_of(*window) for window in windows], progress):
            pass
        norms.append(trainer.end_epoch(progress)[1])
    state = states_of(trainer)
    kept = [local(value).numel() for value in trainer.model.parameters()]
    for values in trainer.optimizer.state.values():
        kept += [local(value).numel() for value in values.values() if value.dim()]
    return {
        "weights": portable(trainer.result),
        "norms": norms,
        "kept": sum(kept),
        "state": state["optimizer"]["state"],
    }


def runs(out: Path, model: str) -> None:
    """Whole runs by both ways, and one that is interrupted and resumed."""
    recipe = Recipe(
        model=model, dataset="digits", epochs=2, batch_size=20, accumulate=3, precision="fp32",
        holdout=0.1, ema=0.9, clip=1.0, device="cpu", parallel="fsdp", keep="both",
    )  # fmt: skip
    train(recipe, out / "fsdp.pt", processes=ME)
    train(replace(recipe, parallel="ddp"), out / "ddp.pt", processes=ME)
    for after in (1, 24):  # of 22 windows an epoch
        with pytest.raises(InterruptedTrainingError):
            train(recipe, out / "never.pt", keeper=Stops(out / "s", after), processes=ME)
        state = read_state(out / "s")
        train(state.recipe, out / f"resumed{after}.pt", resumed=state, processes=ME)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    with joined(ME):
        found = {
            name: trained(network_name, {**settings, "parallel": "fsdp"})
            for name, (network_name, settings) in CASES.items()
        }
        for name, (network_name, settings) in BESIDE.items():
            for parallel in ("ddp", "fsdp"):
                asked = {"optimizer": "sgd", "lr": 0.1, **settings, "parallel": parallel}
                found[f"{name}, {parallel}"] = trained(network_name, asked)
        torch.save(found, folder / f"cases{ME.rank}.pt")
        runs(folder, sys.argv[2])
