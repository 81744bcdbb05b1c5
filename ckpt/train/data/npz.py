"""Images and labels in the arrays of an ``.npz`` file, by their usual names.

Sources: keras' ``mnist.npz`` and MedMNIST, for the names.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ckpt.errors import DatasetError
from ckpt.train.data.arrays import ArrayFile, open_arrays
from ckpt.train.data.dataset import Dataset, Samples, Wanted, every_fifth
from ckpt.train.data.own import as_labels, own_dataset

_LAYOUTS = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x", "y"),
)
_CHANNELS = range(1, 5)
_LARGEST_LABEL = 2**31 - 1


def read(wanted: Wanted) -> Dataset:
    """Read images ``(n, h, w)`` or ``(n, h, w, c)`` and labels ``(n,)`` or ``(n, 1)``.

    If the file has only ``x`` and ``y``, every fifth image from the first on is a test image.

    Raises:
        DatasetError: The file is damaged, or an array is missing, or has another type or shape.
    """
    path = Path(wanted.name)
    with open_arrays(path) as file:
        keys = _keys(path, file.keys())
        train, *rest = (_split(file, *keys[at : at + 2]) for at in range(0, len(keys), 2))
    train, test = (train, rest[0]) if rest else _every_fifth(train)
    _expect_alike(path, train, test)
    classes = int(train.labels.max()) + 1
    return own_dataset(
        name="npz",
        path=path,
        splits=(_compact(train, classes), _compact(test, classes)),
        classes=classes,
        test_from=keys[2] if rest else "every fifth",
    )


def _keys(path: Path, found: Collection[str]) -> tuple[str, ...]:
    """The names of the layout that the file has."""
    layout = max(_LAYOUTS, key=lambda names: len(set(names) & set(found)) / len(names))
    if missing := [name for name in layout if name not in found]:
        listed = ", ".join(sorted(found)[:8]) or "no arrays"
        hint = "arrays must be named " + "; or ".join(", ".join(names) for names in _LAYOUTS)
        raise DatasetError(f"{path}: {', '.join(missing)} missing, found {listed}", hint=hint)
    return layout


def _split(file: ArrayFile, images_key: str, labels_key: str) -> Samples:
    images, labels = _read_images(file, images_key), _read_labels(file, labels_key)
    if len(images) != len(labels):
        counts = f"{len(images):,} images, {labels_key} {len(labels):,} labels"
        raise DatasetError(f"{file.path}: {images_key} has {counts}")
    if not len(images):
        raise DatasetError(f"{file.path}: {images_key} has no images")
    return Samples(images, labels)


def _read_images(file: ArrayFile, key: str) -> Tensor:
    """``(n, c, h, w)`` uint8."""
    pixels = "|u1"
    hint = "store the pixels as uint8, from 0 to 255"
    array = file.read(key, kinds=pixels, expected="uint8", hint=hint)
    shape = array.shape
    known = len(shape) == 3 or (len(shape) == 4 and shape[3] in _CHANNELS)
    if not known or 0 in shape[1:]:
        expected = "(n, h, w) or (n, h, w, c), c from 1 to 4"
        raise DatasetError(f"{file.path}: {key} has shape {shape}, expected {expected}")
    images = torch.from_numpy(array)
    return images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()


def _read_labels(file: ArrayFile, key: str) -> Tensor:
    """``(n,)`` int64, from 0."""
    array = file.read(key, kinds="iu", expected="whole numbers")
    shape = array.shape
    if len(shape) != 1 and not (len(shape) == 2 and shape[1] == 1):
        raise DatasetError(f"{file.path}: {key} has shape {shape}, expected (n,) or (n, 1)")
    for label in (int(array.min()), int(array.max())) if array.size else ():
        if not 0 <= label <= _LARGEST_LABEL:
            raise _bad_label(file.path, key, label)
    return torch.from_numpy(array.reshape(-1).astype(np.int64))


def _every_fifth(whole: Samples) -> tuple[Samples, Samples]:
    tested = every_fifth(len(whole))
    return Samples(*whole[~tested]), Samples(*whole[tested])


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


def _bad_label(path: Path, owner: str, label: int) -> DatasetError:
    hint = "labels must number the classes from 0"
    return DatasetError(f"{path}: {owner} has label {label}", hint=hint)


def _compact(split: Samples, classes: int) -> Samples:
    return Samples(split.images, as_labels(split.labels, classes))
