"""Images and labels in the arrays of an ``.npz`` file, by their usual names.

Law: nothing is unpickled, and memory is bounded by the size of the file: an array is read only if
its header, its size in the archive and its ratio to the file agree. numpy reads headers and values.
Sources: keras' ``mnist.npz`` and MedMNIST, for the names.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile

import numpy as np
import torch
from torch import Tensor

from ckpt.errors import DatasetError
from ckpt.train.data.dataset import Dataset, Samples, Wanted, every_fifth, own_dataset

_LAYOUTS = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x", "y"),
)
_LARGEST_LABEL = 2**31 - 1

# DEFLATE reaches 1,032 to 1; images reach 100 to 1 only if they are blank.
_RATIO_LIMIT = 100
_FREE_BYTES = 64 << 20
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read(wanted: Wanted) -> Dataset:
    """Read images ``(n, h, w)`` or ``(n, h, w, c)`` and labels ``(n,)`` or ``(n, 1)``.

    If the file has only ``x`` and ``y``, every fifth image from the first on is a test image.

    Raises:
        DatasetError: The file is damaged, or an array is missing, or has another type or shape.
    """
    path = Path(wanted.name)
    with _parsing(str(path)):
        archive = ZipFile(path)
    with archive:
        keys = _keys(archive)
        train, *rest = (_split(archive, *keys[at : at + 2]) for at in range(0, len(keys), 2))
    train, test = (train, rest[0]) if rest else every_fifth(train)
    _expect_alike(path, train, test)
    return own_dataset(
        name="npz",
        path=path,
        train=train,
        test=test,
        classes=int(train.labels.max()) + 1,
        test_from=keys[2] if rest else "every fifth",
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


def _split(archive: ZipFile, images_key: str, labels_key: str) -> Samples:
    images, labels = _read_images(archive, images_key), _read_labels(archive, labels_key)
    if len(images) != len(labels):
        counts = f"{len(images):,} images, {labels_key} {len(labels):,} labels"
        raise DatasetError(f"{archive.filename}: {images_key} has {counts}")
    if not len(images):
        raise DatasetError(f"{archive.filename}: {images_key} has no images")
    return Samples(images, labels)


def _read_images(archive: ZipFile, key: str) -> Tensor:
    """``(n, c, h, w)`` uint8."""
    hint = "store the pixels as uint8, from 0 to 255"
    array = _read_array(archive, key, kinds="|u1", expected="uint8", hint=hint)
    shape = array.shape
    known = len(shape) == 3 or (len(shape) == 4 and 1 <= shape[3] <= 4)
    if not known or 0 in shape[1:]:
        expected = "(n, h, w) or (n, h, w, c), c from 1 to 4"
        raise DatasetError(f"{archive.filename}: {key} has shape {shape}, expected {expected}")
    images = torch.from_numpy(array)
    return images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()


def _read_labels(archive: ZipFile, key: str) -> Tensor:
    """``(n,)`` int64, from 0."""
    array = _read_array(archive, key, kinds="iu", expected="whole numbers")
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


@contextmanager
def _parsing(where: str) -> Iterator[None]:
    """Turn any exception of a parser into a `DatasetError` about `where`."""
    try:
        yield
    except DatasetError:
        raise
    except Exception as error:  # foreign bytes, in parsers of zipfile's and numpy's
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        hint = "write or fetch the file again"
        raise DatasetError(f"{where}: damaged: {reason}", hint=hint) from error


def _read_array(
    archive: ZipFile, key: str, *, kinds: str, expected: str, hint: str | None = None
) -> np.ndarray[Any, Any]:
    """The array ``KEY.npy``, unless it is damaged or larger than the file can hold.

    `kinds` has the allowed values of numpy's `dtype.kind`, or is a whole `dtype.str`.
    """
    where, info = f"{archive.filename}: {key}", archive.getinfo(f"{key}.npy")
    with _parsing(where):
        packed = min(info.compress_size, Path(str(archive.filename)).stat().st_size)
        if info.file_size > max(_FREE_BYTES, _RATIO_LIMIT * packed):
            raise DatasetError(
                f"{where}: {packed:,} bytes would unpack to {info.file_size:,}",
                hint="numpy.savez  writes uncompressed arrays",
            )
        with archive.open(info) as stream:
            shape, dtype = _read_header(stream)
            promised = stream.tell() + prod(shape) * dtype.itemsize
        if dtype.kind not in kinds and dtype.str != kinds:
            found = "Python objects" if dtype.hasobject else dtype.name
            raise DatasetError(f"{where} holds {found}, expected {expected}", hint=hint)
        if promised != info.file_size:
            raise ValueError(
                f"header promises {promised:,} bytes, the file holds {info.file_size:,}"
            )
        with archive.open(info) as stream:
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False), order="C")


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"NPY version {version[0]}.{version[1]}, expected 1.0 or 2.0")
    shape, _, dtype = _HEADERS[version](stream)
    return shape, dtype
