"""Images and labels in the arrays of an ``.npz`` file, by their usual names.

Sources: keras' ``mnist.npz`` and MedMNIST, for the names.
"""

from math import prod
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import torch
from torch import Tensor

from ckpt.errors import DatasetError
from ckpt.train.data.arrays import find_array, parsing, read_array, rows_on_disk
from ckpt.train.data.dataset import Dataset, Wanted, own_dataset
from ckpt.train.data.on_disk import OnDisk
from ckpt.train.data.samples import Samples, every_fifth

_LAYOUTS = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x", "y"),
)
_LARGEST_LABEL = 2**31 - 1


def read(wanted: Wanted) -> Dataset:
    """Read images ``(n, h, w)`` or ``(n, h, w, c)`` and labels ``(n,)`` or ``(n, 1)``.

    If the file has only ``x`` and ``y``, every fifth image from the first on is a test image.

    Raises:
        DatasetError: The file is damaged, or an array is missing, or has another type or shape.
    """
    path = Path(wanted.name)
    with parsing(str(path)):
        archive = ZipFile(path)
    with archive:
        keys = _keys(archive)
        train, *rest = (
            _split(archive, wanted, *keys[at : at + 2]) for at in range(0, len(keys), 2)
        )
    train, test = (train, rest[0]) if rest else every_fifth(train)
    _expect_alike(path, train, test)
    return own_dataset(
        name="npz",
        path=path,
        train=train,
        test=test,
        classes=int(train.labels.max()) + 1,
        test_from=keys[2] if rest else "every fifth",
        callback=wanted.callback,
    )


def _keys(archive: ZipFile) -> tuple[str, ...]:
    """The names of the layout that the file has."""
    names = archive.namelist()
    found = {name.removesuffix(".npy") for name in names if name.endswith(".npy")}
    layout = max(_LAYOUTS, key=lambda names: len(found.intersection(names)) / len(names))
    if missing := [name for name in layout if name not in found]:
        listed = ", ".join(sorted(found)[:8]) or "no arrays"
        hint = "arrays must be named " + "; or ".join(", ".join(names) for names in _LAYOUTS)
        raise DatasetError(
            f"{archive.filename}: {', '.join(missing)} missing, found {listed}", hint=hint
        )
    return layout


def _split(archive: ZipFile, wanted: Wanted, images_key: str, labels_key: str) -> Samples:
    images, labels = _images(archive, images_key, wanted), _read_labels(archive, labels_key)
    if len(images) != len(labels):
        counts = f"{len(images):,} images, {labels_key} {len(labels):,} labels"
        raise DatasetError(f"{archive.filename}: {images_key} has {counts}")
    if not len(images):
        raise DatasetError(f"{archive.filename}: {images_key} has no images")
    return Samples(images, labels)


def _images(archive: ZipFile, key: str, wanted: Wanted) -> Tensor | OnDisk:
    """``(n, c, h, w)`` uint8."""
    found = find_array(archive, key, "|u1", "uint8", "store the pixels as uint8, from 0 to 255")
    shape = found.shape
    known = len(shape) == 3 or (len(shape) == 4 and 1 <= shape[3] <= 4)
    if not known or 0 in shape[1:]:
        expected = "(n, h, w) or (n, h, w, c), c from 1 to 4"
        raise DatasetError(f"{archive.filename}: {key} has shape {shape}, expected {expected}")
    if wanted.stays_on_disk(prod(shape)) and (wanted.loader == "disk" or found.is_in_rows):
        return rows_on_disk(archive, found)
    images = torch.from_numpy(read_array(archive, found))
    return images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()


def _read_labels(archive: ZipFile, key: str) -> Tensor:
    """``(n,)`` int64, from 0."""
    array = read_array(archive, find_array(archive, key, "iu", "whole numbers"))
    shape = array.shape
    if len(shape) != 1 and not (len(shape) == 2 and shape[1] == 1):
        raise DatasetError(f"{archive.filename}: {key} has shape {shape}, expected (n,) or (n, 1)")
    for label in (int(array.min()), int(array.max())) if array.size else ():
        if not 0 <= label <= _LARGEST_LABEL:
            raise _bad_label(archive.filename, key, label)
    return torch.from_numpy(array.reshape(-1).astype(np.int64))


def _expect_alike(path: Path, train: Samples, test: Samples) -> None:
    """Both splits have images of one shape, and all classes of the test are trained on."""
    if len(train) < 2:
        raise DatasetError(f"{path}: {len(train)} images to train on, expected 2 or more")
    shapes = [tuple(split.images.shape[1:]) for split in (train, test)]
    if shapes[0] != shapes[1]:
        raise DatasetError(
            f"{path}: (c, h, w) is {shapes[0]} for training, {shapes[1]} for testing"
        )
    largest, tested = int(train.labels.max()), int(test.labels.max())
    if largest == 0:
        raise DatasetError(f"{path}: one class to train on, expected two or more")
    if largest >= len(train):
        raise _bad_label(path, f"one of {len(train):,} training images", largest)
    if tested > largest:
        raise DatasetError(f"{path}: test label {tested}, but 0 to {largest} to train on")


def _bad_label(path: object, owner: str, label: int) -> DatasetError:
    hint = "labels must number the classes from 0"
    return DatasetError(f"{path}: {owner} has label {label}", hint=hint)
