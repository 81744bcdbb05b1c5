"""Where the samples of a window come from: memory of the device, or a DataLoader.

Law: which samples a window holds depends on (seed, epoch) alone, and their bytes on nothing but
the dataset; they are the same bit for bit whichever way they come.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ckpt.train.data.dataset import Split
from ckpt.train.data.normalisation import Raw
from ckpt.train.data.windows import epoch_seed, share, windows
from ckpt.train.recipes.recipe import Recipe

Take = Callable[[slice], Raw]  # a part of a window's share, on the device
_FOR_IMAGES = 0.25  # of the free memory; the rest is for the model and its activations


@dataclass(frozen=True, slots=True)
class Shares:
    """What this process sees of each window of an epoch.

    Attributes:
        samples: Of the dataset.
        size: The effective batch.
        seed: The recipe's.
        rank: Of this process.
        count: Of the processes.
    """

    samples: int
    size: int
    seed: int
    rank: int = 0
    count: int = 1

    def sizes(self, first: int = 0) -> Iterator[tuple[int, int]]:
        """For each window from number `first`: its samples, and how many are this process's."""
        for window in islice(windows(self.samples, self.size), first, None):
            yield len(window), len(self._share(window))

    def indices(self, epoch: int, first: int = 0) -> Iterator[Tensor]:
        """For each window of `epoch` from number `first`: ``(n,)`` int64, on the CPU.

        Where a window has fewer samples than there are processes, one that gets none is given
        the window's first, for a gradient of zeros: all of them have to take part.
        """
        order = epoch_order(self.samples, seed=self.seed, epoch=epoch)
        for window in islice(windows(self.samples, self.size), first, None):
            mine = self._share(window) or window[:1]
            yield order[mine.start : mine.stop]

    def _share(self, window: range) -> range:
        return share(window, rank=self.rank, count=self.count)


def epoch_order(samples: int, *, seed: int, epoch: int) -> Tensor:
    """A permutation ``(samples,)`` int64, on the CPU; see `windows.ORDER_RULE`."""
    generator = torch.Generator().manual_seed(epoch_seed("order", seed, epoch))
    return torch.randperm(samples, generator=generator)


class Source(Protocol):
    """Where the shares of an epoch come from."""

    def shares(self, epoch: int, first: int) -> Iterator[Take]:
        """One for each window of `epoch` from number `first`, in order."""


class Resident:
    """Gathers from tensors that stay on the device."""

    def __init__(self, split: Split, shares: Shares, device: torch.device) -> None:
        self._images, self._labels = split.images.to(device), split.labels.to(device)
        self._shares, self._device = shares, device

    def shares(self, epoch: int, first: int) -> Iterator[Take]:
        """See `Source.shares`."""
        for indices in self._shares.indices(epoch, first):
            yield self._taking(indices.to(self._device, non_blocking=True))

    def _taking(self, chosen: Tensor) -> Take:
        return lambda part: (self._images[chosen[part]], self._labels[chosen[part]])


class Loaded:
    """Gathers in a DataLoader, in its processes if the recipe asks for some."""

    def __init__(self, split: Split, shares: Shares, recipe: Recipe, device: torch.device) -> None:
        self._device = device
        self._order = _EpochOrder(shares)
        working = recipe.num_workers > 0
        # Not by fork: torch has threads by now, and a forked child has none of them.
        start = "forkserver" if sys.platform == "linux" else "spawn"
        self._loader = DataLoader(
            _Gathered(split),
            sampler=self._order,
            batch_size=None,  # the sampler gives whole shares
            num_workers=recipe.num_workers,
            prefetch_factor=recipe.prefetch_factor if working else None,
            persistent_workers=recipe.persistent_workers and working,
            multiprocessing_context=start if working else None,
            pin_memory=recipe.pin_memory and device.type == "cuda",
            generator=torch.Generator(),  # else each epoch draws from the global one
        )

    def shares(self, epoch: int, first: int) -> Iterator[Take]:
        """See `Source.shares`."""
        self._order.epoch, self._order.first = epoch, first
        for images, labels in self._loader:
            yield self._taking(images, labels)

    def _taking(self, images: Tensor, labels: Tensor) -> Take:
        return lambda part: (
            images[part].to(self._device, non_blocking=True),
            labels[part].to(self._device, non_blocking=True),
        )


class _EpochOrder:
    """The DataLoader's sampler: set `epoch` and `first` before iterating."""

    def __init__(self, shares: Shares) -> None:
        self._shares, self.epoch, self.first = shares, 1, 0

    def __iter__(self) -> Iterator[Tensor]:
        return self._shares.indices(self.epoch, self.first)

    def __len__(self) -> int:
        return sum(1 for _ in self._shares.sizes(self.first))


class _Gathered(TorchDataset[Raw]):
    """Shares by their indices."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def __getitem__(self, indices: Tensor) -> Raw:
        return self._split.images[indices], self._split.labels[indices]


@dataclass(frozen=True, slots=True)
class Loader:
    """A choice, and why it was made.

    Attributes:
        name: ``resident`` or ``workers``.
        why: One phrase for people.
    """

    name: str
    why: str


def choose_loader(recipe: Recipe, split: Split, device: torch.device) -> Loader:
    """The recipe's loader, or for ``auto`` the one that suits the memory of the device."""
    if recipe.loader != "auto":
        return Loader(recipe.loader, "as asked")
    if recipe.num_workers:
        return Loader("workers", f"{recipe.num_workers} were asked for")
    if device.type == "cpu":
        return Loader("resident", "in memory")
    needed = sum(tensor.numel() * tensor.element_size() for tensor in (split.images, split.labels))
    free, _ = torch.cuda.mem_get_info(device)
    place = f"{needed / 1e6:,.0f} MB of {free / 1e6:,.0f} MB free on {device}"
    return Loader("resident" if needed < _FOR_IMAGES * free else "workers", place)
