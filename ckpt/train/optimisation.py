"""What turns gradients into weights: the step, and a recipe's optimizer, schedule and average."""

from collections.abc import Callable
from itertools import groupby
from math import cos, pi
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ckpt.train.recipes.recipe import Recipe
from ckpt.train.sharding import local, whole

Tensors = tuple[Tensor, ...] | list[Tensor]
EVERY_STEP = ("cosine", "onecycle")  # schedules that advance with every step; others by epoch


def apply_gradient(
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    *,
    clip: float,
    check: Callable[[Tensor], None] | None = None,
) -> Tensor | None:
    """Unscale once, clip, step unless a gradient is not finite, update the scale once.

    Args:
        optimizer: Its parameters have the gradient of a window, times the scale.
        scaler: Disabled for gradients that are not scaled, whose step is never skipped.
        clip: The largest norm of the gradient; 0 does not clip.
        check: Gets the norm of the gradient, and may raise before anything changes.

    Returns:
        The norm of the gradient ``()`` before it was clipped; None without `clip` and `check`.
    """
    scaler.unscale_(optimizer)
    norm = None
    if clip or check:
        parameters = [it for group in optimizer.param_groups for it in group["params"]]
        norm = nn.utils.get_total_norm([it.grad for it in parameters if it.grad is not None])
        if check:
            check(whole(norm))
        if clip:
            nn.utils.clip_grads_with_norm_(parameters, clip, norm)
    scaler.step(optimizer)
    scaler.update()
    return None if norm is None else whole(norm)


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer for all parameters of `model`, in the model's order."""
    optimizers: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adadelta": torch.optim.Adadelta,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "sgd": torch.optim.SGD,
    }
    more = {"momentum": recipe.momentum, "nesterov": recipe.momentum > 0}
    return optimizers[recipe.optimizer](
        _groups(model, recipe),
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        **(more if recipe.optimizer == "sgd" else {}),
    )


def _groups(model: nn.Module, recipe: Recipe) -> list[Any]:
    """The parameters, or neighbours that decay alike as groups: the order stays the model's.

    An optimizer's state knows parameters by their number, and so does whoever renames it.
    """
    if recipe.decay_on == "all":
        return list(model.parameters())
    alike = groupby(model.parameters(), key=lambda parameter: parameter.dim() >= 2)
    return [
        {"params": list(params), "weight_decay": recipe.weight_decay if decays else 0.0}
        for decays, params in alike
    ]


def moves_every_step(recipe: Recipe) -> bool:
    """Whether the learning rate changes with every step, or once an epoch."""
    return recipe.schedule in EVERY_STEP or recipe.warmup > 0


def build_schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int
) -> lr_scheduler.LRScheduler:
    """The recipe's schedule.

    Args:
        optimizer: Its learning rate changes.
        recipe: ``step`` multiplies it after every epoch; ``cosine`` takes it to 0 over all
            steps; ``onecycle`` raises it to `lr` in the first quarter of the steps, at least in
            one, then lowers it; with one or two steps in all it stays `lr`. With a warm-up all
            advance with every step.
        steps: Of the whole run, skipped ones included.
    """
    if recipe.warmup:
        factor = _factor_at(recipe, steps)
        return lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / recipe.warmup) * factor(step)
        )
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


def _factor_at(recipe: Recipe, steps: int) -> Callable[[int], float]:
    """The factor of a schedule's learning rate after some steps."""
    epoch = max(1, steps // recipe.epochs)
    factors: dict[str, Callable[[int], float]] = {
        "step": lambda step: recipe.lr_decay ** (step // epoch),
        "cosine": lambda step: (1 + cos(pi * step / steps)) / 2,
        "constant": lambda _: 1.0,
    }
    return factors[recipe.schedule]


def build_average(model: nn.Module, recipe: Recipe) -> AveragedModel | None:
    """The recipe's moving average of the weights, buffers included; None without one.

    Counters, as BatchNorm's of its batches, are not averaged but copied.
    """
    if not recipe.ema:
        return None
    decay = get_ema_multi_avg_fn(recipe.ema)

    def average(averages: Tensors, now: Tensors, steps: Tensor | int) -> None:
        averages, now = [*map(local, averages)], [*map(local, now)]
        if averages[0].is_floating_point() or averages[0].is_complex():  # all have one dtype
            decay(averages, now, steps)
        else:
            torch._foreach_copy_(averages, now)

    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)
