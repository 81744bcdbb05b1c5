"""Optimizer, schedule and average of a recipe: what turns gradients into weights."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ckpt.train.recipes.recipe import Recipe

Tensors = tuple[Tensor, ...] | list[Tensor]
EVERY_STEP = ("cosine", "onecycle")  # schedules that advance with every step; others by epoch


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer for all parameters of `model`."""
    optimizers: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adadelta": torch.optim.Adadelta,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "sgd": torch.optim.SGD,
    }
    more = {"momentum": recipe.momentum, "nesterov": recipe.momentum > 0}
    return optimizers[recipe.optimizer](
        model.parameters(),
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        **(more if recipe.optimizer == "sgd" else {}),
    )


def build_schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int
) -> lr_scheduler.LRScheduler:
    """The recipe's schedule.

    Args:
        optimizer: Its learning rate changes.
        recipe: ``step`` multiplies it after every epoch; ``cosine`` takes it to 0 over all
            steps; ``onecycle`` raises it to `lr` in the first quarter of the steps, at least in
            one, then lowers it; with one or two steps in all it stays `lr`.
        steps: Of the whole run, skipped ones included.
    """
    match recipe.schedule:
        case "step":
            return lr_scheduler.StepLR(optimizer, step_size=1, gamma=recipe.lr_decay)
        case "cosine":
            return lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        case "onecycle" if steps > 2:  # torch divides by zero, or never reaches the top
            return lr_scheduler.OneCycleLR(
                optimizer, max_lr=recipe.lr, total_steps=steps, pct_start=max(0.25, 2 / steps),
                cycle_momentum=False,
            )  # fmt: skip
    return lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)


def build_average(model: nn.Module, recipe: Recipe) -> AveragedModel | None:
    """The recipe's moving average of the weights, buffers included; None without one.

    Counters, as BatchNorm's of its batches, are not averaged but copied.
    """
    if not recipe.ema:
        return None
    decay = get_ema_multi_avg_fn(recipe.ema)  # type: ignore[no-untyped-call]

    def average(averages: Tensors, now: Tensors, steps: Tensor | int) -> None:
        if averages[0].is_floating_point() or averages[0].is_complex():  # all have one dtype
            decay(averages, now, steps)
        else:
            torch._foreach_copy_(averages, now)

    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)
