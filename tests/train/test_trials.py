"""How the precision is chosen, and the first size of micro-batches."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn

from ckpt.train import trials
from ckpt.train.loop import Trainer
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.trials import choose_precision


def model():
    return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(784, 10), nn.LogSoftmax(dim=1))


BATCH = (torch.rand(4, 1, 28, 28), torch.tensor([0, 1, 2, 3]))


def choose(monkeypatch, **milliseconds):
    monkeypatch.setattr(trials, "_time", lambda *_: milliseconds)
    return choose_precision(Recipe(), model(), BATCH)


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_what_is_asked_for_is_not_timed(name):
    chosen = choose_precision(Recipe(precision=name), model(), BATCH)
    assert (chosen.name, chosen.why, chosen.milliseconds) == (name, "as asked", {})


def test_auto_takes_what_is_faster_by_more_than_a_tenth(monkeypatch):
    chosen = choose(monkeypatch, fp32=14.0, bf16=10.0)
    assert (chosen.name, chosen.why) == ("bf16", "timed: 1.4 × fp32")
    assert chosen.milliseconds == {"fp32": 14.0, "bf16": 10.0}


@pytest.mark.parametrize("bf16", [10.0, 14.0, 20.0])
def test_auto_stays_with_fp32_otherwise(monkeypatch, bf16):
    assert choose(monkeypatch, fp32=11.0, bf16=bf16).name == "fp32"


def test_timing_changes_neither_the_model_nor_the_generator():
    tried = model()
    weights = [parameter.clone() for parameter in tried.parameters()]
    state = torch.get_rng_state()
    chosen = choose_precision(Recipe(), tried, BATCH)
    assert set(chosen.milliseconds) == {"fp32", "bf16"}
    assert torch.equal(state, torch.get_rng_state())
    after = tried.parameters()
    assert all(torch.equal(a, b) for a, b in zip(weights, after, strict=True))
    assert all(parameter.grad is None for parameter in tried.parameters())


@pytest.mark.parametrize(
    ("seconds", "steps"),
    [([1.0, 3.1], 5), ([1.0, 2.9], 12), ([3.1, 1.0], 12)],
    ids=["far slower", "slower", "far faster"],
)
def test_a_precision_that_is_far_slower_is_not_timed_to_the_end(monkeypatch, seconds, steps):
    """Three steps warm up, and nine of each are timed; of the hopeless ones two."""
    trainers, timed = [], []

    def step_seconds(trainer, _):
        if trainer not in trainers:
            trainers.append(trainer)  # fp32's comes first
        timed.append(trainer)
        return seconds[trainers.index(trainer)]

    monkeypatch.setattr(trials, "step_seconds", step_seconds)
    choose_precision(Recipe(), model(), BATCH)
    assert len(timed) == 2 * steps


@pytest.mark.parametrize(("name", "scales"), [("fp32", False), ("bf16", False), ("fp16", True)])
def test_only_fp16_scales_its_loss(name, scales):
    assert Trainer(model(), name, Recipe()).scaler.is_enabled() is scales


@pytest.mark.parametrize("schedule", ["cosine", "onecycle"])
def test_timing_takes_more_steps_than_a_short_run(schedule):
    recipe = Recipe(epochs=1, schedule=schedule, optimizer="adamw", lr=0.01, ema=0.9, clip=1.0)
    chosen = choose_precision(recipe, model(), BATCH)
    assert chosen.name in ("fp32", "bf16")
    assert set(chosen.milliseconds) == {"fp32", "bf16"}


MB = 1 << 20


@pytest.mark.parametrize(
    ("most", "left", "room", "expected"),
    [
        (1437, 10_000, 10_000, 1437),
        (1437, 1000, 10_000, 718),  # 718 MB are below 800, 1,437 are not
        (1437, 100, 10_000, 44),
        (1437, 1, 10_000, 5),  # no smaller size was tried
        (1437, None, 10_000, 1437),
        (1437, 10_000, 100, 89),  # the allocator refuses more
        (1437, 10_000, 0, 5),
        (8, 1, 10_000, 8),
        (1, 1, 10_000, 1),
    ],
)
def test_first_size_is_the_largest_half_that_is_expected_to_fit(
    monkeypatch, most, left, room, expected
):
    """An image takes 1 MB; sizes are halved, and one is tried before the next is believed in."""
    tried = []

    def fits(_trainer, batch):
        tried.append(len(batch[1]))
        return tried[-1] <= room

    @contextmanager
    def growth():
        yield lambda: tried[-1] * MB

    monkeypatch.setattr(trials, "_fits", fits)
    monkeypatch.setattr(trials, "peak_growth", growth)
    monkeypatch.setattr(trials, "available_bytes", lambda: None if left is None else left * MB)
    images = torch.zeros(most, 1, 28, 28)
    labels = torch.zeros(most, dtype=torch.int64)
    found, said = trials.first_size(
        Recipe(), model(), lambda count: (images[:count], labels[:count]), most
    )
    assert found == expected
    assert said == (None if left is None else left * MB)
    assert max(tried) <= max(expected, 8) * 2 + 1


def test_trial_of_sizes_changes_neither_the_model_nor_the_generator():
    tried, state = model(), torch.get_rng_state()
    weights = [parameter.clone() for parameter in tried.parameters()]
    trials.first_size(Recipe(), tried, lambda count: (BATCH[0][:count], BATCH[1][:count]), 4)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(*pair) for pair in zip(weights, tried.parameters(), strict=True))


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_trials_do_not_mind_a_loss_that_is_not_finite(precision):
    recipe = Recipe(optimizer="sgd", lr=1e38, precision=precision)
    assert choose_precision(recipe, model(), BATCH).name in ("fp32", "bf16")
    trials.first_size(recipe, model(), lambda count: (BATCH[0][:count], BATCH[1][:count]), 4)
