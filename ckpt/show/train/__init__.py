"""The view of a training run: header, a line per epoch, a bar on a terminal, the summary.

Functions return text; `TrainingView` writes it during the run. No torch.
"""

import os
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, TextIO

from ckpt.ops.train import Training
from ckpt.show.look.terminal import table
from ckpt.show.look.words import count, printable, size
from ckpt.show.register import added_data, added_text
from ckpt.train.watch.events import Ended, Epoch, Event, Loading, Note, Started, StepDone, Trained

if TYPE_CHECKING:
    from tqdm import tqdm

BAR_DELAY = 0.5  # seconds; a shorter epoch shows no bar
SILENCE = 60.0  # seconds without a line, after which one says how far a run without a bar is


def header(started: Started) -> list[str]:
    """The setup of a run: the data, the batch arithmetic, the precision."""
    images = f"{started.dataset}: {started.train_count:,} images from {started.where}"
    if started.holdout_count:
        images += f", {started.holdout_count:,} held out"
    autocast = "" if started.precision == "fp32" else " autocast"
    parts = [
        f"effective batch {micro_batches(started)}",
        f"{started.precision}{autocast} ({started.why})",
        f"{started.loader} ({started.why_loader})",
        count(started.threads, "thread") if started.device == "cpu" else started.device,
    ]
    return [
        f"{images}        {division(started.train_count, started.effective_batch)}",
        " · ".join(parts),
    ]


def micro_batches(started: Started) -> str:
    """How the effective batch is cut: ``256 = 64 × 4``, or in words if that is not even."""
    whole, micro = started.effective_batch, started.batch_size
    share = -(-whole // started.processes)
    if whole == micro * started.processes * (share // micro):
        shared = f" × {started.processes} processes" if started.processes > 1 else ""
        return f"{whole:,} = {micro:,} × {share // micro:,}{shared}"
    among = f"in {started.processes} processes, " if started.processes > 1 else ""
    return f"{whole:,}, {among}at most {micro:,} at once"


def division(samples: int, window: int) -> str:
    """The windows of an epoch as arithmetic, e.g. ``60,000 = 937 × 64 + 32``."""
    whole, rest = divmod(samples, window)
    return f"{samples:,} = {whole:,} × {window:,}" + (f" + {rest:,}" if rest else "")


def epoch_line(result: Epoch, epochs: int) -> str:
    """One epoch; loss (in nats) and accuracy are measured with dropout."""
    skipped = f"  steps skipped: {result.skipped_steps:,}" if result.skipped_steps else ""
    held_out = ""
    if result.holdout_loss is not None and result.holdout_accuracy is not None:
        held_out = f"  hold-out {result.holdout_loss:.4f} {result.holdout_accuracy:6.2%}"
    return (
        f"{_counted(result.epoch, epochs)}  loss {result.loss:.4f}  acc {result.accuracy:6.1%}"
        f"{held_out}  {result.images_per_second:,.0f} img/s  {_clock(result.seconds)}{skipped}"
    )


def summary(trained: Trained) -> str:
    """The result: accuracy on the test images, time, memory."""
    peak = "" if trained.peak_bytes is None else f" · peak {trained.peak_bytes / 1e6:,.0f} MB"
    return (
        f"test accuracy {trained.test_accuracy:.2%} ({trained.test_count:,} images, read once)"
        f" · {duration(trained.seconds)}{peak}"
    )


def summary_table(trained: Trained, *, width: int | None = None) -> str:
    """The figures of the run, as a table of one line; on a narrow terminal as a line for each."""
    record, last = trained.record, trained.curves[-1]
    images = sum(epoch.images_per_second for epoch in trained.curves) / len(trained.curves)
    cells = {
        "epochs": f"{len(trained.curves)}",
        "effective batch": f"{record['effective_batch']:,}",
        "precision": record["precision"]["name"],
        "train loss": f"{last.loss:.4f}",
        "test loss": f"{trained.test_loss:.4f}",
        "test accuracy": f"{trained.test_accuracy:.2%}",
        "images/s": f"{images:,.0f}",
        "time": duration(trained.seconds),
    }
    drawn = table([list(cells.values())], list(cells), right=list(cells))
    if width is None or max(map(len, drawn.splitlines())) <= width:
        return drawn
    wide = max(map(len, cells))
    return "\n".join(f"{name:<{wide}}  {cell}" for name, cell in cells.items())


def duration(seconds: float) -> str:
    """Seconds in the usual units: ``8.2 s``, ``4 min 33 s``, ``2 h 5 min``."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


class TrainingView:
    """A `Callback` that shows a run.

    Args:
        write: Takes one line, without its end; results and remarks alike.
        stream: For the bar, which is drawn only on a terminal that can move its cursor. Elsewhere
            a line says how far the run is after `SILENCE`.
        clock: Seconds since some moment.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        stream: TextIO,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._write_line, self._stream, self._clock = write, stream, clock
        self._wrote = clock()
        self._draws = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._started: Started | None = None
        self._latest = ""
        self._bar: tqdm[Any] | None = None

    def __call__(self, event: Event) -> None:
        """Write the event's lines, or move the bar."""
        match event:
            case Loading(name, done, total, unit):
                figures = "{rate_fmt}  {remaining}"
                self._advance(done, total, printable(name), figures, unit=unit, unit_scale=True)
                if done == total:
                    self._close_bar()
            case StepDone(epoch, images) if self._started is not None:
                figures = self._latest + "{rate_noinv_fmt}  {elapsed}"
                name = _counted(epoch, self._started.epochs)
                total = self._started.train_count
                self._advance(images, total, name, figures, unit=" img")
                if not self._draws and self._clock() - self._wrote >= SILENCE:
                    self._write(f"{name}  {images:,} of {total:,} images")
            case Note():
                self._close_bar()
                self._write(printable(event.text))
            case Started():
                self._started = event
                for line in header(event):
                    self._write(printable(line))
            case Epoch():
                self._close_bar()
                # Loss and accuracy are read from the device once an epoch; the bar shows these.
                self._latest = f"loss {event.loss:.4f}  acc {event.accuracy:.1%}  "
                if self._started is not None:
                    self._write(epoch_line(event, self._started.epochs))
            case Trained():
                self._write(summary(event))
            case Ended():
                self._close_bar()

    def _write(self, line: str) -> None:
        self._wrote = self._clock()
        self._write_line(line)

    def _advance(self, done: int, total: int, name: str, figures: str, **units: Any) -> None:
        """Move the bar, which is created if there is none."""
        if not self._draws:
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                desc=name,
                total=total,
                file=self._stream,
                leave=False,
                dynamic_ncols=True,
                delay=BAR_DELAY,
                bar_format="{desc}  {bar}  {percentage:3.0f}%  " + figures,
                **units,
            )
        self._bar.update(done - self._bar.n)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _counted(epoch: int, epochs: int) -> str:
    return f"epoch {epoch:>{len(str(epochs))}}/{epochs}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


def training_text(done: Training, *, width: int | None = None) -> str:
    """The summary of a run, and the files and the version with its weights."""
    trained, path, added = done.trained, done.path, done.added
    lines = [summary_table(trained, width=width), ""]
    written = [file for file in (path, trained.last_path) if path and file]
    lines += [f"wrote {printable(str(file))}  {size(file.stat().st_size)}" for file in written]
    if added:
        lines.append(added_text(added))
    return "\n".join(lines)


def training_data(done: Training) -> dict[str, Any]:
    """The same for JSON."""
    trained, path, added = done.trained, done.path, done.added
    return {
        "path": str(path) if path else None,
        "last_path": str(trained.last_path) if path and trained.last_path else None,
        "epoch": trained.epoch,
        "test_accuracy": trained.test_accuracy,
        "test_loss": trained.test_loss,
        "test_images": trained.test_count,
        "seconds": trained.seconds,
        "curves": trained.series,
        "record": trained.record,
        "added": added_data(added) if added else None,
    }
