"""Steps on trial, before a run: the precision that is fast, the micro-batch that fits.

torch's float32 is the reference; a lower precision, autocast to bf16 or fp16, has to be faster by
more than a tenth to be chosen. Trials use scratch copies of the model and restore the random
generators, so that they change no weights.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from time import perf_counter

import torch
from torch import nn

from ckpt.train.data.normalisation import MicroBatch
from ckpt.train.loop import Trainer
from ckpt.train.memory.room import available_bytes, peak_growth
from ckpt.train.memory.size import SHORT, MicroBatchSize, is_out_of_memory
from ckpt.train.random_numbers import restored
from ckpt.train.recipes.recipe import Recipe

_ROUNDS, _WARM_UP = 9, 3  # steps of each; about a second in all on two CPU cores
_HOPELESS = 3.0  # times as slow twice: a CPU without such arithmetic takes seconds for a step
WORTH_IT = 1.1  # a speed-up below may be noise
_FIRST = 8  # samples at most that memory is first tried with
_FILLED = 0.8  # of the memory that is left; the rest is for what a trial does not meet


@dataclass(frozen=True, slots=True)
class Precision:
    """A choice, ``fp32``, ``bf16`` or ``fp16``, and the reason in one phrase.

    `milliseconds` has the median of a step of one micro-batch, for each precision that was timed.
    """

    name: str
    why: str
    milliseconds: dict[str, float] = field(default_factory=dict)


def choose_precision(recipe: Recipe, model: nn.Module, batch: MicroBatch) -> Precision:
    """The recipe's precision, or for ``auto`` the faster one in a few steps of each.

    Args:
        recipe: Its optimizer is used in the timed steps.
        model: On the device; it does not change.
        batch: A micro-batch on the device.
    """
    if recipe.precision != "auto":
        return Precision(recipe.precision, "as asked")
    lower = lower_precision(batch[0].device)
    size = MicroBatchSize(len(batch[1]), adapts=recipe.micro_batch == "auto")
    while True:
        try:
            tried = batch[0][: size.now], batch[1][: size.now]
            milliseconds = _time(("fp32", lower), recipe, model, tried)
            break
        except SHORT as error:
            if not is_out_of_memory(error):
                raise
            size.halve(error)
    ratio = milliseconds["fp32"] / milliseconds[lower]
    if ratio > WORTH_IT:
        return Precision(lower, f"timed: {ratio:.1f} × fp32", milliseconds)
    return Precision("fp32", f"timed: {lower} is {ratio:.1f} × fp32", milliseconds)


def lower_precision(device: torch.device) -> str:
    """``bf16``, or ``fp16`` on a GPU before Ampere, which has no bfloat16."""
    has_bf16 = device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has_bf16 else "fp16"


def first_size(
    recipe: Recipe, model: nn.Module, batch: Callable[[int], MicroBatch], most: int
) -> tuple[int, int | None]:
    """The largest micro-batch that is expected to fit: `most`, or that halved some times.

    A system that kills a process says nothing that one could halve at. So sizes are tried from a
    small one on, and doubled while twice the growth of this process fits into what is left.

    Args:
        recipe: Its optimizer is used.
        model: On a CPU; it does not change.
        batch: Makes micro-batches of so many samples.
        most: Samples, at least 1.

    Returns:
        The size, and the bytes that were left; None where the system does not say that.
    """
    sizes = [most]
    while sizes[-1] > _FIRST:
        sizes.append(sizes[-1] // 2)
    recipe = replace(recipe, schedule="constant", precision="fp32")
    with restored(batch(1)[0].device):
        trainer = Trainer(copy.deepcopy(model).train(), "fp32", recipe, checks=False)
        fits = _fits(trainer, batch(sizes[-1]))  # gradients and the optimizer's state come to stay
        left, fitting = available_bytes(), sizes[-1]
        with peak_growth() as growth:
            for size, following in pairwise(reversed(sizes)):
                if not (fits and _fits(trainer, batch(size))):
                    return fitting, left
                fitting, grown = size, growth()
                if left is None or grown is None:
                    return most, None
                if grown * following / size > _FILLED * left:
                    return size, left
    return most, left


def _fits(trainer: Trainer, batch: MicroBatch) -> bool:
    """Whether a step runs without an error about memory."""
    try:
        take_step(trainer, [batch])
    except SHORT as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def take_step(trainer: Trainer, batches: Sequence[MicroBatch]) -> None:
    """Take a step of one window outside of a run."""
    trainer.optimizer.zero_grad(set_to_none=True)
    trainer.accumulate(batches, sum(len(labels) for _, labels in batches))
    trainer.step()


def _time(
    names: tuple[str, ...], recipe: Recipe, model: nn.Module, batch: MicroBatch
) -> dict[str, float]:
    """Milliseconds of a step; the precisions take turns, so that both meet the same noise."""
    images = batch[0]
    recipe = replace(recipe, schedule="constant")  # the others need the number of steps
    with restored(images.device):
        clocks = {
            name: _timed_steps(
                Trainer(copy.deepcopy(model).train(), name, recipe, checks=False), batch
            )
            for name in names
        }
        rounds: list[dict[str, float]] = []
        while len(rounds) < _ROUNDS and not _is_hopeless(rounds):
            rounds.append({name: next(clock) for name, clock in clocks.items()})
    return {name: round(median(turn[name] for turn in rounds) * 1000, 3) for name in names}


def _is_hopeless(rounds: Sequence[Mapping[str, float]]) -> bool:
    """Whether each precision after the first was far slower in both of the first two rounds."""
    return len(rounds) == 2 and all(
        min(others) > _HOPELESS * first for first, *others in (turn.values() for turn in rounds)
    )


def _timed_steps(trainer: Trainer, batch: MicroBatch) -> Iterator[float]:
    """Seconds of one step after another, without the first ones."""
    for turn in range(_WARM_UP + _ROUNDS):
        seconds = step_seconds(trainer, [batch])
        if turn >= _WARM_UP:
            yield seconds


def step_seconds(trainer: Trainer, batches: Sequence[MicroBatch]) -> float:
    """Take a step, and say how long the device was busy with it."""
    wait(trainer.device)
    start = perf_counter()
    take_step(trainer, batches)
    wait(trainer.device)
    return perf_counter() - start


def wait(device: torch.device) -> None:
    """Wait until the device has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
