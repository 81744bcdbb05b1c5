"""Folders of images: labels and splits by names, pixels by Pillow, and what a bad one says."""

import random
import re
import struct
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image

from ckpt.errors import DatasetError, UsageError
from ckpt.train.data.dataset import Dataset, load_dataset
from ckpt.train.watch.events import Event, Loading, Note


def load(folder: Path, size: int = 0) -> tuple[Dataset, list[str]]:
    notes: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    return load_dataset(str(folder), image_size=size, callback=note), notes


def picture(path: Path, value: int = 0, mode: str = "L", size: tuple[int, int] = (4, 3)) -> Path:
    """An image of noise, whose first pixel has `value` in all channels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = random.Random(str(path.name)).randbytes(size[0] * size[1] * len(mode))
    image = Image.frombytes(mode, size, bytes([value] * len(mode)) + noise[len(mode) :])
    image.save(path)
    return path


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two classes of eleven grey images, made in no order."""
    folder = tmp_path / "pets"
    for number in random.Random(0).sample(range(11), 11):
        picture(folder / "dog" / f"{number:02}.png", 100 + number)
        picture(folder / "cat" / f"{number:02}.png", number)
    return folder


def first_pixels(images: torch.Tensor) -> list[int]:
    return images[:, 0, 0, 0].tolist()


def test_every_fifth_image_of_a_class_is_the_tests(pets: Path) -> None:
    dataset, notes = load(pets)
    train, test = dataset.train, dataset.test
    assert first_pixels(test.images) == [0, 5, 10, 100, 105, 110]
    assert test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    left = [1, 2, 3, 4, 6, 7, 8, 9]
    assert first_pixels(train.images) == [*left, *(100 + number for number in left)]
    assert train.labels.tolist() == [0] * 8 + [1] * 8
    assert (train.images.dtype, train.images.shape) == (torch.uint8, (16, 1, 3, 4))
    assert (dataset.name, dataset.title, dataset.found) == ("folder", "pets", "--dataset")
    assert (dataset.class_names, dataset.classes) == (("cat", "dog"), 2)
    assert (dataset.where, notes) == (f"{pets} (every fifth for testing)", [])
    assert str(pets) not in str(dataset.describe())
    assert dataset.describe()["class_names"] == ["cat", "dog"]


@pytest.mark.parametrize("test", ["test", "val"])
def test_folders_train_and_test_are_the_splits(tmp_path: Path, test: str) -> None:
    for part, names in (("train", "ab"), (test, "c")):
        for kind in ("cat", "dog"):
            for name in names:
                picture(tmp_path / part / kind / "deep" / f"{name}.png", ord(name))
    dataset, _ = load(tmp_path)
    assert first_pixels(dataset.train.images) == [97, 98, 97, 98]
    assert first_pixels(dataset.test.images) == [99, 99]
    assert dataset.test_from == f"{test}/"


def test_val_is_left_alone_where_there_is_test(tmp_path: Path) -> None:
    for part in ("train", "test", "val"):
        picture(tmp_path / part / "cat" / "a.png", ord(part[0]))
        picture(tmp_path / part / "dog" / "a.png", ord(part[0]))
    assert first_pixels(load(tmp_path)[0].test.images) == [ord("t"), ord("t")]


def test_one_coloured_image_makes_all_rgb(pets: Path) -> None:
    grey = load(pets)[0].train.images
    picture(pets / "dog" / "10.png", 110, "RGB")
    images = load(pets)[0].train.images
    assert images.shape == (16, 3, 3, 4)
    assert torch.equal(images, grey.expand(16, 3, 3, 4))  # 10.png is a test image
    expected = Image.open(pets / "dog" / "10.png").convert("RGB").tobytes()
    assert load(pets)[0].test.images[-1].permute(1, 2, 0).numpy().tobytes() == expected


@pytest.mark.parametrize(
    ("mode", "suffix", "channels"),
    [
        ("L", ".jpg", 1),
        ("LA", ".png", 1),
        ("1", ".png", 1),
        ("RGB", ".webp", 3),
        ("RGBA", ".png", 3),
        ("P", ".png", 3),
        ("CMYK", ".tif", 3),
        ("RGB", ".PPM", 3),
    ],
)
def test_modes_and_formats(pets: Path, mode: str, suffix: str, channels: int) -> None:
    for number in range(3):
        path = pets / "cow" / f"{number}{suffix}"
        picture(path.with_suffix(".png"), 9)
        with Image.open(path.with_suffix(".png")) as image:
            converted = image.convert(mode)
        path.with_suffix(".png").unlink()
        converted.save(path)
    dataset, _ = load(pets)
    assert dataset.train.images.shape[1] == channels
    assert dataset.class_names == ("cat", "cow", "dog")


def test_image_size_brings_all_to_one(pets: Path) -> None:
    wide = Image.new("L", (30, 10))
    wide.paste(200, (8, 0, 22, 10))  # the middle
    wide.save(pets / "cat" / "01.png")
    with pytest.raises(DatasetError) as refused:
        load(pets)
    expected = f"{pets}/cat/02.png is 4 × 3, {pets}/cat/01.png is 30 × 10"
    assert str(refused.value) == expected
    assert "--image-size" in str(refused.value.hint)
    dataset, _ = load(pets, 8)
    assert dataset.train.images.shape == (16, 1, 8, 8)
    assert dataset.train.images[0].unique().tolist() == [200]


def test_files_that_are_no_images_are_counted(pets: Path) -> None:
    (pets / "labels.csv").write_text("")
    (pets / "cat" / "._01.png").write_text("")
    (pets / ".git").mkdir()
    expected = load(pets)[0].digest()
    (pets / "cat" / "notes.txt").write_text("")
    dataset, notes = load(pets)
    assert notes == [f"{pets}: skipped 3 files without an image's suffix"]
    assert dataset.digest() == expected


def test_decoding_sends_an_event_for_each_image(pets: Path) -> None:
    events: list[Event] = []
    load_dataset(str(pets), callback=events.append)
    assert events == [Loading("pets", number, 22, " img") for number in range(1, 23)]


def png(width: int, height: int) -> bytes:
    """A grey PNG that has next to nothing in it (PNG specification, 5.3 and 11.2)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        end = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + end

    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


def ruin(pets: Path, name: str) -> None:
    target = pets / "dog" / "05.png"
    match name:
        case "empty":
            target.write_bytes(b"")
        case "text":
            target.write_text("hello")
        case "cut short":
            target.write_bytes(target.read_bytes()[:50])
        case "cut in its header":
            target.write_bytes(target.read_bytes()[:20])
        case "postscript":
            target.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 3\n")
        case "bomb":
            target.write_bytes(png(20_000, 20_000))
        case "half a bomb":  # between Pillow's warning and its error
            target.write_bytes(png(10_000, 10_000))
        case "deep":
            Image.new("I;16", (4, 3)).save(target)


RUINED = {
    "empty": "not a readable image: cannot identify",
    "text": "not a readable image: cannot identify",
    "cut short": "not a readable image: ",
    "cut in its header": "not a readable image: ",
    "postscript": "not a readable image: cannot identify",
    "bomb": "not a readable image: Image size (400000000 pixels) exceeds limit",
    "half a bomb": "not a readable image: Image size (100000000 pixels) exceeds limit",
    "deep": "pixels of mode I;16, expected 8 bits a channel",
}


@pytest.mark.parametrize("name", RUINED)
@pytest.mark.parametrize("size", [0, 8])
def test_image_that_cannot_be_read_is_named(pets: Path, name: str, size: int) -> None:
    ruin(pets, name)
    with pytest.raises(DatasetError, match=re.escape(RUINED[name])) as refused:
        load(pets, size)
    assert str(refused.value).startswith(f"{pets}/dog/05.png: ")
    assert str(refused.value).count("05.png") == 1
    assert refused.value.exit_code == 3


def test_folders_that_are_no_dataset(tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(DatasetError) as error:
            load(path)
        return str(error.value).replace(str(path), "FOLDER")

    folder = tmp_path / "f"
    assert refused(folder) == "FOLDER: no such file or folder"
    folder.mkdir()
    assert refused(folder) == "FOLDER: contains no folders, expected one for each class"
    picture(folder / "cat" / "a.png")
    picture(folder / "cat" / "b.png")
    assert refused(folder) == "FOLDER: one class, cat, expected two or more"
    (folder / "dog").mkdir()
    assert refused(folder) == "FOLDER/dog: no images"
    picture(folder / "dog" / "a.png")
    assert refused(folder) == "FOLDER/dog: 1 image, expected 2 or more"


def test_splits_that_do_not_agree(tmp_path: Path) -> None:
    for each in ("train/cat/a", "train/dog/a", "test/cat/a"):
        picture(tmp_path / f"{each}.png")
    train, test = tmp_path / "train", tmp_path / "test"
    with pytest.raises(DatasetError, match=f"^{test}: class dog is missing, but {train} has it$"):
        load(tmp_path)
    for each in ("test/dog/a", "test/emu/a"):
        picture(tmp_path / f"{each}.png")
    with pytest.raises(DatasetError, match=f"^{train}: class emu is missing, but {test} has it$"):
        load(tmp_path)


def test_class_whose_name_is_no_text(tmp_path: Path) -> None:
    for name in (b"a", b"\xff"):
        folder = tmp_path / name.decode(errors="surrogateescape")
        picture(folder / "a.png")
        picture(folder / "b.png")
    with pytest.raises(DatasetError, match="the name is not valid UTF-8"):
        load(tmp_path)


def test_images_without_any_difference_are_refused(tmp_path: Path) -> None:
    for name in ("a/1", "a/2", "b/1", "b/2"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (4, 3)).save(path)
    with pytest.raises(
        DatasetError, match="channel 1 of 1 has the same value in all training images"
    ):
        load(tmp_path)


def test_image_size_is_for_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="image-size is 8, expected 0 with digits"):
        load_dataset("digits", image_size=8)
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(DatasetError, match=r"a.csv: expected a folder of images or an .npz file"):
        load(tmp_path / "a.csv")
