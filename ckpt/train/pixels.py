"""From resident bytes to what a model sees, and in which order.

Law: which images a batch holds depends on (seed, epoch) alone, and its values on nothing
but those bytes; a batch is the same bit for bit whether it was gathered on the device or
by worker processes.
"""

import sys
from collections.abc import Iterator
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ckpt.train.dataset import Dataset, Split
from ckpt.train.loop import MicroBatch, Window
from ckpt.train.recipe import Recipe
from ckpt.train.windows import epoch_seed, windows

Raw = tuple[Tensor, Tensor]  # (b, c, h, w) uint8, (b,) whole numbers


def epoch_order(samples: int, *, seed: int, epoch: int) -> Tensor:
    """A permutation ``(samples,)`` int64, on the CPU; see `windows.ORDER_RULE`."""
    generator = torch.Generator().manual_seed(epoch_seed("order", seed, epoch))
    return torch.randperm(samples, generator=generator)


def mean_and_std(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of uint8 pixels taken as [0, 1], for each channel, from exact integer sums."""
    channels = [_mean_and_std(images[:, channel]) for channel in range(images.shape[1])]
    means, deviations = zip(*channels, strict=True)
    return means, deviations


def _mean_and_std(pixels: Tensor) -> tuple[float, float]:
    counts = torch.bincount(pixels.flatten(), minlength=256).double()
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = float((counts * values).sum() / counts.sum())
    return mean, float((counts * (values - mean) ** 2).sum() / counts.sum()) ** 0.5


def normalise(raw: Raw, *, mean: Tensor, std: Tensor) -> MicroBatch:
    """``(b, c, h, w)`` float32 as torchvision's ToTensor and Normalize give, ``(b,)`` int64.

    Args:
        raw: On any device.
        mean: ``(c, 1, 1)`` float32, there too.
        std: Likewise.
    """
    images, labels = raw
    return images.float().div_(255).sub_(mean).div_(std), labels.long()


class Source(Protocol):
    """Where an epoch's raw micro-batches come from."""

    def batches(self, epoch: int, first: int) -> Iterator[Raw]:
        """The micro-batches of `epoch` in order from number `first`, as bytes on the device."""


class Resident:
    """Gathers from tensors that stay on the device."""

    def __init__(self, split: Split, recipe: Recipe, device: torch.device) -> None:
        self._images, self._labels = split.images.to(device), split.labels.to(device)
        self._recipe, self._device = recipe, device

    def batches(self, epoch: int, first: int) -> Iterator[Raw]:
        """See `Source.batches`."""
        for indices in micro_batch_indices(len(self._labels), self._recipe, epoch, first):
            chosen = indices.to(self._device, non_blocking=True)
            yield self._images[chosen], self._labels[chosen]


class Workers:
    """Gathers in other processes, for datasets that do not fit the device."""

    def __init__(self, split: Split, recipe: Recipe, device: torch.device) -> None:
        self._device = device
        self._order = _EpochOrder(len(split), recipe)
        self._loader = DataLoader(
            _Gathered(split),
            sampler=self._order,
            batch_size=None,  # the sampler gives whole micro-batches
            num_workers=recipe.num_workers,
            prefetch_factor=4,
            persistent_workers=True,
            # Not by fork: torch has threads by now, and a forked child has none of them.
            multiprocessing_context="forkserver" if sys.platform == "linux" else "spawn",
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # else each epoch draws from the global one
        )

    def batches(self, epoch: int, first: int) -> Iterator[Raw]:
        """See `Source.batches`."""
        self._order.epoch, self._order.first = epoch, first
        for images, labels in self._loader:
            yield (
                images.to(self._device, non_blocking=True),
                labels.to(self._device, non_blocking=True),
            )


class Feed:
    """The windows of every epoch of a run, and the test images."""

    def __init__(self, dataset: Dataset, recipe: Recipe, device: torch.device) -> None:
        self._dataset, self._recipe, self._device = dataset, recipe, device
        source = Workers if recipe.num_workers else Resident
        self._source: Source = source(dataset.train, recipe, device)
        # Made once: each would be a copy to the device that the host waits for.
        self._mean, self._std = (
            torch.tensor(each, device=device).view(-1, 1, 1) for each in (dataset.mean, dataset.std)
        )

    def windows(self, epoch: int, first: int = 0) -> Iterator[Window]:
        """The windows of `epoch`, from 1; each must be used up before the next is taken.

        Args:
            epoch: From 1.
            first: How many of them are left out.
        """
        # Every window but the last has as many micro-batches, and the last is never left out.
        batches = self._source.batches(epoch, first * self._recipe.accumulate)
        for slices in islice(self._windows(), first, None):
            samples = slices[-1].stop - slices[0].start
            yield Window(samples, map(self._normalise, islice(batches, len(slices))))

    @property
    def classes(self) -> int:
        """What a model tells apart."""
        return self._dataset.classes

    @property
    def window_count(self) -> int:
        """Windows of an epoch."""
        return sum(1 for _ in self._windows())

    def test_batches(self, size: int = 250) -> Iterator[MicroBatch]:
        """All test images, once, in file order."""
        test = self._dataset.test
        for at in range(0, len(test), size):
            yield self._on_device(test, slice(at, at + size))

    def first_batch(self) -> MicroBatch:
        """The first training images in file order, to try a model on."""
        return self._on_device(self._dataset.train, slice(self._recipe.batch_size))

    def _on_device(self, split: Split, chosen: slice) -> MicroBatch:
        images, labels = split.images[chosen], split.labels[chosen]
        return self._normalise((images.to(self._device), labels.to(self._device)))

    def _windows(self) -> Iterator[tuple[slice, ...]]:
        recipe = self._recipe
        return windows(
            len(self._dataset.train), batch_size=recipe.batch_size, accumulate=recipe.accumulate
        )

    def _normalise(self, raw: Raw) -> MicroBatch:
        return normalise(raw, mean=self._mean, std=self._std)


def micro_batch_indices(
    samples: int, recipe: Recipe, epoch: int, first: int = 0
) -> Iterator[Tensor]:
    """Indices ``(b,)`` of each micro-batch of an epoch, from number `first`.

    A window starts where a micro-batch does, so cutting the order into micro-batches
    needs no windows.
    """
    order = epoch_order(samples, seed=recipe.seed, epoch=epoch)
    for at in range(first * recipe.batch_size, samples, recipe.batch_size):
        yield order[at : at + recipe.batch_size]


class _EpochOrder:
    """The DataLoader's sampler: set `epoch` and `first` before iterating."""

    def __init__(self, samples: int, recipe: Recipe) -> None:
        self._samples, self._recipe, self.epoch, self.first = samples, recipe, 1, 0

    def __iter__(self) -> Iterator[Tensor]:
        return micro_batch_indices(self._samples, self._recipe, self.epoch, self.first)

    def __len__(self) -> int:
        return -(-self._samples // self._recipe.batch_size) - self.first


class _Gathered(TorchDataset[Raw]):
    """Micro-batches by their indices."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def __getitem__(self, indices: Tensor) -> Raw:
        return self._split.images[indices], self._split.labels[indices]
