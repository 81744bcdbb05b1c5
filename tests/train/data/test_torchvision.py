"""torchvision's datasets and transforms beside ours: the same images, labels and batches."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ckpt.definitions.importing import declare_torchvision_ops
from ckpt.train.data.dataset import load_dataset
from ckpt.train.data.normalisation import normalise
from tests.train.data.test_dataset import layout
from tests.train.data.test_folder import picture


@pytest.fixture(scope="module")
def torchvision() -> Any:
    declare_torchvision_ops()
    import torchvision
    import torchvision.transforms.v2

    return torchvision


@pytest.mark.parametrize(
    ("name", "kind"), [("kmnist", "KMNIST"), ("fashion-mnist", "FashionMNIST")]
)
def test_idx_files_are_read_as_by_its_datasets(
    tmp_path: Path, torchvision: Any, name: str, kind: str
) -> None:
    layout(tmp_path, kind)
    ours = load_dataset(name, data_dir=tmp_path)
    for split, trains in ((ours.train, True), (ours.test, False)):
        theirs = getattr(torchvision.datasets, kind)(tmp_path, train=trains)
        assert torch.equal(split.images[:, 0], theirs.data)
        assert split.labels.tolist() == theirs.targets.tolist()


def test_folders_are_read_as_by_its_image_folder(tmp_path: Path, torchvision: Any) -> None:
    for split, count in (("train", 4), ("test", 2)):
        for kind in ("dog", "Cat", "ant"):
            for number in range(count):
                suffix = (".png", ".BMP")[number % 2]
                picture(tmp_path / split / kind / f"{split}{number}{suffix}", number, "RGB")
        (tmp_path / split / "dog" / "notes.txt").write_text("no image")
    ours = load_dataset(str(tmp_path))
    pixels = torchvision.transforms.v2.PILToTensor()
    for split, name in ((ours.train, "train"), (ours.test, "test")):
        theirs = torchvision.datasets.ImageFolder(str(tmp_path / name), transform=pixels)
        assert ours.class_names == tuple(theirs.classes)
        assert split.labels.tolist() == theirs.targets
        assert torch.equal(split.images, torch.stack([image for image, _ in theirs]))


def test_batches_are_normalised_as_by_its_transforms(torchvision: Any) -> None:
    images = torch.arange(2 * 3 * 8 * 8, dtype=torch.int64).to(torch.uint8).view(2, 3, 8, 8)
    mean, std = (0.1307, 0.5, 0.45), (0.3081, 0.25, 0.225)
    transforms = torchvision.transforms
    theirs = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    ours, _ = normalise(
        (images, torch.zeros(2)),
        mean=torch.tensor(mean).view(-1, 1, 1), std=torch.tensor(std).view(-1, 1, 1),
    )  # fmt: skip
    rows = [theirs(image.permute(1, 2, 0).numpy()) for image in images]
    assert torch.equal(ours, torch.stack(rows))
