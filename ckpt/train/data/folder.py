"""Folders of images by class: ``FOLDER/CLASS/*.png``, as torchvision's ImageFolder has them.

If FOLDER holds the folders ``train`` and ``test`` (or ``val``), they hold the classes and are the
splits; else every fifth image of each class is a test image. Law: the label of an image and its
position depend only on names, sorted as text, not on the disk's order.

Source: torchvision 0.28 `datasets/folder.py`, for the suffixes.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ckpt.errors import DatasetError
from ckpt.train.data.dataset import Dataset, Wanted, own_dataset, title
from ckpt.train.data.on_disk import OnDisk, expect_same, stamp
from ckpt.train.data.samples import Samples
from ckpt.train.watch.events import Loading, Note

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"),
)
# By content, not by suffix: Pillow would run PostScript that is named .png.
_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
_GREY = ("1", "L", "LA")  # Pillow's modes
_DEEP = ("I", "F")  # and their variants, of more than 8 bits
_LAYOUT = "FOLDER/CLASS/*.png, or train and test folders of such classes"

ByClass = Mapping[str, Sequence[Path]]


def read(wanted: Wanted) -> Dataset:
    """Decode all images, grey if all of them are, else RGB; transparency is ignored.

    Raises:
        DatasetError: There are fewer than two classes, a class has no images, an image cannot be
            read or has another size than the others.
    """
    folder = Path(wanted.name)
    train, test, test_from = _list(folder, wanted)
    if len(train) < 2:
        raise DatasetError(
            f"{folder}: one class, {next(iter(train))}, expected two or more", hint=_LAYOUT
        )
    paths = [*chain.from_iterable((*train.values(), *test.values()))]
    files = _image_files(folder, paths, wanted.image_size)
    images = OnDisk(files, torch.arange(len(paths)), files.shape)
    whole = Samples(
        images if wanted.stays_on_disk(images.nbytes) else _decoded(images, wanted),
        torch.cat((_labels(train), _labels(test))),
    )
    count = sum(map(len, train.values()))
    return own_dataset(
        name="folder",
        path=folder,
        train=whole.only(slice(count)),
        test=whole.only(slice(count, None)),
        classes=len(train),
        test_from=test_from,
        class_names=tuple(train),
        callback=wanted.callback,
    )


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """Images of one shape, each in a file below `folder`.

    Attributes:
        names: Of the files; text, which takes less memory than paths.
        stamps: ``(n, 2)`` int64, as `on_disk.Stamp`.
        shape: ``(c, h, w)``.
        resized: Whether to resize and crop them to that.
    """

    folder: str
    names: tuple[str, ...]
    stamps: Tensor
    shape: tuple[int, int, int]
    resized: bool

    def read(self, row: int) -> Tensor:
        """Decode an image; see `on_disk.Source`."""
        path = Path(self.folder, self.names[row])
        with _open_image(path) as image:
            size, changed = self.stamps[row].tolist()
            expect_same(path, path.stat(), (size, changed))
            return _pixels(image, self.shape, resized=self.resized)


def _image_files(folder: Path, paths: Sequence[Path], image_size: int) -> ImageFiles:
    stamps = torch.tensor([stamp(path.stat()) for path in paths])
    names = tuple(str(path.relative_to(folder)) for path in paths)
    shape = _common_shape(paths, image_size)
    return ImageFiles(str(folder), names, stamps, shape, resized=image_size > 0)


def _list(folder: Path, wanted: Wanted) -> tuple[ByClass, ByClass, str]:
    """The images to train on and to test, of the same classes, and where the latter are from."""
    test = next((name for name in ("test", "val") if (folder / name).is_dir()), None)
    if test is None or not (folder / "train").is_dir():
        return *_every_fifth(folder, _by_class(folder, wanted)), "every fifth"
    train_folder, test_folder = folder / "train", folder / test
    of_train, of_test = _by_class(train_folder, wanted), _by_class(test_folder, wanted)
    for lacking, other, names in (
        (test_folder, train_folder, of_train.keys() - of_test),
        (train_folder, test_folder, of_test.keys() - of_train),
    ):
        if names:
            raise DatasetError(f"{lacking}: class {min(names)} is missing, but {other} has it")
    return of_train, of_test, f"{test}/"


def _by_class(folder: Path, wanted: Wanted) -> ByClass:
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and _is_seen(path))
    if not classes:
        raise DatasetError(
            f"{folder}: contains no folders, expected one for each class", hint=_LAYOUT
        )
    images: dict[Path, list[Path]] = {}
    others = sum(path.is_file() for path in folder.iterdir())
    for of_class in classes:
        files = sorted(path for path in of_class.rglob("*") if path.is_file())
        images[of_class] = [path for path in files if _is_image(path)]
        others += len(files) - len(images[of_class])
        if not images[of_class]:
            raise DatasetError(
                f"{of_class}: no images",
                hint=f"file names of images end in {' '.join(sorted(SUFFIXES))}",
            )
    if others:
        text = f"{folder}: skipped {others:,} file{'s' * (others != 1)} without an image's suffix"
        wanted.callback(Note(text))
    return {_class_name(of_class): paths for of_class, paths in images.items()}


def _is_seen(path: Path) -> bool:
    return not path.name.startswith(".")


def _is_image(path: Path) -> bool:
    """Judged by its suffix; macOS leaves files like ``._cat.png`` on other disks."""
    return path.suffix.lower() in SUFFIXES and _is_seen(path)


def _class_name(folder: Path) -> str:
    """The name, which goes into the record."""
    try:
        folder.name.encode()
    except UnicodeEncodeError as error:
        raise DatasetError(
            f"{folder}: the name is not valid UTF-8", hint="rename the folder"
        ) from error
    return folder.name


def _every_fifth(folder: Path, images: ByClass) -> tuple[ByClass, ByClass]:
    for name, paths in images.items():
        if len(paths) < 2:
            raise DatasetError(
                f"{folder / name}: 1 image, expected 2 or more",
                hint="every fifth image of a class, from the first on, is a test image",
            )
    train = {
        name: [path for at, path in enumerate(paths) if at % 5] for name, paths in images.items()
    }
    return train, {name: paths[::5] for name, paths in images.items()}


def _labels(part: ByClass) -> Tensor:
    counts = torch.tensor([len(paths) for paths in part.values()])
    return torch.arange(len(part)).repeat_interleave(counts)


def _common_shape(paths: Sequence[Path], image_size: int) -> tuple[int, int, int]:
    """``(c, h, w)`` of all images, from their headers.

    Raises:
        DatasetError: Two differ in size, and `image_size` does not make them equal.
    """
    with _open_image(paths[0]) as image:
        first = image.size
    grey = True
    for path in paths:
        with _open_image(path) as image:
            mode, size = image.mode, image.size  # (w, h)
        grey &= mode in _GREY
        if mode.startswith(_DEEP):
            raise DatasetError(f"{path}: pixels of mode {mode}, expected 8 bits a channel")
        if size != first and not image_size:
            across, expected = (f"{w:,} × {h:,}" for w, h in (size, first))
            raise DatasetError(
                f"{path} is {across}, {paths[0]} is {expected}",
                hint="--image-size PIXELS  resizes all of them",
            )
    width, height = (image_size, image_size) if image_size else first
    return 1 if grey else 3, height, width


def _decoded(stored: OnDisk, wanted: Wanted) -> Tensor:
    """``(n, c, h, w)`` uint8."""
    folder, count = Path(wanted.name), len(stored)
    try:
        images = torch.empty((count, *stored.size), dtype=torch.uint8)
    except RuntimeError as error:  # torch's allocator got no memory from the system
        gigabytes = stored.nbytes / 1e9
        raise DatasetError(
            f"{folder}: {count:,} images take {gigabytes:,.1f} GB, more than the free memory",
            hint="--loader disk  reads them when they are needed",
        ) from error
    for at in range(count):
        images[at] = stored.source.read(at)
        wanted.callback(Loading(title(folder), at + 1, count, " img"))
    return images


def _pixels(image: "Image", shape: tuple[int, int, int], *, resized: bool) -> Tensor:
    """``(c, h, w)`` uint8; resized by Pillow's `ImageOps.fit`, which keeps the middle."""
    from PIL import Image, ImageOps

    channels, height, width = shape
    image = image.convert("L" if channels == 1 else "RGB")
    if resized:
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return flat.view(height, width, channels).permute(2, 0, 1)


@contextmanager
def _open_image(path: Path) -> Iterator["Image"]:
    """The image, whose pixels are decoded on demand; Pillow's limit on them is an error."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                yield image
    except DatasetError:
        raise
    except Exception as error:  # foreign bytes, in a parser of Pillow's
        reason = " ".join(str(error).split()).replace(f" '{path}'", "")[:200]
        raise DatasetError(
            f"{path}: not a readable image: {reason}", hint="repair or remove it"
        ) from error
