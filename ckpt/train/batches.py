"""The batches of a run, all made here: windows to train on, hold-out and test images.

Law: which samples a window holds depends on (seed, epoch) alone, and their bytes on nothing but
the dataset; with each loader they are the same, bit for bit.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ckpt.errors import DatasetError
from ckpt.train.data.augmentation import Augmentation
from ckpt.train.data.dataset import Dataset
from ckpt.train.data.normalisation import MicroBatch, Raw, normalise
from ckpt.train.data.on_disk import OnDisk
from ckpt.train.data.samples import Samples
from ckpt.train.data.windows import cut, epoch_seed, shares
from ckpt.train.data.windows import share as share_of
from ckpt.train.holdout import hold_out
from ckpt.train.losses import IGNORED
from ckpt.train.processes import ALONE, Processes
from ckpt.train.recipes.recipe import Recipe

_FOR_IMAGES = 0.25  # of the free memory; the rest is for the model and its activations


@dataclass(frozen=True, slots=True)
class Window:
    """The samples of one optimizer step: their number in all processes, and in this one.

    `take` returns a slice of those in this process; `most` is the number in the one that has most,
    if all processes have to have as many micro-batches.
    """

    samples: int
    here: int
    take: Callable[[slice], MicroBatch]
    most: int = 0

    def micro_batches(self, size: int) -> Iterator[MicroBatch]:
        """This process's samples, at most `size` at once, after the fillers."""
        for _ in range(self.fillers(size)):
            images, labels = self.take(slice(1))
            yield images, torch.full_like(labels, IGNORED)
        for part in cut(self.here, size):
            yield self.take(part)

    def fillers(self, size: int) -> int:
        """Micro-batches of one sample without its label, for a gradient of zeros.

        Every process has to take part when gradients are averaged, and with shards also in each
        forward pass.
        """
        needed, own = (-(-samples // size) for samples in (max(1, self.most), self.here))
        return max(needed - own, 0)


class Batches:
    """The batches of a run.

    Args:
        dataset: The hold-out is split off its training images.
        recipe: Says how large a window is, how much is held out, and the loader.
        device: Where the batches are wanted.
        processes: Each has its share of every window.

    Attributes:
        train_count: Images of an epoch.
        holdout_count: Images that are held out of it.
        channels: Of the images that a model takes: grey is repeated, colours are averaged.
    """

    def __init__(
        self, dataset: Dataset, recipe: Recipe, device: torch.device, processes: Processes = ALONE
    ) -> None:
        self._dataset, self._recipe, self._device = dataset, recipe, device
        self._processes = processes
        train, self._holdout = hold_out(dataset.train, recipe.holdout, seed=recipe.seed)
        self.train_count, self.holdout_count = len(train), len(self._holdout)
        self.classes = dataset.classes
        self.channels = len(dataset.mean)
        self._augmentation = Augmentation(recipe.augment, recipe.seed) if recipe.augment else None
        self.loader = choose_loader(recipe, train, device)
        if self.loader.name == "resident" and not isinstance(train.images, OnDisk):
            self._resident = Samples(train.images.to(device), train.labels.to(device))
        else:
            self._indices: list[Tensor] = []  # of the epoch's shares; the DataLoader's sampler
            self._workers = _data_loader(train, self._indices, recipe, device)
        # Made once: each would be a copy to the device that the host waits for.
        self._mean, self._std = (
            torch.tensor(values, device=device).view(-1, 1, 1)
            for values in (dataset.mean, dataset.std)
        )

    @property
    def window_count(self) -> int:
        """Windows of an epoch."""
        return -(-self.train_count // self._recipe.effective_batch)

    def windows(self, epoch: int, first: int = 0) -> Iterator[Window]:
        """The windows of `epoch`, from 1; the first ones can be left out."""
        order = epoch_order(self.train_count, seed=self._recipe.seed, epoch=epoch)
        if self.loader.name == "resident":
            order = order.to(self._device)  # once: the host would wait for a copy a window
        rank, count = self._processes.rank, self._processes.count
        size = self._recipe.effective_batch
        here = list(islice(shares(self.train_count, size, rank=rank, count=count), first, None))
        chosen = [mine or window[:1] for window, mine in here]  # see Window.micro_batches
        gathered = self._gather(order[part.start : part.stop] for part in chosen)
        for (window, mine), part, share in zip(here, chosen, gathered, strict=True):
            take = partial(self._take, share)
            if self._augmentation is not None:
                indices = order[part.start : part.stop]
                take = partial(self._take_augmented, share, indices=indices, epoch=epoch)
            is_sharded = self._recipe.parallel == "fsdp"
            most = len(share_of(window, rank=0, count=count)) if is_sharded else 0
            yield Window(len(window), len(mine), take, most)

    def test(self, size: int = 250) -> Iterator[MicroBatch]:
        """All test images, once, in file order."""
        return self._in_order(self._dataset.test, size)

    def holdout(self, size: int = 250) -> Iterator[MicroBatch]:
        """All images that are held out, once."""
        return self._in_order(self._holdout, size)

    def first_images(self, count: int) -> MicroBatch:
        """The first training images in file order, at most `count`, to try a model on."""
        return next(self._in_order(self._dataset.train, count))

    def _gather(self, indices: Iterable[Tensor]) -> Iterator[Samples]:
        """The samples with these indices, as bytes: from the device's memory or a DataLoader."""
        if self.loader.name == "resident":
            for chosen in indices:
                yield Samples(*self._resident[chosen])
        else:
            self._indices[:] = indices
            for found in self._workers:
                if isinstance(found, DatasetError):
                    raise found
                yield Samples(*found)

    def _in_order(self, split: Samples, size: int) -> Iterator[MicroBatch]:
        return (self._take(split, part) for part in cut(len(split), size))

    def _take_augmented(
        self, split: Samples, part: slice, *, indices: Tensor, epoch: int
    ) -> MicroBatch:
        """As `_take`; `indices` are those of the split's samples in the training set."""
        assert self._augmentation is not None
        images, labels = split[part]
        images = self._augmentation(images, indices[part].tolist(), epoch)
        return self._take(Samples(images, labels), slice(None))

    def _take(self, split: Samples, part: slice) -> MicroBatch:
        """Some samples of a split, on the device and normalised."""
        images, labels = (tensor.to(self._device, non_blocking=True) for tensor in split[part])
        images, labels = normalise((images, labels), mean=self._mean, std=self._std)
        if images.shape[1] != self.channels:
            images = images.mean(1, keepdim=True).expand(-1, self.channels, -1, -1)
        return images, labels


def epoch_order(samples: int, *, seed: int, epoch: int) -> Tensor:
    """A permutation ``(samples,)`` int64, on the CPU; see `windows.ORDER_RULE`."""
    generator = torch.Generator().manual_seed(epoch_seed("order", seed, epoch))
    return torch.randperm(samples, generator=generator)


@dataclass(frozen=True, slots=True)
class Loader:
    """A choice: ``resident``, ``workers`` or ``disk``, and the reason in one phrase."""

    name: str
    why: str


def choose_loader(recipe: Recipe, split: Samples, device: torch.device) -> Loader:
    """The recipe's loader, or for ``auto`` the one that suits the memory of the device."""
    if isinstance(split.images, OnDisk):
        large = f"{split.images.nbytes / 1e6:,.0f} MB are too much for the memory"
        return Loader("disk", "as asked" if recipe.loader == "disk" else large)
    if recipe.loader != "auto":
        return Loader(recipe.loader, "as asked")
    if recipe.num_workers:
        return Loader("workers", f"{recipe.num_workers} were asked for")
    if device.type == "cpu":
        return Loader("resident", "in memory")
    needed = split.images.nbytes + split.labels.nbytes
    free, _ = torch.cuda.mem_get_info(device)
    place = f"{needed / 1e6:,.0f} MB of {free / 1e6:,.0f} MB free on {device}"
    return Loader("resident" if needed < _FOR_IMAGES * free else "workers", place)


@dataclass(frozen=True, slots=True)
class _Shares:
    """The samples of shares; a failure is a value, for a DataLoader would put it into a text."""

    split: Samples

    def __getitem__(self, chosen: Tensor) -> Raw | DatasetError:
        try:
            return self.split[chosen]
        except DatasetError as error:
            return error


def _data_loader(
    split: Samples, sampler: list[Tensor], recipe: Recipe, device: torch.device
) -> "DataLoader[Raw | DatasetError]":
    """A DataLoader that gathers whole shares, the samples of each tensor in `sampler`."""
    working: dict[str, Any] = {}
    if recipe.num_workers:
        working = {
            "prefetch_factor": recipe.prefetch_factor,
            "persistent_workers": recipe.persistent_workers,
            # Not fork: torch has threads by now, and a forked child has none of them.
            "multiprocessing_context": "forkserver" if sys.platform == "linux" else "spawn",
        }
    return DataLoader(
        cast("TorchDataset[Raw | DatasetError]", _Shares(split)),
        sampler=sampler,
        batch_size=None,
        num_workers=recipe.num_workers,
        pin_memory=recipe.pin_memory and device.type == "cuda",
        generator=torch.Generator(),  # else each epoch draws from the global one
        **working,
    )
