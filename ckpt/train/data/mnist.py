"""MNIST, Fashion-MNIST and KMNIST: IDX files in torchvision's layout.

They are read in place, unpacked or packed, or downloaded. An unpacked file is checked against its
own header, and MNIST's against a digest; an archive has to be the published one.

Source: yann.lecun.com/exdb/mnist (the IDX format).
"""

import struct
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from ckpt.errors import DatasetError
from ckpt.train.data.dataset import (
    AbsentError,
    Dataset,
    Wanted,
    cache_folder,
    places,
    short_path,
)
from ckpt.train.data.download import DownloadError, NotPublishedError, expect_digest, fetch
from ckpt.train.data.normalisation import mean_and_std
from ckpt.train.data.published import PUBLISHED, PublishedDataset
from ckpt.train.data.samples import Samples
from ckpt.train.watch.events import Note

# Of MNIST's unpacked files, which have no checksum of their own; from the published archives.
_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def read(wanted: Wanted) -> Dataset:
    """Read from the first folder that has it, or download it into the cache.

    MNIST is normalised with the usual mean and deviation, 0.1307 and 0.3081; the others with
    those of their training images.

    Raises:
        AbsentError: It is not here, and cannot be downloaded.
        DatasetError: Its files are damaged, or some are missing.
    """
    name, published = wanted.name, PUBLISHED[wanted.name]
    found, raw = _find(published, wanted.data_dir) or _download(published, wanted)
    train, test = (_read_split(raw, part, name) for part in ("train", "t10k"))
    mean, std = ((0.1307,), (0.3081,)) if name == "mnist" else mean_and_std(train[:][0])
    return Dataset(
        name=name,
        title=published.title,
        found=found,
        where=short_path(raw.parent),
        train=train,
        test=test,
        classes=10,
        mean=mean,
        std=std,
        test_from="published",
    )


def _find(published: PublishedDataset, data_dir: Path | None) -> tuple[str, Path] | None:
    files = published.archives
    for found, place in places(data_dir):
        raw = place / published.folder / "raw"
        missing = [file for file in files if not _variants(raw / file)]
        if not missing:
            return found, raw
        if len(missing) < len(files):
            raise DatasetError(
                f"{raw}: {', '.join(missing)} missing",
                hint="add the missing files, or remove the folder",
            )
    return None


def _variants(path: Path) -> list[Path]:
    """The file, and the file as an archive; those that exist."""
    return [file for file in (path, path.with_name(path.name + ".gz")) if file.is_file()]


def _read_split(raw: Path, part: str, name: str) -> Samples:
    images = _read_idx(raw / f"{part}-images-idx3-ubyte", name)  # (n, 28, 28) uint8
    labels = _read_idx(raw / f"{part}-labels-idx1-ubyte", name)  # (n,) uint8
    if images.shape[1:] != (28, 28) or len(images) != len(labels):
        shapes = f"images {tuple(images.shape)} and labels {tuple(labels.shape)}"
        raise DatasetError(f"{raw}: {part} has {shapes}, expected (n, 28, 28) and (n,)")
    if int(labels.max()) > 9:
        raise DatasetError(f"{raw}: {part} has label {int(labels.max())}, expected 0 to 9")
    return Samples(images[:, None], labels)


def _read_idx(path: Path, name: str) -> Tensor:
    """The tensor of one IDX file, unpacked or as an archive, verified; uint8."""
    file = _variants(path)[0]
    try:
        if file != path:
            content = PUBLISHED[name].archives[path.name].unpack(file)
            shape = _read_shape(content, len(content), path)
        else:
            with file.open("rb") as stream:
                header = stream.read(16)
                shape = _read_shape(header, file.stat().st_size, path)
                content = header + stream.read()
        if name == "mnist":
            expect_digest(content, _SHA256[path.name])
    except NotPublishedError as error:
        raise DatasetError(f"{file}: not the published file ({error})", hint=_AGAIN) from error
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror or error}") from error
    begin = 4 + 4 * len(shape)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=begin).view(shape)


def _read_shape(start: bytes, size: int, path: Path) -> tuple[int, ...]:
    """The shape in the header, after a check of its magic number and the file's size."""
    dimensions = 3 if "images" in path.name else 1
    header = start[: 4 + 4 * dimensions]
    magic = 0x0800 + dimensions  # 08: unsigned bytes
    if len(header) < 4 + 4 * dimensions or int.from_bytes(header[:4], "big") != magic:
        begins = header[:4].hex() or "nothing"
        raise DatasetError(f"{path}: starts with {begins}, expected {magic:08x}", hint=_AGAIN)
    shape = struct.unpack(f">{dimensions}I", header[4:])
    if 0 in shape:
        raise DatasetError(f"{path}: holds no samples", hint=_AGAIN)
    expected = len(header) + prod(shape)
    if size != expected:
        raise DatasetError(
            f"{path}: header promises {expected:,} bytes, the file holds {size:,}", hint=_AGAIN
        )
    return shape


_AGAIN = "the file is damaged; delete it and download it again"


def _download(published: PublishedDataset, wanted: Wanted) -> tuple[str, Path]:
    """Download into the cache."""
    folder, title = cache_folder() / published.folder, published.title
    wanted.callback(Note(f"{title}: downloading to {short_path(folder)}"))
    archives = published.archives.values()
    try:
        fetch(archives, published.mirrors, folder, callback=wanted.callback)
    except (OSError, DownloadError) as error:
        raise AbsentError(
            f"{title}: not found on this machine, and the download failed",
            hint=f"--data-dir DIR or CKPT_DATA=DIR uses a copy in DIR/{published.folder}/raw/; "
            f"--dataset digits needs no download\n{error}",
        ) from error
    return "download", folder / "raw"
