"""An epoch of the trainer of `ckpt train`, without events and states."""

from collections.abc import Iterable

from ckpt.train.batches import Window
from ckpt.train.loop import Trainer


def train_epoch(trainer: Trainer, windows: Iterable[Window]) -> int:
    """Take a step for each window, and end the epoch: how many images it had."""
    progress = trainer.new_epoch()
    for _ in trainer.steps(windows, progress):
        pass
    trainer.end_epoch(progress)
    return progress.samples
