"""Metrics as TensorBoard's event files, written by torch's own SummaryWriter.

A folder is a run, and its steps are epochs. Needs the package tensorboard.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ckpt.errors import DiskError, UsageError
from ckpt.train.watch.events import Epoch, Facts, Place, Trained, Unwatched

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard(Unwatched):
    """A `Watcher` that writes event files.

    Nothing is touched before the run starts; what an epoch brings is flushed with it.

    Args:
        folder: Of the run; made where it is missing.
        replace: Whether the event files of another run in it are removed.
        resumed_at: Where the run goes on; its events are added to the folder then, and those
            of this epoch and later ones that stand there no longer count.

    Raises:
        UsageError: tensorboard is not installed, the folder is none, or is another run's.
        DiskError: By a call of `Watcher`: the system refused to write.
    """

    def __init__(
        self, folder: Path, *, replace: bool = False, resumed_at: Place | None = None
    ) -> None:
        if find_spec("tensorboard") is None:
            raise UsageError(
                "--tensorboard needs the package tensorboard, which is not installed",
                hint="pip install tensorboard",
            )
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder}: not a folder")
        self._folder, self._resumed_at = folder, resumed_at
        self._others = [] if resumed_at else list(folder.glob("events.out.tfevents.*"))
        if self._others and not replace:
            raise UsageError(
                f"{folder}: holds the events of another run",
                hint="name another folder with --tensorboard, or replace them with --force",
            )
        self._writer: SummaryWriter | None = None
        self._hook = threading.excepthook

    def started(self, facts: Facts) -> None:
        """See `Watcher.started`."""
        threading.excepthook = self._thread_failed
        with self._writing():
            for path in self._others:
                path.unlink(missing_ok=True)

    def epoch(self, result: Epoch) -> None:
        """See `Watcher.epoch`."""
        with self._writing() as writer:
            for name, value in result.figures.items():
                if name != "epoch":
                    writer.add_scalar(_tag(name), value, result.epoch)
            writer.flush()

    def finished(self, trained: Trained) -> None:
        """See `Watcher.finished`; the recipe goes into the table of hyperparameters."""
        scores = {"loss/test": trained.test_loss, "accuracy/test": trained.test_accuracy}
        with self._writing() as writer:
            # "." for its file to be in the run's folder, not in one that is a run of its own.
            recipe, epoch = trained.record["recipe"], trained.epoch
            writer.add_hparams(recipe, scores, run_name=".", global_step=epoch)

    def close(self) -> None:
        """See `Watcher.close`."""
        if self._writer is not None:
            with self._writing() as writer:
                writer.close()
            threading.excepthook = self._hook

    @contextmanager
    def _writing(self) -> Iterator["SummaryWriter"]:
        """The writer, made when it is first needed, which begins a file."""
        from torch.utils.tensorboard import SummaryWriter

        first = self._resumed_at.epoch if self._resumed_at else None
        try:
            if self._writer is None:
                self._writer = SummaryWriter(str(self._folder), purge_step=first)
            yield self._writer
        except OSError as error:
            self._writer = None
            raise DiskError(f"{self._folder}: {error.strerror}") from error

    def _thread_failed(self, failure: threading.ExceptHookArgs) -> None:
        """What makes SummaryWriter's thread fail is raised again where we flush."""
        if not isinstance(failure.exc_value, OSError):
            self._hook(failure)


def _tag(name: str) -> str:
    """``loss`` gives ``loss/train``, ``holdout_loss`` ``loss/holdout``, others themselves."""
    split, _, quantity = name.rpartition("_")
    return f"{quantity}/{split or 'train'}" if quantity in ("loss", "accuracy") else name
