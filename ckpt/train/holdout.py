"""The hold-out: training images that are scored, not trained on.

It decides which epoch was best, and when a run is over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import torch

from ckpt.errors import UsageError
from ckpt.train.data.samples import Samples
from ckpt.train.data.windows import epoch_seed
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.watch.events import Epoch


@dataclass(frozen=True, slots=True)
class Best:
    """An epoch, from 1, and its state_dict as `weights.portable` returns it."""

    epoch: int
    weights: Mapping[str, Any]


def hold_out(train: Samples, fraction: float, *, seed: int) -> tuple[Samples, Samples]:
    """Split off a fraction of the training images, drawn once by the seed.

    Both parts keep the order of the images.

    Raises:
        UsageError: One of them would have no image.
    """
    count = round(len(train) * fraction)
    if fraction and not 0 < count < len(train):
        raise UsageError(
            f"holdout is {fraction}, which is {count:,} of {len(train):,} images; expected some "
            "to hold out and some to train on"
        )
    generator = torch.Generator().manual_seed(epoch_seed("hold-out", seed, 0))
    drawn = torch.zeros(len(train), dtype=torch.bool)
    drawn[torch.randperm(len(train), generator=generator)[:count]] = True
    return (train.only(~drawn) if count else train), train.only(drawn)


def best_epoch(curves: Sequence[Epoch]) -> int:
    """Number of the epoch with the lowest loss on the hold-out, the earliest of equals.

    NaN is never lower; without a hold-out it is the last one.
    """
    losses = [(of.holdout_loss, of.epoch) for of in curves if of.holdout_loss is not None]
    return min((it for it in losses if not isnan(it[0])), default=(0, curves[-1].epoch))[1]


def is_over(curves: Sequence[Epoch], recipe: Recipe) -> bool:
    """Whether all epochs are done, or `patience` of them had no lower loss."""
    stalled = len(curves) - best_epoch(curves) if curves else 0
    return len(curves) >= recipe.epochs or 0 < recipe.patience <= stalled
