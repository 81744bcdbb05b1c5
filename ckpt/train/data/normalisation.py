"""Normalisation: from pixels as bytes to the batches that a model sees."""

import torch
from torch import Tensor

Raw = tuple[Tensor, Tensor]  # (b, c, h, w) uint8, (b,) whole numbers
MicroBatch = tuple[Tensor, Tensor]  # (b, c, h, w) float32 normalised, (b,) int64


def mean_and_std(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of uint8 pixels taken as [0, 1], by channel, from exact integer sums."""
    return mean_and_std_of(pixel_counts(images))


def pixel_counts(images: Tensor) -> Tensor:
    """How many pixels have each value, ``(c, 256)`` int64: those of parts of the images add up."""
    channels = (images[:, channel].flatten() for channel in range(images.shape[1]))
    return torch.stack([torch.bincount(pixels, minlength=256) for pixels in channels])


def mean_and_std_of(counts: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """As `mean_and_std`, from the counts of the pixels."""
    means, deviations = zip(*map(_mean_and_std, counts.double()), strict=True)
    return means, deviations


def _mean_and_std(counts: Tensor) -> tuple[float, float]:
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = float((counts * values).sum() / counts.sum())
    return mean, float((counts * (values - mean) ** 2).sum() / counts.sum()) ** 0.5


def normalise(raw: Raw, *, mean: Tensor, std: Tensor) -> MicroBatch:
    """Images ``(b, c, h, w)`` float32 as from torchvision's ToTensor and Normalize, labels int64.

    Args:
        raw: On any device.
        mean: ``(c, 1, 1)`` float32, there too.
        std: Standard deviation, as `mean`.
    """
    images, labels = raw
    return images.float().div_(255).sub_(mean).div_(std), labels.long()
