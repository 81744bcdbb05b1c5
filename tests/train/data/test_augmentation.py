"""Augmentation: torchvision's transforms, each image for itself, the same however it is cut."""

import pytest
import torch
from torch import Tensor

from ckpt.errors import UsageError
from ckpt.train.batches import Batches
from ckpt.train.data.augmentation import Augmentation
from ckpt.train.data.dataset import Dataset, load_dataset
from ckpt.train.processes import Processes
from ckpt.train.recipes.recipe import Recipe

CPU = torch.device("cpu")
SEVERAL = "RandomRotation(15),RandomAffine(0, translate=(0.1, 0.1)),RandomErasing(p=0.3)"


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


def images_of(
    dataset: Dataset, *, epoch: int = 1, size: int = 64, processes: Processes | None = None,
    **settings: object,
) -> list[Tensor]:  # fmt: skip
    """What a model sees of each window."""
    recipe = Recipe(**{"batch_size": 64, "augment": SEVERAL, **settings})  # type: ignore[arg-type]
    batches = Batches(dataset, recipe, CPU, *([processes] if processes else []))
    return [
        torch.cat([images for images, _ in window.micro_batches(size)])
        for window in batches.windows(epoch)
    ]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.long
def test_images_are_the_same_however_they_are_cut_and_whatever_else_is_drawn(
    digits: Dataset,
) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    whole = images_of(digits)
    assert torch.equal(torch.get_rng_state(), before), "dropout draws as without augmentation"
    torch.manual_seed(1)
    assert same(whole, images_of(digits, size=7))
    assert same(whole, images_of(digits, loader="workers"))
    halves = [images_of(digits, processes=Processes(rank, 2)) for rank in (0, 1)]
    assert same(whole, [torch.cat(parts) for parts in zip(*halves, strict=True)])


def test_epochs_and_seeds_differ(digits: Dataset) -> None:
    """In the images, not only in their order: of each epoch the smallest index is compared."""
    augmentation = Augmentation(SEVERAL, seed=3)
    images = digits.train.images[:1]
    found = [augmentation(images, [0], epoch) for epoch in (1, 2)]
    found.append(Augmentation(SEVERAL, seed=4)(images, [0], 1))
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert torch.equal(found[0], augmentation(images, [0], 1))


def test_each_image_is_changed_for_itself() -> None:
    images = torch.randint(0, 256, (1, 1, 8, 8), dtype=torch.uint8).expand(1000, -1, -1, -1)
    found = Augmentation("RandomHorizontalFlip(0.3)", seed=0)(images, range(1000), 1)
    flipped = (found == images.flip(-1)).flatten(1).all(1)
    assert torch.equal(found[~flipped], images[~flipped])
    assert 250 < int(flipped.sum()) < 350


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RandomHorizontalFlip(1.0)", lambda images: images.flip(-1)),
        ("RandomInvert(p=1),RandomVerticalFlip(1)", lambda images: (255 - images).flip(-2)),
        ("RandomRotation((90, 90))", lambda images: images.rot90(1, (-2, -1))),
    ],
)
def test_transforms_are_those_that_their_names_say(
    digits: Dataset, text: str, expected: object
) -> None:
    images = digits.train.images[:5]
    found = Augmentation(text, seed=0)(images, range(5), 1)
    assert callable(expected)
    assert torch.equal(found, expected(images))


def test_test_images_stay_as_they_are(digits: Dataset) -> None:
    plain = Batches(digits, Recipe(holdout=0.1), CPU)
    augmented = Batches(digits, Recipe(holdout=0.1, augment=SEVERAL), CPU)
    for name in ("test", "holdout"):
        first, second = (
            [images for images, _ in getattr(each, name)()] for each in (plain, augmented)
        )
        assert same(first, second)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RandomRotatoin(10)", "no transform RandomRotatoin"),
        ("functional(1)", "no transform functional"),
        ("RandomRotation()", "RandomRotation: .*degrees"),
        ("RandomRotation(-5)", "RandomRotation: "),
    ],
)
def test_unknown_transforms_and_arguments_are_refused_before_the_run(
    digits: Dataset, text: str, message: str
) -> None:
    with pytest.raises(UsageError, match=f"--augment: .*{message}"):
        Batches(digits, Recipe(augment=text), CPU)


def test_other_shapes_are_refused(digits: Dataset) -> None:
    images = digits.train.images[:2]
    with pytest.raises(
        UsageError, match=r"gives \(1, 20, 20\) torch.uint8, expected \(1, 28, 28\)"
    ):
        Augmentation("RandomCrop(20)", seed=0)(images, [0, 1], 1)
    padded = Augmentation("RandomCrop(28, padding=4)", seed=0)(images, [0, 1], 1)
    assert padded.shape == images.shape
