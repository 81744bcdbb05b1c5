"""Images that stay on disk and are read when they are asked for.

Law: their bytes are those that the same images would have in memory. A file that has changed since
it was found is an error: no run trains on images that its digest does not describe.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from ckpt.errors import DatasetError

_CHUNK = 4 << 20  # bytes that are read at once where all images are read

Stamp = tuple[int, int]  # size in bytes, time of the last change in nanoseconds


class Source(Protocol):
    """Where images are read from, in this process or in a worker."""

    def read(self, row: int) -> Tensor:
        """The image of a row, ``(c, h, w)`` uint8.

        Raises:
            DatasetError: It cannot be read, or has changed.
        """


@dataclass(frozen=True, slots=True)
class OnDisk:
    """Images ``(n, c, h, w)`` uint8, of which none is in memory.

    Attributes:
        rows: ``(n,)`` int64, the rows of `source`.
        size: ``(c, h, w)``.
    """

    source: Source = field(repr=False)
    rows: Tensor = field(repr=False)
    size: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: Tensor | slice) -> Tensor:
        """These images, in memory."""
        rows = self.rows[chosen].tolist()
        images = torch.empty((len(rows), *self.size), dtype=torch.uint8)
        for at, row in enumerate(rows):
            images[at] = self.source.read(row)
        return images

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(n, c, h, w)``."""
        return (len(self), *self.size)

    @property
    def nbytes(self) -> int:
        """Bytes that they would take in memory."""
        return prod(self.shape)

    def only(self, chosen: Tensor | slice) -> "OnDisk":
        """A part of them, on disk too."""
        return OnDisk(self.source, self.rows[chosen], self.size)

    def chunks(self) -> Iterator[Tensor]:
        """All of them in order, some megabytes at once."""
        count = max(1, _CHUNK // prod(self.size))
        return (self[at : at + count] for at in range(0, len(self), count))


def stamp(found: os.stat_result) -> Stamp:
    """What changes with the content of a file."""
    return found.st_size, found.st_mtime_ns


def expect_same(where: object, found: os.stat_result, before: Stamp) -> None:
    """Refuse a file that has changed since `before`.

    Raises:
        DatasetError: It has.
    """
    if stamp(found) != before:
        raise DatasetError(
            f"{where}: has changed since the run began",
            hint="start the run again, or bring the file back and --resume",
        )
