"""How the precision is chosen, and the first size of micro-batches."""

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


@pytest.mark.parametrize(("name", "scales"), [("fp32", False), ("bf16", False), ("fp16", True)])
def test_only_fp16_scales_its_loss(name, scales):
    assert Trainer(model(), name, Recipe()).scaler.is_enabled() is scales


@pytest.mark.parametrize("schedule", ["cosine", "onecycle"])
def test_timing_takes_more_steps_than_a_short_run(schedule):
    recipe = Recipe(epochs=1, schedule=schedule, optimizer="adamw", lr=0.01, ema=0.9, clip=1.0)
    chosen = choose_precision(recipe, model(), BATCH)
    assert chosen.name in ("fp32", "bf16")
    assert set(chosen.milliseconds) == {"fp32", "bf16"}
