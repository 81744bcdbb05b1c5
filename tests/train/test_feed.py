"""Resident and worker paths, and the values that a model sees."""

import pytest
import torch

from ckpt.train.dataset import load_dataset
from ckpt.train.pixels import Feed, normalise
from ckpt.train.recipe import Recipe

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", data_dir=None, note=print)


def epochs(dataset, recipe, count=2):
    feed = Feed(dataset, recipe, CPU)
    return [
        [(window.samples, list(window.micro_batches)) for window in feed.windows(epoch)]
        for epoch in range(1, count + 1)
    ]


def test_normalise_is_to_tensor_and_normalize():
    images = torch.arange(784, dtype=torch.int64).to(torch.uint8).view(1, 1, 28, 28)
    label = torch.tensor([7], dtype=torch.uint8)
    found, labels = normalise((images, label), mean=torch.tensor([0.1]), std=torch.tensor([0.3]))
    assert (found.shape, found.dtype, labels.dtype) == ((1, 1, 28, 28), torch.float32, torch.int64)
    assert torch.allclose(found, (images / 255 - 0.1) / 0.3)


def test_windows_hold_every_image_once_and_say_how_many(digits):
    recipe = Recipe(batch_size=100, accumulate=4)
    epoch, _ = epochs(digits, recipe)
    assert [samples for samples, _ in epoch] == [400, 400, 400, 237]
    assert [[len(labels) for _, labels in batches] for _, batches in epoch][-1] == [100, 100, 37]
    labels = torch.cat([labels for _, batches in epoch for _, labels in batches])
    assert torch.equal(labels.sort().values, digits.train.labels.long().sort().values)


def test_workers_give_the_same_batches_bit_for_bit_and_draw_nothing(digits):
    settings = {"batch_size": 100, "accumulate": 3}
    resident = epochs(digits, Recipe(**settings))
    before = torch.get_rng_state()
    working = epochs(digits, Recipe(**settings, num_workers=2))
    assert torch.equal(before, torch.get_rng_state())
    for (samples, batches), (others, found) in zip(
        (window for epoch in resident for window in epoch),
        (window for epoch in working for window in epoch),
        strict=True,
    ):
        assert samples == others
        for (images, labels), (got, those) in zip(batches, found, strict=True):
            assert torch.equal(images, got)
            assert torch.equal(labels, those)


def test_test_images_come_once_in_file_order(digits):
    batches = list(Feed(digits, Recipe(), CPU).test_batches(size=100))
    assert [len(labels) for _, labels in batches] == [100, 100, 100, 60]
    assert torch.equal(torch.cat([labels for _, labels in batches]), digits.test.labels.long())
