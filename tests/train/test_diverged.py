"""A run whose loss or gradient is not finite: it stops, and nothing of it is registered."""

from math import inf

import pytest
import torch
from torch import nn

from ckpt.errors import DivergedError
from ckpt.train.loop import _SKIPS, NotFiniteError, Trainer
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.run import train
from ckpt.train.state import Keeper, read_state

DIGITS = {"dataset": "digits", "epochs": 1, "device": "cpu", "optimizer": "sgd"}


@pytest.fixture
def normed(tmp_path):
    """A definition whose running statistics diverge in the same step as its loss."""
    (tmp_path / "normed.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    first = nn.Flatten(), nn.Linear(784, 8), nn.BatchNorm1d(8)\n"
        "    return nn.Sequential(*first, nn.Linear(8, 10), nn.LogSoftmax(1))\n"
    )
    return f"{tmp_path}/normed.py:net"


def test_running_statistics_are_those_before_that_step(tmp_path, normed):
    recipe = Recipe(**DIGITS, model=normed, precision="fp32", lr=1e38)
    with pytest.raises(DivergedError, match=r"is (nan|inf) in epoch 1, after"):
        train(recipe, tmp_path / "w.pt", keeper=Keeper(tmp_path / "s", every=1e9))
    state = read_state(tmp_path / "s")
    assert all(tensor.isfinite().all() for tensor in state.parts["model"].values())
    assert state.parts["model"]["2.num_batches_tracked"] == state.progress.windows


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_run_stops_and_keeps_the_state_before_that_step(tmp_path, linear, precision):
    recipe = Recipe(**DIGITS, model=linear, precision=precision, lr=1e38)
    keeper = Keeper(tmp_path / "s", every=1e9)
    with pytest.raises(DivergedError, match=r"is (nan|inf) in epoch 1, after \d+ images") as caught:
        train(recipe, tmp_path / "w.pt", keeper=keeper)
    assert caught.value.exit_code == 3
    assert f"{tmp_path / 's'} has the weights before that step" in str(caught.value.hint)
    assert not (tmp_path / "w.pt").exists()
    state = read_state(tmp_path / "s")
    assert all(tensor.isfinite().all() for tensor in state.parts["model"].values())
    assert 0 < state.progress.windows < 23


def test_gradient_that_is_not_finite_changes_no_weight():
    """The loss is: the square root of 0 has no gradient."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    trainer = Trainer(model, "fp32", Recipe())
    before = [parameter.clone() for parameter in model.parameters()]
    (model(torch.zeros(1, 4)) * 0).sqrt().sum().backward()
    with pytest.raises(NotFiniteError, match="the norm of the gradient is nan"):
        trainer.step()
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))


def test_fp16_may_skip_steps_but_not_for_ever():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    trainer = Trainer(model, "fp16", Recipe())

    def step(value):
        trainer.optimizer.zero_grad()
        trainer.scaler.scale(model(torch.full((1, 4), value)).sum()).backward()
        trainer.step()

    for _ in range(_SKIPS - 1):
        step(inf)
    step(1.0)
    for _ in range(_SKIPS - 1):
        step(inf)
    with pytest.raises(NotFiniteError, match="not finite in 40 steps in a row"):
        step(inf)
