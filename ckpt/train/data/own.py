"""Datasets of one's own: the parts that folders and ``.npz`` files share."""

from pathlib import Path

import torch

from ckpt.errors import DatasetError
from ckpt.train.data.dataset import Dataset, Samples, short_path
from ckpt.train.data.normalisation import mean_and_std


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
