"""Datasets as resident tensors, and where to look for them.

A dataset is two splits of images of one size with a label each. Which module reads which
is a table; each is imported when asked for. What is no name of the table is a path.
"""

import hashlib
import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ckpt.errors import DatasetError, UsageError
from ckpt.train.data.download import Loading

Note = Callable[[str], None]
_READERS = {
    "mnist": "ckpt.train.data.mnist",
    "fashion-mnist": "ckpt.train.data.mnist",
    "kmnist": "ckpt.train.data.mnist",
    "digits": "ckpt.train.data.digits",
}
_FOLDERS, _ARRAYS = "ckpt.train.data.folder", "ckpt.train.data.npz"


@dataclass(frozen=True, slots=True)
class Split:
    """Images ``(n, c, h, w)`` uint8 and labels ``(n,)``, whole numbers from 0."""

    images: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A dataset in memory.

    Attributes:
        name: As in the recipe, never ``auto``; of people's own data ``folder`` or ``npz``.
        title: As people call it.
        found: How it was found: ``--dataset``, ``--data-dir``, ``CKPT_DATA``, ``cache``,
            ``download`` or ``scikit-learn``; goes into records, where a folder's name would
            not belong.
        where: The folder, for people, with the home folder as ``~``.
        classes: How many there are; every label is below it.
        mean: Of the training pixels taken as [0, 1], for each channel.
        std: Likewise.
        test_from: Which images are the test's: ``published``, ``every fifth``, or where they
            stand.
        class_names: By label; empty where labels have no names.
    """

    name: str
    title: str
    found: str
    where: str
    train: Split
    test: Split
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
    """What a reader is asked for.

    Attributes:
        name: Of the table, or a path.
        data_dir: Looked into before ``CKPT_DATA`` and the cache.
        image_size: Height and width that a folder's images are brought to; 0 for their own.
        note: Takes one plain line.
        loading: Told of what takes a while.
    """

    name: str
    data_dir: Path | None
    image_size: int
    note: Note
    loading: Loading


def load_dataset(
    name: str,
    *,
    data_dir: Path | None,
    note: Note,
    image_size: int = 0,
    loading: Loading = lambda *_: None,
) -> Dataset:
    """Bring a dataset into memory.

    Args:
        name: As in the recipe. ``auto`` is MNIST, or scikit-learn's digits where there are
            no files of MNIST and none can be downloaded; `note` is told so.
        data_dir: See `Wanted`, and so for the others.
        note: Likewise.
        image_size: Likewise.
        loading: Likewise.

    Raises:
        DatasetError: It is not to be had, or damaged; damaged files of MNIST are an error
            for ``auto`` too, never a reason to train on something else.
        UsageError: `image_size` is for a folder of images alone.
    """
    wanted = Wanted(name=name, data_dir=data_dir, image_size=image_size, note=note, loading=loading)
    if name != "auto":
        return _read(wanted)
    try:
        return _read(replace(wanted, name="mnist"))
    except AbsentError as error:
        note(f"{error}; training on scikit-learn's 1,797 handwritten digits instead")
        return _read(replace(wanted, name="digits"))


def _read(wanted: Wanted) -> Dataset:
    module = _READERS.get(wanted.name) or _reader_of(Path(wanted.name))
    if wanted.image_size and module != _FOLDERS:
        raise UsageError(
            f"image-size is {wanted.image_size}, expected 0 with {wanted.name}",
            hint="only images of a folder are brought to another size",
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
    raise DatasetError(f"{path}: neither a folder of images nor an .npz file")


def every_fifth(count: int) -> Tensor:
    """Which of so many images are the test's where nothing else says it: ``(count,)`` bool."""
    return torch.arange(count) % 5 == 0


class AbsentError(DatasetError):
    """A dataset is in none of the places, and cannot be downloaded."""


def places(data_dir: Path | None) -> Iterator[tuple[str, Path]]:
    """Where datasets may lie, with what each place is called, in the order of looking."""
    if data_dir is not None:
        yield "--data-dir", data_dir
    if environment := os.environ.get("CKPT_DATA"):
        yield "CKPT_DATA", Path(environment)
    yield "cache", cache_folder()


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/ckpt``, by default ``~/.cache/ckpt``; it need not exist.

    Source: XDG Base Directory Specification, which has relative paths ignored.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path("~/.cache").expanduser()) / "ckpt"


def for_people(folder: Path) -> str:
    """A folder's name with the home folder as ``~``."""
    home = Path("~").expanduser()
    return str("~" / folder.relative_to(home)) if folder.is_relative_to(home) else str(folder)
