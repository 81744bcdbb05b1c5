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
from ckpt.train.watch.events import Ended, Epoch, Event, Started, StepDone, Trained

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """A `Callback` that writes event files.

    Nothing is written before the run starts; an epoch's figures are flushed when it ends.

    Args:
        folder: The run's folder; created if it is missing.
        replace: Whether to remove the event files of another run from it.
        resumed_at: The step after which the run resumes; its events are added to the folder then,
            and those of this epoch and later ones that are already there no longer count.

    Raises:
        UsageError: tensorboard is not installed, or the folder is not one or is another run's.
        DiskError: When called: the system refused to write.
    """

    def __init__(
        self, folder: Path, *, replace: bool = False, resumed_at: StepDone | None = None
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

    def __call__(self, event: Event) -> None:
        """Write the event's figures, if it has any."""
        match event:
            case Started():
                threading.excepthook = self._thread_failed
                with self._writing():
                    for path in self._others:
                        path.unlink(missing_ok=True)
            case Epoch():
                with self._writing() as writer:
                    for name, value in event.figures.items():
                        if name != "epoch":
                            writer.add_scalar(_tag(name), value, event.epoch)
                    writer.flush()
            case Trained(record=record, epoch=epoch):
                # The test's scores beside the recipe, in the table of hyperparameters.
                scores = {"loss/test": event.test_loss, "accuracy/test": event.test_accuracy}
                with self._writing() as writer:
                    # "." puts its file into the run's folder instead of one of its own.
                    writer.add_hparams(record["recipe"], scores, run_name=".", global_step=epoch)
            case Ended() if self._writer is not None:
                with self._writing() as writer:
                    writer.close()
                threading.excepthook = self._hook

    @contextmanager
    def _writing(self) -> Iterator["SummaryWriter"]:
        """The writer, created on first use because creating it begins a file."""
        from torch.utils.tensorboard import SummaryWriter

        try:
            if self._writer is None:
                first = self._resumed_at.epoch if self._resumed_at else None
                self._writer = SummaryWriter(str(self._folder), purge_step=first)
            yield self._writer
        except OSError as error:
            self._writer = None
            raise DiskError(f"{self._folder}: {error.strerror}") from error

    def _thread_failed(self, failure: threading.ExceptHookArgs) -> None:
        """Ignore errors of the system in SummaryWriter's thread: our flush raises them again."""
        if not isinstance(failure.exc_value, OSError):
            self._hook(failure)


def _tag(name: str) -> str:
    """``loss`` gives ``loss/train``, ``holdout_loss`` gives ``loss/holdout``, others stay."""
    split, _, quantity = name.rpartition("_")
    return f"{quantity}/{split or 'train'}" if quantity in ("loss", "accuracy") else name
