"""What the images that are held out decide: which epoch was best, and when a run is over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

from ckpt.train.recipes.recipe import Recipe
from ckpt.train.watch.events import Epoch


@dataclass(frozen=True, slots=True)
class Best:
    """The epoch with the lowest loss on the hold-out so far.

    Attributes:
        epoch: From 1.
        weights: Its state_dict, as `weights.portable` gives it.
    """

    epoch: int
    weights: Mapping[str, Any]


def best_epoch(curves: Sequence[Epoch]) -> int:
    """Number of the epoch with the lowest loss on the hold-out, the earliest of equals.

    NaN is never lower; without a hold-out it is the last one.
    """
    losses = [(each.holdout_loss, each.epoch) for each in curves if each.holdout_loss is not None]
    numbers = [(loss, epoch) for loss, epoch in losses if not isnan(loss)]
    return min(numbers)[1] if numbers else curves[-1].epoch


def is_over(curves: Sequence[Epoch], recipe: Recipe) -> bool:
    """Whether all epochs are done, or `patience` of them brought nothing."""
    if not curves or len(curves) >= recipe.epochs:
        return len(curves) >= recipe.epochs
    return 0 < recipe.patience <= len(curves) - best_epoch(curves)
