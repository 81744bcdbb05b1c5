"""From windows to optimizer steps.

Law: a window of N samples has the gradient of one batch of N, however it is cut into
micro-batches. Each micro-batch backpropagates ``loss_sum * world_size / N``: dividing by
the number of micro-batches instead would give the samples of a short one more weight.
BatchNorm in training is the exception: it normalises by the micro-batch.
Nothing here reads a number from the device within an epoch, and no graph outlives its
micro-batch. Processes that share a window average their gradients once, with the last
micro-batch.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import isfinite, nan

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from ckpt.definitions.importing import own_code
from ckpt.errors import FitError
from ckpt.train.batches import Window
from ckpt.train.data.normalisation import MicroBatch
from ckpt.train.kernels import quicken
from ckpt.train.losses import loss_sum, scores_of
from ckpt.train.memory.recomputing import blocks_of, recompute_blocks
from ckpt.train.memory.size import SHORT, MicroBatchSize, is_out_of_memory
from ckpt.train.optimisation import (
    apply_gradient,
    build_average,
    build_optimizer,
    build_schedule,
    moves_every_step,
)
from ckpt.train.processes import ALONE, Processes
from ckpt.train.random_numbers import generators, restore
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.sharding import average_gradients, follow_first, shard

LOWER = {"bf16": torch.bfloat16, "fp16": torch.float16}
_SKIPS = 40  # steps in a row: a scale of 65,536, halved so often, is below any gradient


class NotFiniteError(ArithmeticError):
    """What is not finite, e.g. ``the loss is nan``; the weights are those before the step."""


@dataclass(slots=True)
class EpochProgress:
    """How much of an epoch is done, after one of its windows.

    Attributes:
        tally: ``(3,)`` float64, on the device: sum of losses, correct predictions, and the norms
            of the gradients, of all processes together.
        samples: Seen so far.
        windows: Done so far.
        steps: Optimizer steps, without the skipped ones.
        lr: Learning rate of its first step.
    """

    tally: Tensor
    lr: float
    samples: int = 0
    windows: int = 0
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Score:
    """Loss and accuracy over some samples, as sums."""

    loss_sum: float
    correct: int
    samples: int

    @property
    def loss(self) -> float:
        """Mean, in nats."""
        return self.loss_sum / self.samples

    @property
    def accuracy(self) -> float:
        """In [0, 1]."""
        return self.correct / self.samples


class Trainer:
    """A model with all that changes it.

    Args:
        model: On its device, where it stays; on a CPU two types of its modules get faster ones,
            and with gradient checkpointing its blocks another forward pass.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        recipe: Has the other settings; the loss ``auto`` is ``nll``.
        windows: Of an epoch, for schedules that advance with every step.
        processes: Their gradients are averaged.
        size: Of the micro-batches; by default the recipe's, which stays.
        checks: Whether a loss or gradient that is not finite is an error, where seeing it is free.

    Attributes:
        optimizer: As the recipe says.
        schedule: Advances once an epoch, or with every step that was not skipped.
        scaler: Disabled for fp32 and bf16, so that one path serves all precisions.
        average: Moving average of the weights; follows every step that was not skipped.
        parallel: The model as DDP wraps it; None for one process, and for shards.
        is_sharded: Whether each process has a part of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        precision: str,
        recipe: Recipe,
        *,
        windows: int = 1,
        processes: Processes = ALONE,
        size: MicroBatchSize | None = None,
        checks: bool = True,
    ) -> None:
        self.model, self.processes, self.device = model, processes, _device_of(model)
        self.size = size or MicroBatchSize(recipe.batch_size)
        if self.device.type == "cpu":
            quicken(model)
        if recipe.gradient_checkpointing:
            recompute_blocks(model, self.device, recipe.model)
        self.average = build_average(model, recipe)
        self.is_sharded = processes.count > 1 and recipe.parallel == "fsdp"
        if self.is_sharded:
            for each in [model] if self.average is None else [model, self.average.module]:
                shard(each, [block for _, block in blocks_of(each)], self.device)
        several = processes.count > 1 and not self.is_sharded
        self.parallel = DistributedDataParallel(model) if several else None
        self.optimizer = build_optimizer(model, recipe)
        self.schedule = build_schedule(self.optimizer, recipe, recipe.epochs * windows)
        # bfloat16 has float32's range: its gradients need no scaling.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        lower = LOWER.get(precision)
        self._autocast = torch.autocast(self.device.type, dtype=lower, enabled=lower is not None)
        self._clip, self._every_step = recipe.clip, moves_every_step(recipe)
        self._smoothing = recipe.label_smoothing
        self._ref, self._loss = recipe.model, "nll" if recipe.loss == "auto" else recipe.loss
        self._norms, self._frozen = batch_norms(model), recipe.batch_norm == "frozen"
        # A read of the device's memory costs nothing on a CPU; on CUDA the epoch's end tells.
        self._reads = checks and self.device.type == "cpu" and not self.scaler.is_enabled()
        self._taken, self._skipped = 0, 0  # steps; those in a row
        # The hook runs only if the step happens: GradScaler skips it when a gradient is not
        # finite, and reports that nowhere that costs no device read.
        self.optimizer.register_step_post_hook(self._count_step)

    @property
    def result(self) -> nn.Module:
        """The model to keep: the average of its weights, if the recipe asks for one."""
        return self.model if self.average is None else self.average.module

    def new_epoch(self) -> EpochProgress:
        """The progress of an epoch before its first window."""
        return EpochProgress(self._zeros(3), float(self.optimizer.param_groups[0]["lr"]))

    def steps(self, windows: Iterable[Window], progress: EpochProgress) -> Iterator[EpochProgress]:
        """Take a step for each window; `progress` is updated, and yielded, after each of them.

        Raises:
            NotFiniteError: As `step`; or on a CPU the window's loss is not finite. Parameters and
                buffers, as BatchNorm's statistics, are those before it then.
        """
        self.model.train()
        progress.tally = progress.tally.to(self.device)
        for window in windows:
            self.optimizer.zero_grad(set_to_none=True)
            restore_buffers = self._buffers() if self._reads else None
            try:
                scored = self.accumulate_window(window)  # (2,) loss sum, correct
                # Processes have to agree: the gradient is the same in all of them, the loss is not.
                if self._reads and self.processes.count == 1:
                    _expect_finite("the loss", scored[0])
                norm = self.step()
            except NotFiniteError:
                if restore_buffers:
                    restore_buffers()
                raise
            progress.tally[:2] += scored
            if norm is not None:
                progress.tally[2] += norm / self.processes.count  # the same in all of them
                progress.steps += 1
            progress.samples += window.samples
            progress.windows += 1
            yield progress

    def end_epoch(self, progress: EpochProgress) -> tuple[Score, float]:
        """Advance a schedule that moves once an epoch, and read the epoch's figures.

        Returns:
            Its score, and the mean of its gradients' norms; NaN if it took no step.

        Raises:
            NotFiniteError: The sum of the epoch's losses is not finite; in fp16 it may be, since
                such steps are skipped.
        """
        if progress.steps and not self._every_step:
            with warnings.catch_warnings():
                # An epoch that was resumed at its very end has its steps in another process.
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
                self.schedule.step()
        # The epoch's one read from the device.
        loss_sum, correct, norms = self.processes.total(progress.tally).tolist()
        if not self.scaler.is_enabled() and not isfinite(loss_sum):
            raise NotFiniteError(f"the loss is {loss_sum}")
        score = Score(loss_sum, int(correct), progress.samples)
        return score, norms / progress.steps if progress.steps else nan

    def accumulate_window(self, window: Window) -> Tensor:
        """Accumulate; if memory runs out, start the window again in smaller micro-batches.

        Raises:
            OutOfMemoryError: The micro-batches must not, or cannot, be smaller.
        """
        undo = self._undoing() if self.size.adapts else None
        if self.is_sharded:  # as DDP does
            follow_first(self.model.buffers())
        while True:
            try:
                size = self.size.now
                here = window.here + window.fillers(size)
                return self.accumulate(window.micro_batches(size), window.samples, here=here)
            except SHORT as error:
                if not is_out_of_memory(error):
                    raise
                self.size.halve(error)
            # Here the error is gone, and with it its frames, which hold the activations.
            if undo is not None:
                undo()

    def accumulate(
        self, micro_batches: Iterable[MicroBatch], samples: int, *, here: int | None = None
    ) -> Tensor:
        """Add a window's mean gradient, scaled by `scaler`, to the parameters' ``.grad``.

        Args:
            micro_batches: Of this process.
            samples: Of the window, in all processes.
            here: Those in this process, with fillers; None if they are all.

        Returns:
            ``(2,)`` float64, detached, on the device: sum of losses, correct predictions.

        Raises:
            ValueError: The micro-batches hold another number of samples.
            DefinitionError: The model's own code fails.
        """
        tally, seen = self._zeros(2), 0
        mine = samples if here is None else here
        for images, labels in micro_batches:  # (b, c, h, w) float32, (b,) int64
            seen += len(labels)
            # One image has no variance: a last one, or what memory allows.
            alone = len(labels) == 1 and (self.size.now > 1 or self.size.adapts)
            self._freeze(self._frozen or alone)
            with self._averaging(seen == mine), own_code(self._ref, passes=is_out_of_memory):
                with self._autocast:
                    output = (self.parallel or self.model)(images)
                losses, scored = _score(self._loss, output, labels, smoothing=self._smoothing)
                share = self.scaler.scale(losses * self.processes.count / samples)
                share.backward()
            tally += scored
        if seen != mine:
            raise ValueError(f"window of {samples} samples holds {seen}")
        return tally

    def _averaging(self, last: bool) -> AbstractContextManager[None]:
        """Average gradients by the window's last pass alone."""
        if self.is_sharded:
            average_gradients(self.model, last)
        return self.parallel.no_sync() if self.parallel and not last else nullcontext()

    def _freeze(self, frozen: bool) -> None:
        """Whether BatchNorm normalises by its running statistics, as in evaluation."""
        for norm in self._norms if self.model.training else ():
            norm.train(not frozen)

    def _zeros(self, count: int) -> Tensor:
        return torch.zeros(count, dtype=torch.float64, device=self.device)

    def _undoing(self) -> Callable[[], None]:
        """A function that undoes a window's passes: gradients, buffers, random numbers."""
        restore_buffers, states = self._buffers(), generators(self.device)

        def undo() -> None:
            self.optimizer.zero_grad(set_to_none=True)
            restore_buffers()
            restore(states, self.device)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

        return undo

    def _buffers(self) -> Callable[[], None]:
        """A function that brings back the present values of all buffers."""
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]

        def bring_back() -> None:
            for buffer, before in buffers:
                buffer.copy_(before)

        return bring_back

    def step(self) -> Tensor | None:
        """Unscale once, clip, step unless a gradient is not finite, update the scale once.

        Learning rate and average follow only if the step was not skipped.

        Returns:
            The norm of the gradient ``()`` before it was clipped; None if the step was skipped.

        Raises:
            NotFiniteError: The gradient is not finite: on a CPU in fp32 or bf16, whose gradients
                are not scaled; in fp16 in too many steps in a row.
            FitError: A gradient is sparse, whose norm torch does not give.
        """
        before = self._taken
        if not before:
            _expect_dense(self.model, self._ref)
        norm = apply_gradient(self.optimizer, self.scaler, clip=self._clip, check=self._check)
        if self._taken == before:
            self._skipped += 1
            if self._skipped == _SKIPS:
                raise NotFiniteError(f"the gradient was not finite in {_SKIPS} steps in a row")
            return None
        self._skipped = 0
        if self._every_step:
            self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return norm

    def _check(self, norm: Tensor) -> None:
        if self._reads:
            _expect_finite("the norm of the gradient", norm)

    def _count_step(self, *_: object) -> None:
        self._taken += 1


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """The modules whose output for one image depends on the others of its micro-batch."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def _expect_dense(model: nn.Module, ref: str) -> None:
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and parameter.grad.layout != torch.strided:
            hint = "sparse=False  in its nn.Embedding gives a dense one"
            raise FitError(f"{ref}: the gradient of {name} is sparse, expected dense", hint=hint)


def _expect_finite(name: str, value: Tensor) -> None:
    if not isfinite(number := value.item()):
        raise NotFiniteError(f"{name} is {number}")


def _score(
    loss: str, output: object, labels: Tensor, *, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Sum of the losses ``()``, and ``(2,)`` float64 without a graph: that sum, correct ones."""
    scores = scores_of(output)  # (b, classes)
    losses = loss_sum(loss, scores, labels, smoothing=smoothing)
    correct = (scores.detach().argmax(dim=1) == labels).sum()
    return losses, torch.stack((losses.detach().double(), correct.double()))


def evaluate(model: nn.Module, batches: Iterable[MicroBatch], loss: str = "nll") -> Score:
    """Score a model in its own precision, by a loss of `losses`; reads from the device once."""
    model.eval()
    tally = torch.zeros(2, dtype=torch.float64, device=_device_of(model))
    samples = 0
    with torch.inference_mode():
        for images, labels in batches:
            tally = tally + _score(loss, model(images), labels)[1]
            samples += len(labels)
    loss_sum, correct = tally.tolist()
    return Score(loss_sum, int(correct), samples)


def _device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
