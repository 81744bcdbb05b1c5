"""Datasets as resident tensors, and where to look for them.

A dataset is two splits of images of one size with a label each. Which module reads which
is a table; each is imported when asked for.
"""

import hashlib
import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ckpt.errors import DatasetError

Note = Callable[[str], None]
_READERS = {
    "mnist": "ckpt.train.mnist",
    "fashion-mnist": "ckpt.train.mnist",
    "kmnist": "ckpt.train.mnist",
    "digits": "ckpt.train.digits",
}


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
        name: As in the recipe, never ``auto``.
        title: As people call it.
        found: How it was found: ``--data-dir``, ``CKPT_DATA``, ``cache``, ``download`` or
            ``scikit-learn``; goes into records, where a folder's name would not belong.
        where: The folder, for people, with the home folder as ``~``.
        classes: How many there are; every label is below it.
        mean: Of the training pixels taken as [0, 1], for each channel.
        std: Likewise.
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
            "classes": self.classes,
            "mean": list(self.mean),
            "std": list(self.std),
        }


def load_dataset(name: str, *, data_dir: Path | None, note: Note) -> Dataset:
    """Bring a dataset into memory.

    Args:
        name: As in the recipe. ``auto`` is MNIST, or scikit-learn's digits where there are
            no files of MNIST and none can be downloaded; `note` is told so.
        data_dir: Looked into before ``CKPT_DATA`` and the cache.
        note: Takes one plain line.

    Raises:
        DatasetError: It is not to be had, or damaged; damaged files of MNIST are an error
            for ``auto`` too, never a reason to train on something else.
    """
    if name == "auto":
        try:
            return _read("mnist", data_dir, note)
        except AbsentError as error:
            note(f"{error}; training on scikit-learn's 1,797 handwritten digits instead")
            name = "digits"
    return _read(name, data_dir, note)


def _read(name: str, data_dir: Path | None, note: Note) -> Dataset:
    dataset: Dataset = importlib.import_module(_READERS[name]).read(name, data_dir, note)
    return dataset


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
