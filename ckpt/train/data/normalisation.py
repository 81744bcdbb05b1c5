"""Pixels as bytes, and as what a model sees."""

import torch
from torch import Tensor

from ckpt.train.loop import MicroBatch

Raw = tuple[Tensor, Tensor]  # (b, c, h, w) uint8, (b,) whole numbers


def mean_and_std(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of uint8 pixels taken as [0, 1], for each channel, from exact integer sums."""
    channels = [_mean_and_std(images[:, channel]) for channel in range(images.shape[1])]
    means, deviations = zip(*channels, strict=True)
    return means, deviations


def _mean_and_std(pixels: Tensor) -> tuple[float, float]:
    counts = torch.bincount(pixels.flatten(), minlength=256).double()
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = float((counts * values).sum() / counts.sum())
    return mean, float((counts * (values - mean) ** 2).sum() / counts.sum()) ** 0.5


def normalise(raw: Raw, *, mean: Tensor, std: Tensor) -> MicroBatch:
    """``(b, c, h, w)`` float32 as torchvision's ToTensor and Normalize give, ``(b,)`` int64.

    Args:
        raw: On any device.
        mean: ``(c, 1, 1)`` float32, there too.
        std: Likewise.
    """
    images, labels = raw
    return images.float().div_(255).sub_(mean).div_(std), labels.long()
