"""What a run trains on: windows of every epoch, images held out, test images."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ckpt.errors import UsageError
from ckpt.train.data.dataset import Dataset, Split
from ckpt.train.data.loading import Loaded, Loader, Resident, Shares, Source, Take, choose_loader
from ckpt.train.data.normalisation import Raw, normalise
from ckpt.train.data.windows import cut, epoch_seed
from ckpt.train.loop import IGNORED, MicroBatch, Window
from ckpt.train.memory import MicroBatchSize
from ckpt.train.processes import Processes
from ckpt.train.recipes.recipe import Recipe


class Feed:
    """The batches of a run.

    Args:
        dataset: What the recipe names.
        recipe: Says how large a window is, how much is held out, and the loader.
        device: Where the batches are wanted.
        processes: Each has its share of every window.
        size: Of the micro-batches; looked at whenever a share is cut.

    Attributes:
        loader: As chosen.
        train_count: Images of an epoch.
        holdout_count: Images that are held out of all of them.
    """

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        device: torch.device,
        *,
        processes: Processes,
        size: MicroBatchSize,
    ) -> None:
        self._dataset, self._recipe, self._device, self._size = dataset, recipe, device, size
        train, self._holdout = hold_out(dataset.train, recipe.holdout, seed=recipe.seed)
        self.train_count, self.holdout_count = len(train), len(self._holdout)
        self.loader: Loader = choose_loader(recipe, train, device)
        self._shares = Shares(
            self.train_count, recipe.effective_batch, recipe.seed, processes.rank, processes.count
        )
        self._source: Source = (
            Resident(train, self._shares, device)
            if self.loader.name == "resident"
            else Loaded(train, self._shares, recipe, device)
        )
        # Made once: each would be a copy to the device that the host waits for.
        self._mean, self._std = (
            torch.tensor(each, device=device).view(-1, 1, 1) for each in (dataset.mean, dataset.std)
        )

    @property
    def classes(self) -> int:
        """What a model tells apart."""
        return self._dataset.classes

    @property
    def window_count(self) -> int:
        """Windows of an epoch."""
        return sum(1 for _ in self._shares.sizes())

    def windows(self, epoch: int, first: int = 0) -> Iterator[Window]:
        """The windows of `epoch`, from 1; each must be used up before the next is taken.

        Args:
            epoch: From 1.
            first: How many of them are left out.
        """
        sizes, shares = self._shares.sizes(first), self._source.shares(epoch, first)
        for (samples, here), take in zip(sizes, shares, strict=True):
            yield Window(samples, _Cut(self, take, here), here)

    def cut(self, take: Take, here: int) -> Iterator[MicroBatch]:
        """The micro-batches of a share of `here` samples, as large as they may be now."""
        if not here:  # see Shares.indices
            images, labels = self._normalise(take(slice(1)))
            yield images, torch.full_like(labels, IGNORED)
        for part in cut(here, self._size.now):
            yield self._normalise(take(part))

    def test_batches(self, size: int = 250) -> Iterator[MicroBatch]:
        """All test images, once, in file order."""
        return self._in_order(self._dataset.test, size)

    def holdout_batches(self, size: int = 250) -> Iterator[MicroBatch]:
        """All images that are held out, once."""
        return self._in_order(self._holdout, size)

    def first_images(self, count: int) -> MicroBatch:
        """The first training images in file order, `count` at most, to try a model on."""
        return next(self._in_order(self._dataset.train, count))

    def _in_order(self, split: Split, size: int) -> Iterator[MicroBatch]:
        for part in cut(len(split), size):
            images, labels = split.images[part], split.labels[part]
            yield self._normalise((images.to(self._device), labels.to(self._device)))

    def _normalise(self, raw: Raw) -> MicroBatch:
        return normalise(raw, mean=self._mean, std=self._std)


@dataclass(frozen=True, slots=True)
class _Cut:
    """The micro-batches of a share; cut anew whenever they are asked for."""

    feed: Feed
    take: Take
    here: int

    def __iter__(self) -> Iterator[MicroBatch]:
        return self.feed.cut(self.take, self.here)


def hold_out(train: Split, fraction: float, *, seed: int) -> tuple[Split, Split]:
    """Split off a fraction of the training images, drawn once by the seed.

    Both parts keep the order that the images have.

    Raises:
        UsageError: One of them would have no image.
    """
    count = round(len(train) * fraction)
    if fraction and not 0 < count < len(train):
        raise UsageError(f"holdout is {fraction}, of {len(train):,} images that makes {count:,}")
    generator = torch.Generator().manual_seed(epoch_seed("hold-out", seed, 0))
    drawn = torch.zeros(len(train), dtype=torch.bool)
    drawn[torch.randperm(len(train), generator=generator)[:count]] = True
    return (
        (train, _chosen(train, drawn))
        if not count
        else (_chosen(train, ~drawn), _chosen(train, drawn))
    )


def _chosen(split: Split, which: Tensor) -> Split:
    return Split(split.images[which], split.labels[which])
