"""Windows made of given samples, and an epoch of them."""

from collections.abc import Iterable

from torch import Tensor

from ckpt.train.batches import Window
from ckpt.train.loop import EpochProgress, Trainer


def window_of(images: Tensor, labels: Tensor) -> Window:
    return Window(len(labels), len(labels), lambda part: (images[part], labels[part]))


def train_epoch(trainer: Trainer, windows: Iterable[Window]) -> EpochProgress:
    """Take a step for each window, and end the epoch."""
    progress = trainer.new_epoch()
    for _ in trainer.steps(windows, progress):
        pass
    trainer.end_epoch(progress)
    return progress
