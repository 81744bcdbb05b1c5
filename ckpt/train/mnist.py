"""MNIST, Fashion-MNIST and KMNIST: IDX files in torchvision's layout.

torchvision downloads, checks and reads them. What lies on the disk is measured against its
own header first, because torchvision's reader answers a damaged file with an assertion, and
against the published digests where they are known.

Sources: yann.lecun.com/exdb/mnist (the IDX format); torchvision 0.28 `datasets/mnist.py`.
"""

import contextlib
import gzip
import hashlib
import http.client
import io
import shutil
import socket
import struct
import tempfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ckpt.definitions import declare_torchvision_ops
from ckpt.errors import DatasetError
from ckpt.train.dataset import (
    AbsentError,
    Dataset,
    Note,
    Split,
    cache_folder,
    for_people,
    places,
)
from ckpt.train.pixels import mean_and_std

_CLASSES = {
    "mnist": ("MNIST", "MNIST"),
    "fashion-mnist": ("FashionMNIST", "Fashion-MNIST"),
    "kmnist": ("KMNIST", "KMNIST"),
}
# Of MNIST's unpacked files, which come without a checksum of their own; taken from the
# archives whose MD5 torchvision knows.
_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_CONNECT_SECONDS = 15.0


def read(name: str, data_dir: Path | None, note: Note) -> Dataset:
    """Read from the first place that has it, or download it into the cache.

    MNIST is normalised with the mean and deviation that everybody uses for it, 0.1307 and
    0.3081; the others with those of their training images.

    Raises:
        AbsentError: It is in no place, and cannot be downloaded.
        DatasetError: Its files are damaged, or some are missing.
    """
    folder, title = _CLASSES[name]
    found, raw = _find(folder, data_dir) or _download(name, note)
    train, test = (_read_split(raw, part, name) for part in ("train", "t10k"))
    mean, std = ((0.1307,), (0.3081,)) if name == "mnist" else mean_and_std(train.images)
    return Dataset(
        name=name,
        title=title,
        found=found,
        where=for_people(raw.parent),
        train=train,
        test=test,
        classes=10,
        mean=mean,
        std=std,
    )


def _find(folder: str, data_dir: Path | None) -> tuple[str, Path] | None:
    for found, place in places(data_dir):
        raw = place / folder / "raw"
        missing = [file for file in _SHA256 if not _variants(raw / file)]
        if not missing:
            return found, raw
        if len(missing) < len(_SHA256):
            raise DatasetError(
                f"{raw}: {', '.join(missing)} missing",
                hint="add what is missing, or take the folder away",
            )
    return None


def _variants(path: Path) -> list[Path]:
    """The file as it is and packed, whichever there are."""
    return [file for file in (path, path.with_name(path.name + ".gz")) if file.is_file()]


def _read_split(raw: Path, part: str, name: str) -> Split:
    images = _read_idx(raw / f"{part}-images-idx3-ubyte", name)  # (n, 28, 28) uint8
    labels = _read_idx(raw / f"{part}-labels-idx1-ubyte", name)  # (n,) uint8
    if images.shape[1:] != (28, 28) or len(images) != len(labels):
        shapes = f"images {tuple(images.shape)} and labels {tuple(labels.shape)}"
        raise DatasetError(f"{raw}: {part} has {shapes}, expected (n, 28, 28) and (n,)")
    if int(labels.max()) > 9:
        raise DatasetError(f"{raw}: {part} has label {int(labels.max())}, expected 0 to 9")
    return Split(images[:, None], labels)


def _read_idx(path: Path, name: str) -> Tensor:
    """The tensor of one IDX file, verified; uint8."""
    from_torchvision = _torchvision_mnist()
    try:
        with _unpacked(path, name) as file:
            _check_header(file, path, dimensions=3 if "images" in path.name else 1)
            if name == "mnist":
                _check_digest(file, path, "sha256", _SHA256[path.name])
            tensor: Tensor = from_torchvision.read_sn3_pascalvincent_tensor(str(file))
            return tensor.to(torch.uint8)
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror or error}") from error


@contextlib.contextmanager
def _unpacked(path: Path, name: str) -> Iterator[Path]:
    """The file itself, or a temporary copy of what its archive holds.

    An archive has to be the published one, so its unpacked size needs no limit.
    """
    file = _variants(path)[0]
    if file == path:
        yield file
        return
    published = dict(getattr(_torchvision_mnist(), _CLASSES[name][0]).resources)
    _check_digest(file, file, "md5", published[file.name])
    with tempfile.TemporaryDirectory(prefix="ckpt-") as folder:
        copy = Path(folder) / path.name
        with gzip.open(file) as packed, copy.open("wb") as out:
            shutil.copyfileobj(packed, out)
        yield copy


def _check_header(file: Path, path: Path, *, dimensions: int) -> None:
    """The header's magic number, and that the file is as long as it says."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        header = stream.read(4 + 4 * dimensions)
    magic = 0x0800 + dimensions  # 08: unsigned bytes
    if len(header) < 4 + 4 * dimensions or int.from_bytes(header[:4], "big") != magic:
        start = header[:4].hex() or "nothing"
        raise DatasetError(f"{path}: starts with {start}, expected {magic:08x}", hint=_AGAIN)
    if not any(header[4:8]):
        raise DatasetError(f"{path}: holds no samples", hint=_AGAIN)
    expected = len(header) + prod(struct.unpack(f">{dimensions}I", header[4:]))
    if size != expected:
        raise DatasetError(
            f"{path}: header promises {expected:,} bytes, the file holds {size:,}", hint=_AGAIN
        )


def _check_digest(file: Path, path: Path, algorithm: str, expected: str) -> None:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, algorithm).hexdigest()
    if digest != expected:
        raise DatasetError(
            f"{path}: not the published file ({algorithm} {digest[:8]}…, expected {expected[:8]}…)",
            hint=_AGAIN,
        )


_AGAIN = "the file is damaged; delete it and fetch it again"


def _download(name: str, note: Note) -> tuple[str, Path]:
    """Fetch into the cache by torchvision, which checks what it fetches.

    The folder gets its name when it is whole, so that an interruption leaves nothing.
    """
    folder, title = _CLASSES[name]
    cache = cache_folder()
    note(f"{title}: fetching it into {for_people(cache / folder)}")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".fetching-") as fetching, _quietly():
            getattr(_torchvision_mnist(), folder)(root=fetching, download=True)
            (Path(fetching) / folder).rename(cache / folder)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise AbsentError(
            f"{title}: not found here, and it cannot be downloaded",
            hint=f"--data-dir DIR or CKPT_DATA=DIR with DIR/{folder}/raw/ names a copy; "
            "--dataset digits needs none",
        ) from error
    return "download", cache / folder / "raw"


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Nothing printed (torchvision draws its own bars), and no waiting for a dead network."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_CONNECT_SECONDS)
    silence = io.StringIO()
    try:
        with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _torchvision_mnist() -> Any:
    declare_torchvision_ops()
    from torchvision.datasets import mnist

    return mnist
