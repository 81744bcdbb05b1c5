"""Datasets, in memory or on disk, and where to look for them.

A dataset is two splits of images of one size with a label each; labels are in memory. A table names
the module that reads it, imported when it is needed; a name that is not in the table is a path.
"""

import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ckpt.errors import DatasetError, UsageError
from ckpt.train.data.normalisation import mean_and_std_of, pixel_counts
from ckpt.train.data.on_disk import OnDisk
from ckpt.train.data.samples import Samples, digest_of
from ckpt.train.watch.events import Callback, Loading, Note, ignore

_READERS = {
    "mnist": "ckpt.train.data.mnist",
    "fashion-mnist": "ckpt.train.data.mnist",
    "kmnist": "ckpt.train.data.mnist",
    "digits": "ckpt.train.data.digits",
}
_OF_ROOM = 1 / 3  # splitting images in memory copies them
_FOLDERS, _ARRAYS = "ckpt.train.data.folder", "ckpt.train.data.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A dataset.

    Attributes:
        name: As in the recipe, never ``auto``; ``folder`` or ``npz`` for one's own data.
        found: How it was found: ``--dataset``, ``--data-dir``, ``CKPT_DATA``, ``cache``,
            ``download`` or ``scikit-learn``; goes into records, which hold no folder names.
        where: The folder, with the home folder as ``~``.
        mean: Of the training pixels taken as [0, 1], by channel; `std` likewise.
        test_from: Origin of the test images: ``published``, ``every fifth``, or their folder or
            array.
        class_names: By label; empty if labels have no names.
        content: Its digest, if that is known already.
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
    content: str = ""

    def digest(self) -> str:
        """Identifies the images and labels; see `samples.digest_of`."""
        return self.content or digest_of(self.train, self.test)

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
    loader: str
    room: int | None

    def stays_on_disk(self, nbytes: int) -> bool:
        """Whether images of so many bytes are read when they are needed."""
        is_large = self.room is not None and nbytes > _OF_ROOM * self.room
        return self.loader == "disk" or (self.loader == "auto" and is_large)


def load_dataset(
    name: str,
    *,
    data_dir: Path | None = None,
    image_size: int = 0,
    callback: Callback = ignore,
    loader: str = "auto",
    room: int | None = None,
) -> Dataset:
    """Bring a dataset into memory, or find it on disk.

    Args:
        name: As in the recipe. ``auto`` is MNIST, or with a `Note` scikit-learn's digits if MNIST
            has no files here and cannot be downloaded.
        data_dir: Searched before ``CKPT_DATA`` and the cache.
        image_size: Height and width to resize a folder's images to; 0 keeps theirs.
        callback: Gets `Note` and `Loading`.
        loader: As in the recipe: ``disk`` leaves the images there, and so does ``auto`` if they
            take more than a third of the memory.
        room: Bytes of memory that are left; None if that is not known.

    Raises:
        DatasetError: It is not available, or damaged; damaged files of MNIST are an error for
            ``auto`` too, never a reason to train on something else.
        UsageError: `image_size` is not 0, and the dataset is not a folder of images; or `loader`
            is ``disk``, and it is not one's own data.
    """
    wanted = Wanted(
        name=name, data_dir=data_dir, image_size=image_size, callback=callback,
        loader=loader, room=room,
    )  # fmt: skip
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
    if wanted.loader == "disk" and wanted.name in _READERS:
        raise UsageError(
            f"loader is disk, expected resident or workers with {wanted.name}",
            hint="only folders of images and .npz files are read from disk",
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
    callback: Callback = ignore,
) -> Dataset:
    """A dataset with the mean and deviation of its training images, all of which are read.

    Its labels have the smallest type, so that equal labels are equal bytes.

    Raises:
        DatasetError: A channel has the same value in all training images.
    """
    dtype = torch.uint8 if classes <= 256 else torch.int64
    train, test = (Samples(split.images, split.labels.to(dtype)) for split in (train, test))
    counts, digest = _survey(path, train, test, callback)
    mean, std = mean_and_std_of(counts)
    if min(std) == 0:
        number, channels = std.index(0) + 1, len(std)
        raise DatasetError(
            f"{path}: channel {number} of {channels} has the same value in all training images",
            hint="remove the channel: a network can learn nothing from it",
        )
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
        content=digest,
    )


def _survey(path: Path, train: Samples, test: Samples, callback: Callback) -> tuple[Tensor, str]:
    """Read all images once: the counts of the training pixels, ``(c, 256)``, and the digest."""
    # Added up at once: small results that are kept would keep the memory between them, too.
    counts = torch.zeros((train.images.shape[1], 256), dtype=torch.int64)
    done, total = 0, len(train) + len(test)

    def seen(split: Samples, images: Tensor) -> None:
        nonlocal done
        done += len(images)
        if split is train:
            counts.add_(pixel_counts(images))
        if isinstance(split.images, OnDisk):  # else they were reported as they came into memory
            callback(Loading(title(path), done, total, " img"))

    return counts, digest_of(train, test, seen)


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
