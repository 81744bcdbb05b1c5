"""Datasets as resident tensors, and where to look for them.

A dataset is two splits of images of one size with a label each. A table names the module that
reads it, imported when it is needed; a name that is not in the table is a path.
"""

import hashlib
import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ckpt.errors import DatasetError, UsageError
from ckpt.train.data.normalisation import mean_and_std
from ckpt.train.watch.events import Callback, Note, ignore

_READERS = {
    "mnist": "ckpt.train.data.mnist",
    "fashion-mnist": "ckpt.train.data.mnist",
    "kmnist": "ckpt.train.data.mnist",
    "digits": "ckpt.train.data.digits",
}
_FOLDERS, _ARRAYS = "ckpt.train.data.folder", "ckpt.train.data.npz"


@dataclass(frozen=True, slots=True)
class Samples:
    """Images ``(n, c, h, w)`` uint8 and labels ``(n,)``, whole numbers from 0."""

    images: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: Tensor | slice) -> tuple[Tensor, Tensor]:
        return self.images[chosen], self.labels[chosen]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A dataset in memory.

    Attributes:
        name: As in the recipe, never ``auto``; ``folder`` or ``npz`` for one's own data.
        found: How it was found: ``--dataset``, ``--data-dir``, ``CKPT_DATA``, ``cache``,
            ``download`` or ``scikit-learn``; goes into records, which hold no folder names.
        where: The folder, with the home folder as ``~``.
        mean: Of the training pixels taken as [0, 1], by channel; `std` likewise.
        test_from: Origin of the test images: ``published``, ``every fifth``, or their folder or
            array.
        class_names: By label; empty if labels have no names.
    """

    name: str
    title: str
    found: str
    where: str
    train: Samples
    test: Samples
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    test_from: str
    class_names: tuple[str, ...] = ()

    def digest(self) -> str:
        """SHA-256 of the bytes of train images, train labels, test images, test labels."""
        hasher = hashlib.sha256()
        for split in (self.train, self.test):
            for tensor in (split.images, split.labels):
                hasher.update(tensor.contiguous().numpy().data)
        return "sha256:" + hasher.hexdigest()

    def describe(self) -> dict[str, Any]:
        """The dataset's part of a training record."""
        return {
            "name": self.name,
            "digest": self.digest(),
            "found": self.found,
            "train_count": len(self.train),
            "test_count": len(self.test),
            "test_from": self.test_from,
            "classes": self.classes,
            "class_names": list(self.class_names),
            "mean": list(self.mean),
            "std": list(self.std),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The arguments of `load_dataset`; `name` is in the table, or a path."""

    name: str
    data_dir: Path | None
    image_size: int
    callback: Callback


def load_dataset(
    name: str, *, data_dir: Path | None = None, image_size: int = 0, callback: Callback = ignore
) -> Dataset:
    """Bring a dataset into memory.

    Args:
        name: As in the recipe. ``auto`` is MNIST, or with a `Note` scikit-learn's digits if MNIST
            has no files here and cannot be downloaded.
        data_dir: Searched before ``CKPT_DATA`` and the cache.
        image_size: Height and width to resize a folder's images to; 0 keeps theirs.
        callback: Gets `Note` and `Loading`.

    Raises:
        DatasetError: It is not available, or damaged; damaged files of MNIST are an error for
            ``auto`` too, never a reason to train on something else.
        UsageError: `image_size` is not 0, and the dataset is not a folder of images.
    """
    wanted = Wanted(name=name, data_dir=data_dir, image_size=image_size, callback=callback)
    if name != "auto":
        return _read(wanted)
    try:
        return _read(replace(wanted, name="mnist"))
    except AbsentError as error:
        callback(Note(f"{error}; training on scikit-learn's 1,797 handwritten digits instead"))
        return _read(replace(wanted, name="digits"))


def _read(wanted: Wanted) -> Dataset:
    module = _READERS.get(wanted.name) or _reader_of(Path(wanted.name))
    if wanted.image_size and module != _FOLDERS:
        raise UsageError(
            f"image-size is {wanted.image_size}, expected 0 with {wanted.name}",
            hint="only the images of a folder can be resized",
        )
    dataset: Dataset = importlib.import_module(module).read(wanted)
    return dataset


def _reader_of(path: Path) -> str:
    if path.is_dir():
        return _FOLDERS
    if not path.exists():
        raise DatasetError(f"{path}: no such file or folder")
    if path.suffix.lower() == ".npz":
        return _ARRAYS
    raise DatasetError(f"{path}: expected a folder of images or an .npz file")


def every_fifth(whole: Samples) -> tuple[Samples, Samples]:
    """Split off test images: every fifth, from the first on."""
    tested = torch.arange(len(whole)) % 5 == 0
    return Samples(*whole[~tested]), Samples(*whole[tested])


class AbsentError(DatasetError):
    """A dataset is not on this machine, and cannot be downloaded."""


def own_dataset(
    *,
    name: str,
    path: Path,
    train: Samples,
    test: Samples,
    classes: int,
    test_from: str,
    class_names: tuple[str, ...] = (),
) -> Dataset:
    """A dataset with the mean and deviation of its training images.

    Its labels have the smallest type, so that equal labels are equal bytes.

    Raises:
        DatasetError: A channel has the same value in all training images.
    """
    mean, std = mean_and_std(train.images)
    if min(std) == 0:
        number, channels = std.index(0) + 1, len(std)
        raise DatasetError(
            f"{path}: channel {number} of {channels} has the same value in all training images",
            hint="remove the channel: a network can learn nothing from it",
        )
    dtype = torch.uint8 if classes <= 256 else torch.int64
    train, test = (Samples(split.images, split.labels.to(dtype)) for split in (train, test))
    return Dataset(
        name=name,
        title=title(path),
        found="--dataset",
        where=f"{short_path(path)} ({test_from} for testing)",
        train=train,
        test=test,
        classes=classes,
        mean=mean,
        std=std,
        test_from=test_from,
        class_names=class_names,
    )


def title(path: Path) -> str:
    """The base name, also for ``.``, which has none."""
    return path.name or path.resolve().name or str(path)


def places(data_dir: Path | None) -> Iterator[tuple[str, Path]]:
    """The folders to search for datasets, in order, each after its name."""
    if data_dir is not None:
        yield "--data-dir", data_dir
    if environment := os.environ.get("CKPT_DATA"):
        yield "CKPT_DATA", Path(environment)
    yield "cache", cache_folder()


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/ckpt``, by default ``~/.cache/ckpt``; it need not exist.

    Source: XDG Base Directory Specification; it ignores relative paths.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path("~/.cache").expanduser()) / "ckpt"


def short_path(folder: Path) -> str:
    """A path with the home folder as ``~``."""
    home = Path("~").expanduser()
    return str("~" / folder.relative_to(home)) if folder.is_relative_to(home) else str(folder)
