"""Gradient accumulation in any training loop: `accumulate`.

Law: a window of N samples has the gradient of one batch of N, however it is cut into
micro-batches, in one process or under DDP. The micro-batches of a window are fetched before its
first forward pass, because N must be known by then. A sample may be an image, a row or a token:
whatever `count` counts and the loss divides by.
No state is kept between two calls: model, optimizer, scaler, schedule and average are the
caller's, who saves them as in any loop. Nothing is changed in the model's own code.
BatchNorm in training is the exception: it normalises by the micro-batch.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from ckpt.errors import UsageError
from ckpt.train.tips.counting import length_of

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.amp import GradScaler
    from torch.nn.parallel import DistributedDataParallel
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from torch.optim.swa_utils import AveragedModel

T = TypeVar("T")
Reduction = Literal["mean", "sum"]
_LOOP = (
    "for batch in window:\n    with window.forward():\n        loss = …\n    window.backward(loss)"
)


def accumulate(
    batches: Iterable[T],
    model: "nn.Module",
    optimizer: "Optimizer",
    *,
    micro_batches: int,
    count: Callable[[T], float] | None = None,
    reduction: Reduction = "mean",
    precision: str = "fp32",
    clip: float = 0.0,
    scaler: "GradScaler | None" = None,
    schedule: "LRScheduler | None" = None,
    average: "AveragedModel | None" = None,
) -> "Windows[T]":
    """Take one optimizer step for every `micro_batches` batches of a loader.

    The step is taken when the last micro-batch of a window is done, and ``.grad`` is set to None
    before the first. The last window of a loader may be shorter and counts by its samples.

        for window in accumulate(loader, model, optimizer, micro_batches=4, precision="bf16"):
            for images, labels in window:
                with window.forward():
                    loss = cross_entropy(model(images), labels)
                window.backward(loss)

    Args:
        batches: A DataLoader, or anything that gives batches; each an object of its own.
        model: On its device; as `DistributedDataParallel` wraps it, if it does.
        optimizer: Steps once a window.
        micro_batches: Of a window, in each process.
        count: The number of samples that the loss of a batch is the mean of, e.g. its tokens that
            are not padding; by default the length of its tensors. Batches of 0 are left out.
        reduction: Whether losses are the ``mean`` or the ``sum`` over the samples of a batch.
        precision: ``fp32``, or autocast to ``bf16`` or ``fp16``.
        clip: Clip the gradient of a window to this norm; 0 does not clip.
        scaler: Required for fp16. Skips the step of a window whose gradient is not finite.
        schedule: Advances with every step that was not skipped.
        average: Follows every step that was not skipped.

    Raises:
        UsageError: A value that is not allowed.
    """
    _check(micro_batches, reduction, precision, clip)
    _check_scaler(scaler, precision, model)
    parallel = _parallel_parts(model)
    stepping = _Stepping(
        model, parallel, optimizer, reduction, precision, clip, scaler, schedule, average
    )
    return Windows(batches, micro_batches, count or length_of, stepping)


def _check(micro_batches: int, reduction: str, precision: str, clip: float) -> None:
    if micro_batches < 1:
        raise UsageError(f"micro_batches is {micro_batches}, expected at least 1")
    if reduction not in ("mean", "sum"):
        raise UsageError(f"reduction is {reduction}, expected mean or sum")
    if precision not in ("fp32", "bf16", "fp16"):
        raise UsageError(f"precision is {precision}, expected fp32, bf16 or fp16")
    if not clip >= 0:
        raise UsageError(f"clip is {clip}, expected 0 or more")


def _check_scaler(scaler: "GradScaler | None", precision: str, model: "nn.Module") -> None:
    """fp16 needs a scaler that scales; torch disables one for CUDA where there is none."""
    scales = scaler is not None and scaler.is_enabled()
    if precision == "fp16" and not scales:
        device = _parameter_of(model).device.type
        hint = f'scaler = torch.amp.GradScaler("{device}")  once, before the epochs'
        found = "a scaler" if scaler is None else "an enabled scaler; this one is disabled"
        raise UsageError(f"precision is fp16, which needs {found}", hint=hint)
    if precision != "fp16" and scales:
        raise UsageError(f"precision is {precision}, which needs no scaler", hint="leave it out")


def _parallel_parts(model: "nn.Module") -> "tuple[DistributedDataParallel, ...]":
    """What DDP wraps: the model itself, compiled or in another wrapper, or parts of it."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return ()
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
    from torch.nn.parallel import DistributedDataParallel

    modules = tuple(model.modules())
    if any(isinstance(each, FSDPModule | FullyShardedDataParallel) for each in modules):
        raise UsageError("the model is sharded by FSDP, expected DistributedDataParallel or none")
    return tuple(each for each in modules if isinstance(each, DistributedDataParallel))


class Windows(Generic[T]):
    """The windows of one pass over the batches.

    Attributes:
        samples: In this process, so far.
        steps: Optimizer steps so far.
        skipped: Windows without a step: their gradient was not finite, or they had no samples.
    """

    def __init__(
        self,
        batches: Iterable[T],
        micro_batches: int,
        count: Callable[[T], float],
        stepping: "_Stepping",
    ) -> None:
        self._batches, self._most, self._count = batches, micro_batches, count
        self._stepping = stepping
        self._loss_sum: Tensor | None = None
        self.samples, self.steps, self.skipped = 0.0, 0, 0

    def __len__(self) -> int:
        """Windows of a pass over a loader that knows its length."""
        return -(-len(self._batches) // self._most)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator["Window[T]"]:
        """Fetch one window after another.

        Raises:
            UsageError: A window was left before its step, or its samples cannot be counted.
        """
        iterator = iter(self._batches)
        latest: list[tuple[T, float]] = []
        while True:
            fetched = [(it, float(self._count(it))) for it in islice(iterator, self._most)]
            total, busy = self._stepping.totals(_sum(fetched), bool(fetched))
            if not busy:
                return
            if busy < self._stepping.processes and not latest:
                raise UsageError(
                    f"only {busy} of {self._stepping.processes} processes have batches",
                    hint="give each process at least one",
                )
            # The mean over no samples is 0 / 0, and so may be its gradient.
            held = [(batch, samples) for batch, samples in fetched if samples]
            latest = held[-1:] or latest or fetched[-1:]
            if total and not held:
                # Other processes have samples: this one takes part with a weight of 0.
                held = [(latest[0][0], 0.0)]
            window = Window(held, total, self._stepping, self._add)
            yield window
            if window.stepped is None:
                raise UsageError("the window was left before its step", hint=_LOOP)

    @property
    def loss(self) -> float:
        """Mean over the samples in this process so far; reads from the device."""
        if self._loss_sum is None or not self.samples:
            return float("nan")
        return self._loss_sum.item() / self.samples

    def _add(self, window: "Window[T]") -> None:
        """Count a window that is done."""
        self.samples += window.here
        self.steps += bool(window.stepped)
        self.skipped += not window.stepped
        if window.loss_sum is not None:
            so_far = self._loss_sum
            self._loss_sum = window.loss_sum if so_far is None else so_far + window.loss_sum


def _sum(counted: Sequence[tuple[T, float]]) -> float:
    return sum(samples for _, samples in counted)


class Window(Generic[T]):
    """The micro-batches of one optimizer step.

    Attributes:
        samples: N, in all processes.
        here: Those in this process.
        loss_sum: Sum of the losses in this process so far, on the device, without a graph.
        norm: Of the gradient before it was clipped; None until then and without `clip`.
        stepped: Whether the step was taken; None before the end of the window.
    """

    def __init__(
        self,
        held: Sequence[tuple[T, float]],
        samples: float,
        stepping: "_Stepping",
        done: "Callable[[Window[T]], None]",
    ) -> None:
        self._held, self._stepping, self._done = held, stepping, done
        self._now, self._passes, self._forwards = -1, 0, 0
        self.samples, self.here = samples, _sum(held)
        self.loss_sum: Tensor | None = None
        self.norm: Tensor | None = None
        self.stepped: bool | None = None

    def __len__(self) -> int:
        """Micro-batches in this process."""
        return len(self._held)

    def __iter__(self) -> Iterator[T]:
        """The batches; after the last one the step.

        Raises:
            UsageError: Twice, or a batch had no backward pass.
        """
        if self._now >= 0:
            raise UsageError("a window can be used once", hint=_LOOP)
        self._stepping.optimizer.zero_grad(set_to_none=True)
        for index, (batch, _) in enumerate(self._held):
            self._now = index
            yield batch
            if self._passes != index + 1:
                raise UsageError(
                    f"batch {index + 1} of the window had no backward pass", hint=_LOOP
                )
        self.stepped, self.norm = self._stepping.step() if self.samples else (False, None)
        self._done(self)

    @contextmanager
    def forward(self) -> Generator[None]:
        """The forward pass and the loss of a batch: autocast, and no reduction but the last."""
        self._forwards = self._now + 1
        with self._alone(), self._stepping.autocast():
            yield

    def backward(self, loss: "Tensor") -> None:
        """Add the share of a batch to the gradient of the window.

        Args:
            loss: ``()``, of the samples of the batch, as `reduction` says.

        Raises:
            UsageError: It is not a scalar, or not the loss of one forward pass of the batch.
        """
        if loss.numel() != 1:
            found, how = tuple(loss.shape), self._stepping.reduction
            raise UsageError(f"the loss has shape {found}, expected (), the {how} of the batch")
        if self._forwards != self._now + 1:
            raise UsageError("the forward pass was outside of window.forward()", hint=_LOOP)
        if self._passes != self._now:
            raise UsageError("a batch had two backward passes", hint="add their losses")
        _, samples = self._held[self._now]
        weight = samples if self._stepping.reduction == "mean" else float(samples > 0)
        with self._alone():
            self._stepping.backward(loss, weight / self.samples)
        self._passes += 1
        if samples:
            share = self._stepping.detached(loss) * weight
            self.loss_sum = share if self.loss_sum is None else self.loss_sum + share

    def _alone(self) -> AbstractContextManager[None]:
        """Gradients are averaged over the processes by the last pass of a window alone."""
        is_last = self._now == len(self._held) - 1
        return nullcontext() if is_last else self._stepping.alone()


@dataclass(frozen=True, slots=True)
class _Stepping:
    """The caller's objects, and what happens to them in a window."""

    model: "nn.Module"
    parallel: "tuple[DistributedDataParallel, ...]"
    optimizer: "Optimizer"
    reduction: Reduction
    precision: str
    clip: float
    scaler: "GradScaler | None"
    schedule: "LRScheduler | None"
    average: "AveragedModel | None"

    @property
    def processes(self) -> int:
        """Processes that share a window."""
        from torch import distributed

        return distributed.get_world_size(self.parallel[0].process_group) if self.parallel else 1

    def totals(self, samples: float, has_batches: bool) -> tuple[float, int]:
        """The samples of a window, and how many processes have batches for it."""
        if self.processes == 1:
            return samples, int(has_batches)
        import torch

        numbers = torch.tensor(
            [samples, has_batches], dtype=torch.float64, device=self._parameter.device
        )
        torch.distributed.all_reduce(numbers, group=self.parallel[0].process_group)
        total, busy = numbers.tolist()
        return total, int(busy)

    @contextmanager
    def alone(self) -> Generator[None]:
        """Passes whose gradients stay in this process."""
        with ExitStack() as stack:
            for each in self.parallel:
                stack.enter_context(each.no_sync())
            yield

    def autocast(self) -> AbstractContextManager[None]:
        """The precision of the forward pass."""
        import torch

        if self.precision == "fp32":
            return nullcontext()
        lower = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self._parameter.device.type, dtype=lower)

    def backward(self, loss: "Tensor", share: float) -> None:
        """Backpropagate; DDP divides by the number of processes, so the loss is multiplied."""
        import torch

        loss = loss * (share * self.processes)
        scaled = loss if self.scaler is None else self.scaler.scale(loss)
        torch.autograd.backward(scaled)

    def detached(self, loss: "Tensor") -> "Tensor":
        """The loss without its graph, in float64 where the device has it."""
        import torch

        has_double = loss.device.type != "mps"
        return loss.detach().reshape(()).to(torch.float64 if has_double else torch.float32)

    def step(self) -> "tuple[bool, Tensor | None]":
        """Unscale, clip, step, update the scale; the rest follows if the step was taken.

        Returns:
            Whether it was, and the norm of the gradient if it was clipped.
        """
        from torch.amp import GradScaler

        from ckpt.train.optimisation import apply_gradient

        scaler = self.scaler or GradScaler(enabled=False)
        before = scaler.get_scale()
        norm = apply_gradient(self.optimizer, scaler, clip=self.clip)
        # It falls if the step is skipped, down to 0, with which every step is.
        taken = scaler.get_scale() >= before > 0
        if taken and self.schedule is not None:
            self.schedule.step()
        if taken and self.average is not None:
            self.average.update_parameters(self.model)
        return taken, norm

    @property
    def _parameter(self) -> "Tensor":
        return _parameter_of(self.model)


def _parameter_of(model: "nn.Module") -> "Tensor":
    """The one that says where the model is."""
    return next(model.parameters())
