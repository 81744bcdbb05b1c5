"""Images with their labels: split, and read once from the first to the last."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ckpt.train.data.on_disk import OnDisk


@dataclass(frozen=True, slots=True)
class Samples:
    """Images ``(n, c, h, w)`` uint8 and labels ``(n,)``, whole numbers from 0."""

    images: Tensor | OnDisk = field(repr=False)
    labels: Tensor = field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: Tensor | slice) -> tuple[Tensor, Tensor]:
        return self.images[chosen], self.labels[chosen]

    def only(self, chosen: Tensor | slice) -> "Samples":
        """A part of them; images on disk stay there."""
        images, labels = self.images, self.labels[chosen]
        return Samples(
            images.only(chosen) if isinstance(images, OnDisk) else images[chosen], labels
        )

    def chunks(self) -> Iterator[Tensor]:
        """The images in order: all at once if they are in memory."""
        return self.images.chunks() if isinstance(self.images, OnDisk) else iter((self.images,))


Seen = Callable[[Samples, Tensor], None]


def every_fifth(whole: Samples) -> tuple[Samples, Samples]:
    """Split off test images: every fifth, from the first on."""
    tested = torch.arange(len(whole)) % 5 == 0
    return whole.only(~tested), whole.only(tested)


def digest_of(train: Samples, test: Samples, seen: Seen = lambda *_: None) -> str:
    """SHA-256 of the bytes of train images, train labels, test images, test labels.

    `seen` gets the split and its images, one part after another: all of them are read for this.
    """
    hasher = hashlib.sha256()
    for split in (train, test):
        for images in split.chunks():
            hasher.update(images.contiguous().numpy().data)
            seen(split, images)
        hasher.update(split.labels.contiguous().numpy().data)
    return "sha256:" + hasher.hexdigest()
