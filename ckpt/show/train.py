"""How a training run looks: header, a line an epoch, a bar on a terminal, the summary.

Functions give text; `TrainingView` writes it as the run goes. No torch.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from ckpt.ops.train import Training
from ckpt.show.look.terminal import table
from ckpt.show.look.words import printable, size
from ckpt.show.register import added_data, added_text
from ckpt.train.watch.events import Epoch, Facts, Trained

if TYPE_CHECKING:
    from tqdm import tqdm

BAR_DELAY = 0.5  # seconds; a shorter epoch has its line at once


def header(facts: Facts) -> list[str]:
    """What is settled before the first step: the data, the batch arithmetic, the precision."""
    images = f"{facts.dataset}: {facts.train_count:,} images from {facts.where}"
    if facts.holdout_count:
        images += f", {facts.holdout_count:,} held out"
    precision = facts.precision if facts.precision == "fp32" else f"{facts.precision} autocast"
    threads = f"{facts.threads} thread{'s' * (facts.threads != 1)}"
    parts = [
        f"effective batch {micro_batches(facts)}",
        f"{precision} ({facts.why})",
        f"{facts.loader} ({facts.why_loader})",
        threads if facts.device == "cpu" else facts.device,
    ]
    return [
        f"{images}        {division(facts.train_count, facts.effective_batch)}",
        " · ".join(parts),
    ]


def micro_batches(facts: Facts) -> str:
    """How the effective batch is cut: ``256 = 64 × 4``, or in words where that is not even."""
    whole, micro = facts.effective_batch, facts.batch_size
    share = -(-whole // facts.processes)
    if whole == micro * facts.processes * (share // micro):
        shared = f" × {facts.processes} processes" if facts.processes > 1 else ""
        return f"{whole:,} = {micro:,} × {share // micro:,}{shared}"
    among = f"in {facts.processes} processes, " if facts.processes > 1 else ""
    return f"{whole:,}, {among}at most {micro:,} at once"


def division(samples: int, window: int) -> str:
    """The windows of an epoch as arithmetic, e.g. ``60,000 = 937 × 64 + 32``."""
    whole, rest = divmod(samples, window)
    return f"{samples:,} = {whole:,} × {window:,}" + (f" + {rest:,}" if rest else "")


def epoch_line(result: Epoch, epochs: int) -> str:
    """One epoch; the loss is in nats, and both it and the accuracy are under dropout."""
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
    parts = [
        f"test accuracy {trained.test_accuracy:.2%} ({trained.test_count:,} images, read once)",
        duration(trained.seconds),
    ]
    if trained.peak_bytes is not None:
        parts.append(f"peak {trained.peak_bytes / 1e6:,.0f} MB")
    return " · ".join(parts)


def summary_table(trained: Trained) -> str:
    """The run at a glance, as a table of one line."""
    record, last = trained.record, trained.curves[-1]
    images = sum(each.images_per_second for each in trained.curves) / len(trained.curves)
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
    return table([list(cells.values())], list(cells), right=list(cells))


def duration(seconds: float) -> str:
    """Seconds as people say them: ``8.2 s``, ``4 min 33 s``, ``2 h 5 min``."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


class TrainingView:
    """A `Watcher` that shows a run.

    Args:
        write: Takes one line, without its end; results and remarks alike.
        stream: Where the bar goes; it is drawn only if this is a terminal that can move
            its cursor.
    """

    def __init__(self, write: Callable[[str], None], stream: TextIO) -> None:
        self._write, self._stream = write, stream
        self._draws = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._facts: Facts | None = None
        self._latest = ""
        self._bar: tqdm[Any] | None = None

    def note(self, text: str) -> None:
        """See `Watcher.note`."""
        self.close()
        self._write(printable(text))

    def loading(self, what: str, done: int, total: int, unit: str) -> None:
        """See `Watcher.loading`."""
        if not self._draws:
            return
        if self._bar is None:
            self._bar = self._new_loading_bar(what, total, unit)
        self._bar.update(done - self._bar.n)
        if done == total:
            self.close()

    def started(self, facts: Facts) -> None:
        """See `Watcher.started`."""
        self._facts = facts
        for line in header(facts):
            self._write(printable(line))

    def step(self, epoch: int, images: int) -> None:
        """See `Watcher.step`."""
        if self._facts is None or not self._draws:
            return
        if self._bar is None:
            self._bar = self._new_bar(epoch, self._facts)
        self._bar.update(images - self._bar.n)

    def epoch(self, result: Epoch) -> None:
        """See `Watcher.epoch`."""
        self.close()
        self._latest = f"loss {result.loss:.4f}  acc {result.accuracy:.1%}  "
        if self._facts is not None:
            self._write(epoch_line(result, self._facts.epochs))

    def finished(self, trained: Trained) -> None:
        """See `Watcher.finished`."""
        self._write(summary(trained))

    def close(self) -> None:
        """See `Watcher.close`: take the bar off the screen, as after an interruption."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _new_bar(self, epoch: int, facts: Facts) -> "tqdm[Any]":
        from tqdm import tqdm

        # Loss and accuracy are read from the device once an epoch: these are the last ones.
        layout = (
            "{desc}  {bar}  {percentage:3.0f}%  " + self._latest + "{rate_noinv_fmt}  {elapsed}"
        )
        return tqdm(
            total=facts.train_count,
            desc=_counted(epoch, facts.epochs),
            file=self._stream,
            leave=False,
            unit=" img",
            bar_format=layout,
            dynamic_ncols=True,
            delay=BAR_DELAY,
        )

    def _new_loading_bar(self, what: str, total: int, unit: str) -> "tqdm[Any]":
        from tqdm import tqdm

        return tqdm(
            total=total,
            desc=printable(what),
            file=self._stream,
            leave=False,
            unit=unit,
            unit_scale=True,
            bar_format="{desc}  {bar}  {percentage:3.0f}%  {rate_fmt}  {remaining}",
            dynamic_ncols=True,
            delay=BAR_DELAY,
        )


def _counted(epoch: int, epochs: int) -> str:
    return f"epoch {epoch:>{len(str(epochs))}}/{epochs}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


def training_text(done: Training) -> str:
    """The summary of a run, and where its weights are."""
    trained, path, added = done.trained, done.path, done.added
    lines = [summary_table(trained), ""]
    written = [each for each in (path, trained.last_path) if path and each]
    lines += [f"wrote {printable(str(each))}  {size(each.stat().st_size)}" for each in written]
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
