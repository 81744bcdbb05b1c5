"""The training loop: windows of samples become steps.

Law: a window of N samples gives the gradient of one batch of N, however it is cut into
micro-batches. Each micro-batch backpropagates ``loss_sum * world_size / N``: dividing by
the number of micro-batches instead would give the samples of a short one more weight.
Nothing here reads a number from the device within an epoch, and no graph outlives its
micro-batch. Processes that share a window average their gradients once, with the last
micro-batch.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import nll_loss
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from ckpt.train.memory import MicroBatchSize, is_out_of_memory
from ckpt.train.optimisation import Schedule
from ckpt.train.processes import ALONE, Processes

MicroBatch = tuple[Tensor, Tensor]  # (b, c, h, w) float32 normalised, (b,) int64
IGNORED = -100  # a label that gives no loss and no gradient: nll_loss's ignore_index


@dataclass(frozen=True, slots=True)
class Window:
    """What one step sees.

    Attributes:
        samples: Of all processes.
        micro_batches: Of this process; made as they are asked for, and anew each time.
        here: Samples of this process; None for all of them.
    """

    samples: int
    micro_batches: Iterable[MicroBatch]
    here: int | None = None


@dataclass(slots=True)
class Progress:
    """How far an epoch is, at a window border.

    Attributes:
        tally: ``(2,)`` float64, on the device: sum of losses, correct predictions.
        samples: Seen so far.
        windows: Done so far.
        steps: Of the optimizer, the skipped ones not among them.
    """

    tally: Tensor
    samples: int = 0
    windows: int = 0
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """An epoch's sums, as numbers."""

    loss_sum: float
    correct: int
    samples: int
    windows: int
    steps: int


@dataclass(frozen=True, slots=True)
class Trainer:
    """A model with all that changes it.

    Attributes:
        scaler: Disabled for fp32 and bf16, so that one path serves all precisions.
        autocast: Entered around every forward pass.
        kernels: Entered likewise, in training: faster forms of torch's own operations.
        schedule: Steps once an epoch, or with every step that happened.
        clip: Largest norm of a window's gradient; 0 for any.
        average: Of the weights; follows every step that happened.
        processes: They average their gradients.
        parallel: The model as it averages them; None for one process.
        size: Of the micro-batches, if it may change.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    autocast: AbstractContextManager[object]
    kernels: AbstractContextManager[object] = field(default_factory=nullcontext)
    clip: float = 0.0
    average: AveragedModel | None = None
    processes: Processes = ALONE
    parallel: DistributedDataParallel | None = None
    size: MicroBatchSize | None = None
    _steps: list[None] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        # The hook runs only where the step really happens: GradScaler skips it when a
        # gradient is not finite, and says so nowhere that costs no device read.
        self.optimizer.register_step_post_hook(lambda *_: self._steps.append(None))

    def train_epoch(
        self,
        windows: Iterable[Window],
        seen: Callable[[Progress], None],
        progress: Progress | None = None,
    ) -> Totals:
        """One pass: a step per window, then one of the schedule if any step happened.

        Args:
            windows: Of the epoch, those that `progress` counts left out.
            seen: Called after each window with how far the epoch is.
            progress: Where an interrupted epoch goes on; None begins one.
        """
        self.model.train()
        self._steps.clear()
        at = progress or Progress(self._tally())
        at.tally, steps = at.tally.to(device_of(self.model)), at.steps
        for window in windows:
            self.optimizer.zero_grad(set_to_none=True)
            at.tally += self.accumulate_in_memory(window)  # (2,) loss sum, correct
            self.step()
            at.samples, at.windows = at.samples + window.samples, at.windows + 1
            at.steps = steps + len(self._steps)
            seen(at)
        if at.steps and not self.schedule.every_step:
            self._end_epoch()
        # The epoch's one read from the device.
        loss_sum, correct = self.processes.total(at.tally).tolist()
        return Totals(loss_sum, int(correct), at.samples, at.windows, at.steps)

    def _end_epoch(self) -> None:
        with warnings.catch_warnings():
            # An epoch that was resumed at its very end has its steps in another process.
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            self.schedule.scheduler.step()

    def _tally(self) -> Tensor:
        return torch.zeros(2, dtype=torch.float64, device=device_of(self.model))

    def accumulate(self, window: Window) -> Tensor:
        """Add the window's mean gradient, scaled by `scaler`, to the parameters' ``.grad``.

        Returns:
            ``(2,)`` float64, detached, on the device: sum of losses, correct predictions.

        Raises:
            ValueError: The micro-batches do not hold `window.samples` samples.
        """
        tally = self._tally()
        samples = 0
        for (images, labels), is_last in _marking_last(window.micro_batches):
            with self._syncing(is_last):  # (b, c, h, w) float32, (b,) int64
                with self.autocast, self.kernels:
                    log_probs = (self.parallel or self.model)(images)  # (b, classes)
                loss_sum = loss_sum_of(log_probs, labels)  # () float32
                share = self.scaler.scale(loss_sum * self.processes.count / window.samples)
                share.backward()  # type: ignore[no-untyped-call]
            tally += tally_of(loss_sum, log_probs, labels)
            samples += len(labels)
        if samples != (window.samples if window.here is None else window.here or 1):
            raise ValueError(f"window of {window.samples} samples holds {samples}")
        return tally

    def _syncing(self, is_last: bool) -> AbstractContextManager[Any]:
        """Around forward and backward: only the window's last pass averages the gradients."""
        if self.parallel is None or is_last:
            return nullcontext()
        return self.parallel.no_sync()

    def accumulate_in_memory(self, window: Window) -> Tensor:
        """Accumulate, and where memory runs out begin the window anew in smaller micro-batches.

        Raises:
            OutOfMemoryError: They may not, or cannot, be smaller.
        """
        undo = self._undoing() if self.size is not None and self.size.adapts else None
        while True:
            try:
                return self.accumulate(window)
            except RuntimeError as error:
                if self.size is None or not is_out_of_memory(error):
                    raise
                self.size.halve(error)
            # Here the error is gone, and with it its frames, which hold the activations.
            if undo is not None:
                undo()

    def _undoing(self) -> Callable[[], None]:
        """What takes back all that a window's passes do: gradients, buffers, random numbers."""
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        device = device_of(self.model)
        of_cpu = torch.get_rng_state()
        of_cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

        def undo() -> None:
            self.optimizer.zero_grad(set_to_none=True)
            for buffer, before in buffers:
                buffer.copy_(before)
            torch.set_rng_state(of_cpu)
            if of_cuda is not None:
                torch.cuda.set_rng_state(of_cuda, device)
                torch.cuda.empty_cache()

        return undo

    def step(self) -> None:
        """Unscale once, clip, step unless a gradient is not finite, update the scale once.

        Learning rate and average move only if the step happened.
        """
        before = len(self._steps)
        self.scaler.unscale_(self.optimizer)
        if self.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if len(self._steps) > before:
            if self.schedule.every_step:
                self.schedule.scheduler.step()
            if self.average is not None:
                self.average.update_parameters(self.model)


def _marking_last(batches: Iterable[MicroBatch]) -> Iterator[tuple[MicroBatch, bool]]:
    """Each, and whether it is the last one; one is made ahead."""
    iterator = iter(batches)
    current = next(iterator, None)
    while current is not None:
        following = next(iterator, None)
        yield current, following is None
        current = following


def loss_sum_of(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Sum of negative log-likelihoods, in float32 at the least; ``()``, nats."""
    at_least_float32 = torch.promote_types(log_probs.dtype, torch.float32)
    return nll_loss(log_probs.to(at_least_float32), labels, reduction="sum")


def tally_of(loss_sum: Tensor, log_probs: Tensor, labels: Tensor) -> Tensor:
    """``(2,)`` float64 without a graph: loss sum, number of right predictions."""
    correct = (log_probs.detach().argmax(dim=1) == labels).sum()
    return torch.stack((loss_sum.detach().double(), correct.double()))


def evaluate(model: nn.Module, batches: Iterable[MicroBatch]) -> Totals:
    """Score a model as it is, in its own precision; one read from the device."""
    model.eval()
    tally = torch.zeros(2, dtype=torch.float64, device=device_of(model))
    samples = 0
    with torch.inference_mode():
        for images, labels in batches:
            log_probs = model(images)  # (b, classes)
            tally = tally + tally_of(loss_sum_of(log_probs, labels), log_probs, labels)
            samples += len(labels)
    loss_sum, correct = tally.tolist()
    return Totals(loss_sum, int(correct), samples, windows=0, steps=0)


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters are."""
    return next(model.parameters()).device
