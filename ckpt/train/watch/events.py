"""The events of a run, for the one callback that a caller hands in. No torch.

Law: they come in this order: `Note` and `Loading`; `Started`; `StepDone`, `Epoch` and `Note`;
`Trained`; and last `Ended`, even if the run failed.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Note:
    """One plain line about something unexpected."""

    text: str


@dataclass(frozen=True, slots=True)
class Loading:
    """So many bytes (unit ``B``) are downloaded, or images (unit `` img``) decoded."""

    name: str
    done: int
    total: int
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Everything is loaded and decided; the first step comes next.

    Attributes:
        dataset: Its title, e.g. ``Fashion-MNIST``.
        where: Folder or package of the images, the home folder as ``~``.
        batch_size: The largest micro-batch at the start.
        why: One phrase: the reason for this precision, e.g. ``timed: 1.4 × fp32``.
        processes: Number of processes that share every window.
    """

    dataset: str
    where: str
    train_count: int
    holdout_count: int
    test_count: int
    epochs: int
    effective_batch: int
    batch_size: int
    precision: str
    why: str
    loader: str
    why_loader: str
    processes: int
    device: str
    threads: int


@dataclass(frozen=True, slots=True)
class StepDone:
    """A window is done: the run has seen `images` of `epoch` so far."""

    epoch: int
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """An epoch is over; its figures were measured while the weights were changing.

    Attributes:
        epoch: From 1.
        loss: Mean over the images, in nats, with dropout.
        accuracy: Of the same outputs, in [0, 1].
        lr: Learning rate of its first step.
        seconds: Wall clock.
        images_per_second: Wall clock, data and optimizer included.
        skipped_steps: Windows whose gradients overflowed in fp16 and changed nothing.
        gradient_norm: Mean over the other ones, before clipping; NaN if all were skipped.
        holdout_loss: Mean over the hold-out after the epoch, in nats, without dropout.
        holdout_accuracy: Of the same outputs, in [0, 1]; both are None without a hold-out.
    """

    epoch: int
    loss: float
    accuracy: float
    lr: float
    seconds: float
    images_per_second: float
    skipped_steps: int
    gradient_norm: float
    holdout_loss: float | None = None
    holdout_accuracy: float | None = None

    @property
    def figures(self) -> dict[str, float]:
        """The measured values by name, to six decimals as in `Trained.series`."""
        known = {name: value for name, value in asdict(self).items() if value is not None}
        return {name: round(value, 6) for name, value in known.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The run is finished: its file is on disk and tested.

    Attributes:
        path: The file that was written, and read back for the test.
        last_path: The file with the last epoch's weights, if the recipe keeps both.
        epoch: The epoch whose weights `path` has.
        test_loss: Mean over the test images, in nats, fp32.
        test_accuracy: In [0, 1].
        record: JSON-able: recipe as resolved, dataset, precision, environment, …
        definition_source: Text of the file that defines the model.
    """

    path: Path
    last_path: Path | None
    epoch: int
    curves: tuple[Epoch, ...]
    test_loss: float
    test_accuracy: float
    test_correct: int
    test_count: int
    seconds: float
    peak_bytes: int | None
    record: dict[str, Any] = field(repr=False)
    definition_source: str = field(repr=False)

    @property
    def series(self) -> dict[str, list[float]]:
        """A list with a value for each epoch, by quantity, to six decimals."""
        figures = [epoch.figures for epoch in self.curves]
        left_out = ("epoch", "images_per_second")
        names = [name for name in figures[0] if name not in left_out]
        return {name: [of_epoch[name] for of_epoch in figures] for name in names}


@dataclass(frozen=True, slots=True)
class Ended:
    """No more events come, whether the run finished, failed or was interrupted."""


Event = Note | Loading | Started | StepDone | Epoch | Trained | Ended
Callback = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """The callback that does nothing."""


def call_each(*callbacks: Callback) -> Callback:
    """One callback that calls several, in the order given."""

    def call(event: Event) -> None:
        for callback in callbacks:
            callback(event)

    return call
