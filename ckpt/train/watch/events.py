"""What a training run tells whoever watches it, and what it gives in the end. No torch."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is settled before the first step.

    Attributes:
        dataset: As people call it, e.g. ``Fashion-MNIST``.
        where: Folder or package that the images come from, the home folder as ``~``.
        batch_size: The largest micro-batch at the start.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        why: One phrase: why this precision, e.g. ``timed: 1.4 × fp32``.
        loader: ``resident`` or ``workers``.
        why_loader: One phrase.
        processes: That share every window.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One epoch, as measured while its weights were changing.

    Attributes:
        epoch: From 1.
        loss: Mean over the images, in nats, with dropout.
        accuracy: Of the same outputs, in [0, 1].
        lr: That its steps used.
        seconds: Wall clock.
        images_per_second: Wall clock, data and optimizer included.
        skipped_steps: Windows whose gradients overflowed in fp16 and changed nothing.
        holdout_loss: Mean over the images held out, after the epoch, in nats, without dropout.
        holdout_accuracy: Likewise, in [0, 1]; both are None where none are held out.
    """

    epoch: int
    loss: float
    accuracy: float
    lr: float
    seconds: float
    images_per_second: float
    skipped_steps: int
    holdout_loss: float | None = None
    holdout_accuracy: float | None = None

    @property
    def figures(self) -> dict[str, float]:
        """What was measured, by name, to six decimals as in `Trained.series`."""
        known = {name: value for name, value in asdict(self).items() if value is not None}
        return {name: round(value, 6) for name, value in known.items()}


@dataclass(frozen=True, slots=True)
class Place:
    """A window border of a run: `images` of `epoch` have been seen."""

    epoch: int
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A finished run.

    Attributes:
        path: The file that was written, and read back for the test.
        last_path: That of the last epoch's weights, where both were asked for.
        epoch: Whose weights `path` has.
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
        """What was measured in each epoch, a list for each quantity, to six decimals."""
        figures = [each.figures for each in self.curves]
        left_out = ("epoch", "images_per_second")
        names = [name for name in figures[0] if name not in left_out]
        return {name: [each[name] for each in figures] for name in names}


class Watcher(Protocol):
    """Told of a run in this order: notes and loading, started, then steps and epochs, finished."""

    def note(self, text: str) -> None:
        """One plain line about something that is not as one might think."""

    def loading(self, what: str, done: int, total: int, unit: str) -> None:
        """So much of a file has been fetched, or so many images are decoded."""

    def started(self, facts: Facts) -> None:
        """Everything is loaded; the first step comes next."""

    def step(self, epoch: int, images: int) -> None:
        """A window is done; `images` of `epoch` have been seen so far."""

    def epoch(self, result: Epoch) -> None:
        """An epoch is over."""

    def finished(self, trained: Trained) -> None:
        """The file is on disk and tested."""

    def close(self) -> None:
        """No more comes, however the run ended; whoever made the watcher says so."""


class Unwatched:
    """A watcher that does nothing."""

    def note(self, text: str) -> None:
        """See `Watcher.note`."""

    def loading(self, what: str, done: int, total: int, unit: str) -> None:
        """See `Watcher.loading`."""

    def started(self, facts: Facts) -> None:
        """See `Watcher.started`."""

    def step(self, epoch: int, images: int) -> None:
        """See `Watcher.step`."""

    def epoch(self, result: Epoch) -> None:
        """See `Watcher.epoch`."""

    def finished(self, trained: Trained) -> None:
        """See `Watcher.finished`."""

    def close(self) -> None:
        """See `Watcher.close`."""


class Watchers:
    """Several watchers as one; each hears everything, in the order given."""

    def __init__(self, *watchers: Watcher) -> None:
        self._watchers = watchers

    def note(self, text: str) -> None:
        """See `Watcher.note`."""
        for each in self._watchers:
            each.note(text)

    def loading(self, what: str, done: int, total: int, unit: str) -> None:
        """See `Watcher.loading`."""
        for each in self._watchers:
            each.loading(what, done, total, unit)

    def started(self, facts: Facts) -> None:
        """See `Watcher.started`."""
        for each in self._watchers:
            each.started(facts)

    def step(self, epoch: int, images: int) -> None:
        """See `Watcher.step`."""
        for each in self._watchers:
            each.step(epoch, images)

    def epoch(self, result: Epoch) -> None:
        """See `Watcher.epoch`."""
        for each in self._watchers:
            each.epoch(result)

    def finished(self, trained: Trained) -> None:
        """See `Watcher.finished`."""
        for each in self._watchers:
            each.finished(trained)

    def close(self) -> None:
        """See `Watcher.close`."""
        for each in self._watchers:
            each.close()
