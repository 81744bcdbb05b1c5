"""The training images: MNIST, or with `--quick` some of scikit-learn's digits.

Both lie in files of torchvision's layout, so that torchvision and ckpt read the same ones.
"""

import os
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ckpt.definitions.importing import declare_torchvision_ops
from ckpt.train.data.dataset import Dataset, load_dataset

QUICK = {"train": 256, "t10k": 64}  # images; 256 are four batches of 64


@dataclass(frozen=True)
class Images:
    """A dataset's name, for ckpt, and the folder of its files."""

    name: str
    folder: Path

    def load(self) -> Dataset:
        """As `ckpt train` has them: in memory."""
        return load_dataset(self.name, data_dir=self.folder)

    def one_by_one(self, *, train: bool) -> Any:
        """As the usual example has them: PIL images, each through ToTensor and Normalize."""
        declare_torchvision_ops()
        from torchvision import datasets, transforms

        transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
        )
        reader = datasets.MNIST if self.name == "mnist" else datasets.KMNIST
        return reader(self.folder, train=train, transform=transform)


@contextmanager
def find_images(*, quick: bool) -> Iterator[Images]:
    """MNIST in the folder that CKPT_DATA names, or a few digits in a scratch folder."""
    if not quick:
        folder = os.environ.get("CKPT_DATA", "")
        if not Path(folder, "MNIST").is_dir():
            sys.exit("CKPT_DATA names no folder with MNIST; --quick runs without it")
        yield Images("mnist", Path(folder))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_digits(Path(folder))
        print("quick: 256 of scikit-learn's digits in place of MNIST, too few to compare ways by\n")
        # Files called MNIST would be refused: ckpt knows the digests of the published ones.
        yield Images("kmnist", Path(folder))


def write_digits(folder: Path) -> None:
    """Write the first of scikit-learn's digits as torchvision lays out KMNIST."""
    digits = load_dataset("digits")
    raw = folder / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, split in (("train", digits.train), ("t10k", digits.test)):
        images, labels = split[: QUICK[part]]
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(images[:, 0]))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))


def idx(tensor: Tensor) -> bytes:
    """A uint8 tensor as an IDX file. Source: yann.lecun.com/exdb/mnist."""
    header = struct.pack(f">{1 + tensor.dim()}I", 0x0800 + tensor.dim(), *tensor.shape)
    return header + tensor.numpy().tobytes()
