"""Arrays in .npz files: what is read, and that nothing else is."""

import io
import re
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ckpt.errors import DatasetError
from ckpt.train.data.dataset import Dataset, load_dataset

KEYS = ("x_train", "y_train", "x_test", "y_test")


def arrays(**others: Any) -> dict[str, Any]:
    """Ten training images of 4 x 5 and three of the test, of three classes."""
    noise = np.random.default_rng(0).integers(0, 256, (13, 4, 5), dtype=np.uint8)
    labels = np.arange(13) % 3
    return {
        **dict(zip(KEYS, (noise[:10], labels[:10], noise[10:], labels[10:]), strict=True)),
        **others,
    }


def load(path: Path, **content: Any) -> Dataset:
    if content:
        np.savez_compressed(path, **content)
    return load_dataset(str(path))


def refused(path: Path, **content: Any) -> str:
    with pytest.raises(DatasetError) as error:
        load(path, **content)
    assert error.value.exit_code == 3
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(path), "FILE")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.npz"


def test_arrays_become_resident_bytes(path: Path) -> None:
    content = arrays()
    dataset = load(path, **content)
    assert torch.equal(dataset.train.images, torch.from_numpy(content["x_train"])[:, None])
    assert dataset.test.labels.tolist() == [1, 2, 0]
    assert (dataset.train.labels.dtype, dataset.classes) == (torch.uint8, 3)
    assert (dataset.name, dataset.title, dataset.found) == ("npz", "data.npz", "--dataset")
    assert (dataset.test_from, dataset.class_names) == ("x_test", ())
    assert str(path.parent) not in str(dataset.describe())
    assert dataset.where == f"{path} (x_test for testing)"


def test_digest_is_that_of_the_values(path: Path) -> None:
    expected = load(path, **arrays()).digest()
    content = arrays()
    content["x_train"] = np.asfortranarray(content["x_train"])
    content["y_train"] = content["y_train"].astype(">i2")
    content["y_test"] = content["y_test"].astype(np.uint64)[:, None]
    np.savez(path, **content)
    assert load(path).digest() == expected


def test_names_of_medmnist(path: Path) -> None:
    content = arrays()
    names = ("train_images", "train_labels", "test_images", "test_labels")
    renamed = dict(zip(names, content.values(), strict=True))
    renamed["val_images"] = np.array([None])
    renamed["train_labels"] = renamed["train_labels"][:, None]
    assert load(path, **renamed).digest() == load(path, **content).digest()


def test_every_fifth_of_one_array_is_the_tests(path: Path) -> None:
    images = np.arange(12 * 4, dtype=np.uint8).reshape(12, 2, 2)
    dataset = load(path, x=images, y=np.arange(12) % 2)
    assert dataset.test.images[:, 0, 0, 0].tolist() == [0, 20, 40]
    assert dataset.test_from == "every fifth"
    assert len(dataset.train) == 9


def test_channels_come_first(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (13, 4, 5, 3), dtype=np.uint8)
    dataset = load(path, **arrays(x_train=noise[:10], x_test=noise[10:]))
    assert dataset.train.images.shape == (10, 3, 4, 5)
    assert dataset.train.images[2, 1, 3, 4] == noise[2, 3, 4, 1]
    assert len(dataset.mean) == 3


X, Y = arrays()["x_train"], arrays()["y_train"]
WRONG = {
    "floats": ({"x_train": X / 255}, "x_train holds float64, expected uint8"),
    "wide": ({"x_test": X[:3].astype(np.int64)}, "x_test holds int64, expected uint8"),
    "objects": ({"x_train": np.array([X, None], dtype=object)}, "x_train holds Python objects"),
    "records": ({"x_train": np.zeros(3, dtype="u1,u1")}, "x_train holds void16, expected uint8"),
    "flat": ({"x_train": X.reshape(10, 20)}, "x_train has shape (10, 20), expected (n, h, w) or"),
    "channels first": ({"x_train": X[:, None]}, "x_train has shape (10, 1, 4, 5), expected"),
    "no pixels": ({"x_train": X[:, :0]}, "x_train has shape (10, 0, 5), expected"),
    "none": ({"x_test": X[:0], "y_test": Y[:0]}, "x_test has no images"),
    "text": ({"y_train": Y.astype(str)}, "y_train holds str"),
    "float labels": ({"y_train": Y * 1.0}, "y_train holds float64, expected whole numbers"),
    "yes and no": ({"y_train": Y > 0}, "y_train holds bool, expected whole numbers"),
    "one-hot": ({"y_train": np.eye(10, 3, dtype=int)}, "y_train has shape (10, 3), expected (n,)"),
    "scalar": ({"y_train": np.array(3)}, "y_train has shape (), expected (n,) or (n, 1)"),
    "counts": ({"y_train": Y[:9]}, "x_train has 10 images, y_train 9 labels"),
    "negative": ({"y_test": Y[:3] - 1}, "y_test has label -1"),
    "huge": ({"y_train": Y + 2**60}, "y_train has label 11529215046068469"),
    "huge unsigned": ({"y_train": np.full(10, 2**64 - 1)}, "y_train has label 1844674407370955161"),
    "many": ({"y_train": Y + 8}, "one of 10 training images has label 10"),
    "unknown": ({"y_test": Y[:3] + 1}, "test label 3, but 0 to 2 to train on"),
    "one class": ({"y_train": Y * 0, "y_test": Y[:3] * 0}, "one class to train on, expected two"),
    "other size": ({"x_test": X[:3, :, :4]}, "(c, h, w) is (1, 4, 5) for training, (1, 4, 4) for"),
    "blank": ({"x_train": X * 0}, "channel 1 of 1 has the same value in all training images"),
}  # fmt: skip


@pytest.mark.parametrize(("others", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_dataset_is_refused(path: Path, others: dict[str, Any], message: str) -> None:
    assert refused(path, **arrays(**others)).startswith(f"FILE: {message}")


def test_one_image_is_not_enough(path: Path) -> None:
    assert refused(path, x=X[:1], y=Y[:1]) == "FILE: 0 images to train on, expected 2 or more"


def test_missing_names_are_told_with_those_that_are_there(path: Path) -> None:
    content = arrays()
    del content["y_test"]
    assert refused(path, **content) == "FILE: y_test missing, found x_test, x_train, y_train"
    assert refused(path, images=X) == "FILE: x_train, y_train, x_test, y_test missing, found images"


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x05\x06" + bytes(10), b"PK\x03\x04"])
def test_what_is_no_archive_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert refused(path).startswith("FILE: damaged: ")


def test_damage_is_found(path: Path) -> None:
    np.savez(path, **arrays())
    whole = path.read_bytes()
    at = whole.index(X.tobytes())
    path.write_bytes(whole[: at + 9] + bytes([whole[at + 9] ^ 1]) + whole[at + 10 :])
    assert re.match("FILE: x_train: damaged: Bad CRC-32", refused(path))
    for end in range(0, len(whole), 97):
        path.write_bytes(whole[:end])
        assert refused(path).startswith("FILE: ")


def member(content: bytes, *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An .npz whose x_train has this content."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays())
    made = io.BytesIO()
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(made, "w", method) as target:
        for name in source.namelist():
            target.writestr(name, content if name == "x_train.npy" else source.read(name))
    return made.getvalue()


def npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    text = header.encode()
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(text)) + text + data


SHAPE = "{'descr': '|u1', 'fortran_order': False, 'shape': %s}\n"
LIES = {
    "too little": (
        npy(SHAPE % "(10, 28, 28)", bytes(9)),
        "header promises 7,914 bytes, the file holds 83",
    ),
    "too much": (npy(SHAPE % "(1, 2, 2)", bytes(9)), "header promises 75 bytes, the file holds 80"),
    "huge": (
        npy(SHAPE % "(2147483648, 2147483648, 4)"),
        "header promises 18,446,744,073,709,551,705 by",
    ),
    "negative": (npy(SHAPE % "(-1, 28, 28)"), ""),
    "no header": (b"\x93NUMPY\1\0\xff\xff{", ""),
    "no tuple": (npy(SHAPE % "'x'"), ""),
    "code": (npy("__import__('os').abort()\n"), ""),
    "version": (npy(SHAPE % "(1, 2, 2)", bytes(4), version=3), "NPY version 3.0, expected 1.0"),
    "no array": (b"hello there", ""),
    "empty": (b"", ""),
}


@pytest.mark.parametrize(("content", "message"), LIES.values(), ids=LIES)
def test_header_that_lies_is_refused(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(member(content))
    assert refused(path).startswith("FILE: x_train: damaged: " + message)


def test_bomb_is_refused_within_bounds(path: Path) -> None:
    """A tenth of a megabyte that would become a hundred; and a directory that claims more."""
    size = 100 << 20
    honest = member(npy(SHAPE % f"({size >> 20}, 1024, 1024)", bytes(size)))
    with zipfile.ZipFile(io.BytesIO(honest)) as archive:
        info = archive.getinfo("x_train.npy")
    fields = struct.pack("<II", info.compress_size, info.file_size)
    at = honest.rindex(fields)
    claimed = honest[:at] + struct.pack("<II", 2**31, 2**31) + honest[at + 8 :]
    for content in (honest, claimed):
        path.write_bytes(content)
        tracemalloc.start()
        message = refused(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert re.match("FILE: x_train: [0-9,]+ bytes would unpack to [0-9,]+", message)
        assert peak < 1 << 20
