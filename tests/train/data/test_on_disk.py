"""Images that stay on disk: the same run as with images in memory, in little memory."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ckpt.errors import DatasetError, UsageError
from ckpt.train.data.dataset import Dataset, load_dataset
from ckpt.train.data.on_disk import OnDisk
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.run import train
from ckpt.train.watch.events import Event, Loading
from tests.effort import PATIENCE, by_effort, long_but
from tests.train.plain_loop import Loop
from tests.train.starting import python
from tests.train.stopping import stopped

NET = """
from torch import nn
def net():
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.LazyLinear(16), nn.Dropout(0.5),
        nn.ReLU(), nn.Linear(16, 3), nn.LogSoftmax(dim=1),
    )
"""


def noise(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(len(shape)).integers(0, 256, shape, dtype=np.uint8)


def folder(path: Path, mode: str = "L", size: tuple[int, int] = (12, 12)) -> Path:
    """Forty images of each of three classes."""
    for label in range(3):
        (path / f"class{label}").mkdir(parents=True)
        for number in range(40):
            pixels = noise(size[1], size[0], len(mode)) // 4 + 60 * label + number % 7
            image = Image.fromarray(pixels.squeeze().astype(np.uint8), mode)
            image.save(path / f"class{label}" / f"{number:02}.png")
    return path


def arrays(path: Path, *shape: int, **others: Any) -> Path:
    labels = np.arange(120) % 3
    images = noise(120, *shape) // 4 + (60 * labels).reshape(-1, *(1,) * len(shape)).astype("u1")
    parts = images[:90], labels[:90], images[90:], labels[90:]
    content = dict(zip(("x_train", "y_train", "x_test", "y_test"), parts, strict=True))
    np.savez(path, **{**content, **others})
    return path


MADE: dict[str, Callable[[Path], tuple[Path, int]]] = {
    "grey folder": lambda at: (folder(at / "grey"), 0),
    "resized colours": lambda at: (folder(at / "colours", "RGB", (20, 14)), 11),
    "grey array": lambda at: (arrays(at / "grey.npz", 12, 12), 0),
    "colour array": lambda at: (arrays(at / "colour.npz", 9, 10, 3), 0),
}


@pytest.fixture
def net(tmp_path: Path) -> str:
    (tmp_path / "small.py").write_text(NET)
    return f"{tmp_path}/small.py:net"


def both(path: Path, size: int = 0) -> tuple[Dataset, Dataset]:
    resident, stored = (
        load_dataset(str(path), image_size=size, loader=loader) for loader in ("resident", "disk")
    )
    assert isinstance(resident.train.images, Tensor)
    assert isinstance(stored.train.images, OnDisk)
    assert isinstance(stored.test.images, OnDisk)
    return resident, stored


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_images_on_disk_are_those_in_memory(
    tmp_path: Path, made: Callable[[Path], tuple[Path, int]]
) -> None:
    resident, stored = both(*made(tmp_path))
    assert stored.describe() == resident.describe()
    chosen = torch.tensor([7, 0, 7, 31])
    for ours, whole in ((stored.train, resident.train), (stored.test, resident.test)):
        assert len(ours) == len(whole)
        for part in (slice(None), slice(3, 9), chosen % len(whole)):
            for found, expected in zip(ours[part], whole[part], strict=True):
                assert torch.equal(found, expected)
                assert (found.dtype, found.shape) == (expected.dtype, expected.shape)


def test_one_array_split_by_every_fifth_stays_on_disk(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", x=noise(30, 6, 6), y=np.arange(30) % 3)
    resident, stored = both(tmp_path / "one.npz")
    assert stored.digest() == resident.digest()
    assert torch.equal(stored.test[:][0], resident.test[:][0])


def test_the_digest_is_that_of_the_files_bytes(tmp_path: Path) -> None:
    """By numpy and hashlib alone."""
    path = arrays(tmp_path / "a.npz", 12, 12)
    hasher = hashlib.sha256()
    with np.load(path) as content:
        for key in ("x_train", "y_train", "x_test", "y_test"):
            hasher.update(content[key].astype("u1").tobytes())
    assert load_dataset(str(path), loader="disk").digest() == "sha256:" + hasher.hexdigest()


def recipe(net: str, path: Path, size: int = 0, **settings: Any) -> Recipe:
    return Recipe(
        model=net, dataset=str(path), image_size=size, precision="fp32", epochs=2, batch_size=7,
        accumulate=2, **settings,
    )  # fmt: skip


WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "hold-out and augmentation": {"holdout": 0.2, "augment": "RandomCrop(12,padding=2)"},
    "one worker": {"num_workers": 1},
    "two workers": {"num_workers": 2, "persistent_workers": False, "prefetch_factor": 1},
}


@pytest.mark.parametrize("way", long_but([WAYS["plain"]], WAYS.values()), ids=WAYS)
@pytest.mark.parametrize("kind", ["grey folder", "grey array"])
def test_weights_are_those_of_images_in_memory_bit_for_bit(
    tmp_path: Path, net: str, kind: str, way: dict[str, Any]
) -> None:
    path, size = MADE[kind](tmp_path)
    of_loaders = ("num_workers", "persistent_workers", "prefetch_factor")
    in_memory = {name: value for name, value in way.items() if name not in of_loaders}
    resident, disk = tmp_path / "resident.pt", tmp_path / "disk.pt"
    train(recipe(net, path, size, loader="resident", **in_memory), resident)
    done = train(recipe(net, path, size, loader="disk", **way), disk)
    assert done is not None
    assert done.record["loader"] == {"name": "disk", "why": "as asked"}
    assert disk.read_bytes() == resident.read_bytes()


@pytest.mark.parametrize(
    "workers", [0, pytest.param(2, marks=pytest.mark.long)], ids=["in this process", "workers"]
)
def test_interrupted_and_resumed_weights_are_the_same(
    tmp_path: Path, net: str, workers: int
) -> None:
    made = recipe(net, folder(tmp_path / "grey"), loader="disk", num_workers=workers)
    train(made, tmp_path / "whole.pt")
    state = stopped(made, tmp_path, after=10)  # of 7 windows an epoch
    train(made, tmp_path / "resumed.pt", resumed=state)
    assert (tmp_path / "resumed.pt").read_bytes() == (tmp_path / "whole.pt").read_bytes()


def test_weights_are_those_of_a_plain_loop(tmp_path: Path, net: str) -> None:
    """Files are opened by Pillow, in the order that records describe; SGD is written by hand."""
    path = folder(tmp_path / "grey")
    (tmp_path / "linear.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(144, 3), nn.LogSoftmax(dim=1))\n"
    )
    model = f"{tmp_path}/linear.py:net"
    done = train(
        recipe(model, path, loader="disk", optimizer="sgd", lr=0.1, schedule="constant"),
        tmp_path / "w.pt",
    )
    assert done is not None
    described = done.record["dataset"]
    files = [
        (file, label)
        for label in range(3)
        for at, file in enumerate(sorted((path / f"class{label}").iterdir()))
        if at % 5
    ]
    torch.manual_seed(3)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(144, 3), nn.LogSoftmax(dim=1))
    epochs = [[*plain_windows(files, epoch, described)] for epoch in (1, 2)]
    Loop(plain, lr=0.1, momentum=0.9, epochs=2).run(epochs)
    found = torch.load(tmp_path / "w.pt")
    for key, expected in plain.state_dict().items():
        assert torch.allclose(found[key], expected, rtol=1e-5, atol=1e-6)


def plain_windows(
    files: list[tuple[Path, int]], epoch: int, described: dict[str, Any]
) -> list[tuple[Tensor, Tensor]]:
    seed = int.from_bytes(hashlib.sha256(f"order 3 {epoch}".encode()).digest()[:8], "big") >> 1
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed)).tolist()
    windows = []
    for at in range(0, len(order), 14):
        some = [files[index] for index in order[at : at + 14]]
        pixels = np.stack([np.asarray(Image.open(file)) for file, _ in some])[:, None]
        images = torch.from_numpy(pixels).double() / 255
        normalised = (images - described["mean"][0]) / described["std"][0]
        windows.append((normalised.float(), torch.tensor([label for _, label in some])))
    return windows


@pytest.mark.parametrize(
    "workers", [0, pytest.param(1, marks=pytest.mark.long)], ids=["in this process", "a worker"]
)
@pytest.mark.parametrize("kind", ["grey folder", "grey array"])
def test_a_file_that_changes_while_the_run_goes_on_is_an_error(
    tmp_path: Path, net: str, kind: str, workers: int
) -> None:
    path, size = MADE[kind](tmp_path)
    file = path / "class1" / "07.png" if path.is_dir() else path

    def change(event: Event) -> None:
        if type(event).__name__ == "Started":
            file.write_bytes(file.read_bytes() + b" ")

    made = recipe(net, path, size, loader="disk", num_workers=workers)
    with pytest.raises(DatasetError) as caught:
        train(made, tmp_path / "w.pt", callback=change)
    assert str(caught.value) == f"{file}: has changed since the run began"
    assert caught.value.exit_code == 3
    assert not (tmp_path / "w.pt").exists()


@pytest.mark.parametrize("kind", ["compressed", "fortran"])
def test_arrays_that_are_no_rows_are_refused_on_disk_and_read_into_memory(
    tmp_path: Path, kind: str
) -> None:
    content = {"x": noise(30, 6, 6), "y": np.arange(30) % 3}
    path = tmp_path / "a.npz"
    if kind == "compressed":
        np.savez_compressed(path, **content)
    else:
        np.savez(path, **{**content, "x": np.asfortranarray(content["x"])})
    with pytest.raises(DatasetError, match="x: compressed or in Fortran order, expected rows"):
        load_dataset(str(path), loader="disk")
    in_memory = load_dataset(str(path), room=1).train.images
    assert isinstance(in_memory, Tensor)


def test_a_flipped_bit_is_found_before_the_training(tmp_path: Path) -> None:
    path = arrays(tmp_path / "a.npz", 12, 12)
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"x_train.*Bad CRC-32"):
        load_dataset(str(path), loader="disk")


def test_auto_leaves_on_disk_what_takes_a_third_of_the_memory(tmp_path: Path) -> None:
    path = arrays(tmp_path / "a.npz", 12, 12)
    nbytes = 90 * 12 * 12
    for room, kind in ((3 * nbytes - 1, OnDisk), (3 * nbytes, Tensor), (None, Tensor)):
        assert isinstance(load_dataset(str(path), room=room).train.images, kind)
        for loader in ("resident", "workers"):
            assert isinstance(load_dataset(str(path), room=1, loader=loader).train.images, Tensor)


def test_what_is_read_is_reported(tmp_path: Path) -> None:
    events: list[Event] = []
    load_dataset(str(folder(tmp_path / "grey")), loader="disk", callback=events.append)
    assert events == [Loading("grey", 96, 120, " img"), Loading("grey", 120, 120, " img")]


def test_other_datasets_are_not_read_from_disk() -> None:
    with pytest.raises(UsageError, match="loader is disk, expected resident or workers with digi"):
        load_dataset("digits", loader="disk")


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="memory is looked up in /proc")
def test_memory_stays_far_below_the_size_of_the_images(
    tmp_path: Path, net: str, record_property: Callable[[str, object], None]
) -> None:
    """In memory the same run grows by more than the images, on disk by less than a fifth."""
    count = by_effort(2000, 5000, 20000)
    large, small = tmp_path / "large.npz", tmp_path / "small.npz"
    few = noise(20, 256, 256)
    for path, length in ((large, count), (small, 64)):
        images, labels = np.resize(few, (length, 256, 256)), np.arange(length) % 3
        np.savez(path, x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    found = {}
    script = Path(__file__).with_name("streamed.py")
    for loader in ("resident", "disk"):
        process = python(tmp_path, str(script), str(large), str(small), loader, net)
        out, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
        found[loader] = out.split()
    grown = {loader: int(each[0]) / (count * 256 * 256) for loader, each in found.items()}
    record_property("figure", f"memory as a part of the images: {grown}")
    assert grown["resident"] > 0.9
    assert grown["disk"] < 0.2
    assert found["disk"][1] == found["resident"][1]
