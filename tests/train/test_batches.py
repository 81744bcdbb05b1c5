"""Resident and worker paths, and the values that a model sees."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ckpt.train.batches import Batches, choose_loader
from ckpt.train.data.dataset import load_dataset
from ckpt.train.data.normalisation import normalise
from ckpt.train.recipes.recipe import Recipe
from tests.effort import long_but

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def epochs(dataset, recipe, count=2):
    batches = Batches(dataset, recipe, CPU)
    return [
        [
            (window.samples, list(window.micro_batches(recipe.batch_size)))
            for window in batches.windows(epoch)
        ]
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


@pytest.mark.long
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
    batches = list(Batches(digits, Recipe(), CPU).test(size=100))
    assert [len(labels) for _, labels in batches] == [100, 100, 100, 60]
    assert torch.equal(torch.cat([labels for _, labels in batches]), digits.test.labels.long())


LOADERS = {
    "in this process": {"loader": "workers"},
    "kept": {"num_workers": 1, "prefetch_factor": 2},
    "started anew each epoch": {"num_workers": 1, "persistent_workers": False},
    "not pinned": {"loader": "workers", "pin_memory": False},
}


@pytest.mark.parametrize("settings", long_but([LOADERS["kept"]], LOADERS.values()), ids=LOADERS)
def test_every_way_of_loading_gives_the_same_batches(digits, settings):
    common = {"batch_size": 100, "accumulate": 3, "holdout": 0.1}
    expected = epochs(digits, Recipe(**common))
    found = epochs(digits, Recipe(**common, **settings))
    for (samples, batches), (others, got) in zip(
        (window for epoch in expected for window in epoch),
        (window for epoch in found for window in epoch),
        strict=True,
    ):
        assert samples == others
        pairs = zip(batches, got, strict=True)
        assert all(torch.equal(a, b) for one, two in pairs for a, b in zip(one, two, strict=True))


CHOICES = {
    "auto": ({}, ("resident", "in memory")),
    "workers asked for": ({"num_workers": 2}, ("workers", "2 were asked for")),
    "resident": ({"loader": "resident"}, ("resident", "as asked")),
    "workers": ({"loader": "workers"}, ("workers", "as asked")),
}


@pytest.mark.parametrize(("settings", "expected"), CHOICES.values(), ids=CHOICES)
def test_a_loader_is_chosen_and_the_reason_said(digits, settings, expected):
    loader = Batches(digits, Recipe(**settings), CPU).loader
    assert (loader.name, loader.why) == expected


FREE = {4 * 784 * 1437: "workers", 5 * 785 * 1437: "resident"}


@pytest.mark.parametrize(("free", "name"), FREE.items(), ids=FREE.values())
def test_auto_measures_the_memory_of_a_gpu(digits, free, name, monkeypatch):
    """Injected, for want of one: a quarter of what is free may hold images."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, free))
    loader = choose_loader(Recipe(), digits.train, torch.device("cuda"))
    assert loader.name == name
    assert "1 MB of " in loader.why
    assert loader.why.endswith("MB free on cuda")


class Copies(TorchDispatchMode):
    """Counts copies to another device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [it for it in args if isinstance(it, torch.Tensor)]
        moved = isinstance(result, torch.Tensor) and any(
            it.device != result.device for it in tensors
        )
        self.count += moved
        return result


def test_resident_windows_need_one_copy_an_epoch(digits):
    """That of the order. The device is torch's meta device: it knows shapes, and copies."""
    recipe = Recipe(batch_size=20, accumulate=3, loader="resident")
    batches = Batches(digits, recipe, torch.device("meta"))
    with Copies() as copies:
        images = [
            images
            for window in batches.windows(1)
            for images, _ in window.micro_batches(recipe.batch_size)
        ]
    assert (len(images), copies.count) == (72, 1)
    assert {it.device.type for it in images} == {"meta"}
