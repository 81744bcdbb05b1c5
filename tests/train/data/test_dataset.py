"""Datasets: where they are found, and what a damaged one says."""

import gzip
import hashlib
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ckpt.errors import DatasetError
from ckpt.train.data.dataset import AbsentError, load_dataset
from ckpt.train.data.digits import enlarge
from ckpt.train.data.download import PublishedFile
from ckpt.train.data.published import PUBLISHED
from ckpt.train.watch.events import Note

SIZES = {"train": 5, "t10k": 3}
FILES = [f"{part}-{what}" for part in SIZES for what in ("images-idx3-ubyte", "labels-idx1-ubyte")]


def idx(shape, data=None):
    size = torch.Size(shape).numel()
    header = struct.pack(f">I{len(shape)}I", 0x0800 + len(shape), *shape)
    return header + (bytes(at % 10 for at in range(size)) if data is None else data)


def layout(folder: Path, name="KMNIST") -> Path:
    """A small dataset in torchvision's layout; gives the folder of its files."""
    raw = folder / name / "raw"
    raw.mkdir(parents=True)
    for part, count in SIZES.items():
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx((count, 28, 28)))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx((count,)))
    return raw


def load(name, data_dir=None):
    notes = []
    dataset = load_dataset(name, data_dir=data_dir, callback=notes.append)
    return dataset, notes


@pytest.mark.parametrize(
    ("name", "folder"), [("kmnist", "KMNIST"), ("fashion-mnist", "FashionMNIST")]
)
def test_files_become_resident_bytes(tmp_path, name, folder):
    layout(tmp_path, folder)
    dataset, notes = load(name, tmp_path)
    assert (dataset.train.images.shape, dataset.train.images.dtype) == ((5, 1, 28, 28), torch.uint8)
    assert dataset.test.labels.tolist() == [0, 1, 2]
    assert (dataset.name, dataset.found, notes) == (name, "--data-dir", [])
    values = dataset.train.images.double() / 255
    assert dataset.mean == pytest.approx([values.mean().item()])
    assert dataset.std == pytest.approx([values.std(correction=0).item()])


def test_digest_is_that_of_the_bytes_in_order(tmp_path):
    raw = layout(tmp_path)
    content = b"".join((raw / name).read_bytes()[16 if "images" in name else 8 :] for name in FILES)
    assert load("kmnist", tmp_path)[0].digest() == "sha256:" + hashlib.sha256(content).hexdigest()


def test_places_are_looked_into_in_order(tmp_path, monkeypatch):
    layout(tmp_path / "cache" / "ckpt")
    assert load("kmnist")[0].found == "cache"
    layout(tmp_path / "environment")
    monkeypatch.setenv("CKPT_DATA", str(tmp_path / "environment"))
    assert load("kmnist", tmp_path / "elsewhere")[0].found == "CKPT_DATA"
    layout(tmp_path / "given")
    assert load("kmnist", tmp_path / "given")[0].found == "--data-dir"


def test_auto_falls_back_to_digits_and_says_so(tmp_path):
    dataset, notes = load("auto", tmp_path)
    assert (dataset.name, dataset.found) == ("digits", "scikit-learn")
    assert notes[-1] == Note(
        "MNIST: not found on this machine, and the download failed; "
        "training on scikit-learn's 1,797 handwritten digits instead"
    )


def test_mnist_asked_for_by_name_is_not_replaced(tmp_path):
    with pytest.raises(AbsentError, match="MNIST: not found on this machine") as caught:
        load("mnist", tmp_path)
    assert caught.value.exit_code == 3
    assert "--data-dir" in caught.value.hint
    assert "CKPT_DATA" in caught.value.hint
    assert not (tmp_path / "cache" / "ckpt" / "MNIST").exists()


def test_a_cache_that_cannot_be_made_is_no_reason_to_fail(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert load("auto")[0].name == "digits"


def test_archives_are_read_where_they_are_the_published_ones(tmp_path, monkeypatch):
    raw = layout(tmp_path)
    expected = load("kmnist", tmp_path)[0].digest()
    archives = {}
    for name in FILES:
        packed = raw / f"{name}.gz"
        packed.write_bytes(gzip.compress((raw / name).read_bytes()))
        archives[name] = archive_of(packed, (raw / name).stat().st_size)
        (raw / name).unlink()
    kmnist = replace(PUBLISHED["kmnist"], archives=archives)
    monkeypatch.setitem(PUBLISHED, "kmnist", kmnist)
    assert load("kmnist", tmp_path)[0].digest() == expected
    assert sorted(path.name for path in raw.iterdir()) == sorted(f"{name}.gz" for name in FILES)


def archive_of(packed: Path, unpacked: int) -> PublishedFile:
    content = packed.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return PublishedFile(name=packed.name, nbytes=len(content), sha256=digest, unpacked=unpacked)


def test_fault_44_other_or_truncated_archives_are_refused(tmp_path):
    """Before anything of them is unpacked, whatever they would become."""
    raw = layout(tmp_path)
    for name in FILES:
        (raw / f"{name}.gz").write_bytes(gzip.compress(bytes(99)))
        (raw / name).unlink()
    packed = raw / f"{FILES[0]}.gz"
    refused = f"{packed.name}: not the published file"
    size = PUBLISHED["kmnist"].archives[FILES[0]].nbytes
    for content in (b"", packed.read_bytes(), packed.read_bytes()[:-9], bytes(size + 1)):
        packed.write_bytes(content)
        with pytest.raises(DatasetError, match=f"{refused} .{len(content):,} bytes, expected"):
            load("kmnist", tmp_path)
    packed.write_bytes(bytes(size))
    with pytest.raises(DatasetError, match=f"{refused} .sha256 ") as caught:
        load("kmnist", tmp_path)
    assert caught.value.exit_code == 3


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
DAMAGE = {
    "empty": (IMAGES, b"", "starts with nothing, expected 00000803"),
    "header cut": (IMAGES, idx((5, 28, 28))[:9], "starts with 00000803"),
    "cut short": (IMAGES, idx((5, 28, 28))[:-1], "promises 3,936 bytes, the file holds 3,935"),
    "too long": (LABELS, idx((5,)) + b"\0", "promises 13 bytes, the file holds 14"),
    "wrong magic": (LABELS, b"\x1f\x8b\x08\x00" + bytes(9), "starts with 1f8b0800"),
    "wrong dtype": (LABELS, b"\0\0\x0d\x01" + idx((5,))[4:], "starts with 00000d01"),
    "labels for images": (IMAGES, idx((5,)) + bytes(9), "expected 00000803"),
    "huge": (IMAGES, struct.pack(">4I", 0x803, 5, 2**31, 2**31), "promises 23,058,430,092,136"),
    "other count": (LABELS, idx((4,)), r"images \(5, 28, 28\) and labels \(4,\)"),
    "other size": (IMAGES, idx((5, 27, 28)), r"images \(5, 27, 28\)"),
    "none": (IMAGES, idx((0, 28, 28)), "holds no samples"),
    "no pixels": (IMAGES, idx((5, 0, 28)), "holds no samples"),
    "label 10": (LABELS, idx((5,), bytes([1, 2, 10, 0, 0])), "label 10, expected 0 to 9"),
}


@pytest.mark.parametrize(("name", "content", "message"), DAMAGE.values(), ids=DAMAGE)
def test_fault_44_damaged_files_are_refused_by_name(tmp_path, name, content, message):
    raw = layout(tmp_path)
    (raw / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        load("kmnist", tmp_path)
    assert caught.value.exit_code == 3
    assert str(caught.value).startswith(str(raw))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    raw = layout(tmp_path)
    (raw / FILES[3]).unlink()
    with pytest.raises(DatasetError, match=f"raw: {FILES[3]} missing"):
        load("kmnist", tmp_path)


@pytest.mark.parametrize("name", ["mnist", "auto"])
def test_fault_44_files_that_are_not_mnist_are_refused_by_digest(tmp_path, name):
    layout(tmp_path, "MNIST")
    with pytest.raises(DatasetError, match=f"{IMAGES}: not the published file"):
        load(name, tmp_path)


def test_the_real_mnist_is_read(real_data):
    dataset, notes = load("auto", real_data)
    assert (len(dataset.train), len(dataset.test), notes) == (60_000, 10_000, [])
    assert torch.bincount(dataset.test.labels).tolist()[:3] == [980, 1135, 1032]
    pixels = dataset.train.images.float() / 255
    assert pixels.mean().item() == pytest.approx(dataset.mean[0], abs=1e-4)
    assert pixels.std().item() == pytest.approx(dataset.std[0], abs=1e-4)


def test_digits_are_the_whole_of_scikit_learn():
    dataset, _ = load("digits")
    assert (len(dataset.train), len(dataset.test)) == (1437, 360)
    assert dataset.train.images.shape[1:] == (1, 28, 28)
    assert torch.bincount(torch.cat((dataset.train.labels, dataset.test.labels))).sum() == 1797
    assert dataset.digest() == load("digits")[0].digest()


def test_enlarging_keeps_flat_areas_and_makes_a_border():
    image = enlarge(torch.full((1, 8, 8), 16.0))[0, 0]
    assert image[4:24, 4:24].unique().tolist() == [255]
    assert image.sum() == 20 * 20 * 255
