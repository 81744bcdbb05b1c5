"""Images held out: never trained on, scored after every epoch, and what they decide."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ckpt.errors import InterruptedTrainingError, UsageError
from ckpt.train.data.dataset import load_dataset
from ckpt.train.holdout import best_epoch, hold_out, is_over
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.run import train
from ckpt.train.state import read_state
from ckpt.train.watch.events import Epoch
from tests.train.test_state import DEFINITION, Stops


def curves(*losses):
    one = Epoch(
        epoch=1, loss=1.0, accuracy=0.5, lr=1.0, seconds=1.0, images_per_second=1.0,
        skipped_steps=0, gradient_norm=1.5,
    )  # fmt: skip
    return [replace(one, epoch=at, holdout_loss=loss) for at, loss in enumerate(losses, 1)]


NAN = float("nan")
BEST = {
    "lowest": ((0.3, 0.1, 0.2), 2),
    "earliest of equals": ((0.3, 0.1, 0.1), 2),
    "NaN is never lower": ((NAN, 0.5, NAN), 2),
    "only NaN": ((NAN, NAN), 2),
    "none held out": ((None, None, None), 3),
}


@pytest.mark.parametrize(("losses", "best"), BEST.values(), ids=BEST)
def test_best_epoch(losses, best):
    assert best_epoch(curves(*losses)) == best


OVER = {
    "not begun": ((), False),
    "still falling": ((0.3, 0.2, 0.1), False),
    "one without": ((0.3, 0.1, 0.2), False),
    "two without": ((0.3, 0.1, 0.2, 0.2), True),
    "all done": ((0.5, 0.4, 0.3, 0.2, 0.1), True),
}


@pytest.mark.parametrize(("losses", "over"), OVER.values(), ids=OVER)
def test_patience_of_two_in_five_epochs(losses, over):
    assert is_over(curves(*losses), Recipe(epochs=5, patience=2, holdout=0.1)) is over


def test_parts_are_drawn_by_the_seed_and_joined_are_the_whole():
    train_split = load_dataset("digits").train
    kept, held = hold_out(train_split, 0.1, seed=1)
    assert (len(kept), len(held)) == (1293, 144)
    rows = {bytes(image.numpy()) for image in train_split.images}
    joined = [bytes(image.numpy()) for part in (kept, held) for image in part.images]
    assert len(joined) == len(train_split)
    assert set(joined) == rows
    again, _ = hold_out(train_split, 0.1, seed=1)
    other, _ = hold_out(train_split, 0.1, seed=2)
    assert torch.equal(kept.images, again.images)
    assert not torch.equal(kept.images, other.images)
    whole, none = hold_out(train_split, 0.0, seed=1)
    assert whole is train_split
    assert len(none) == 0


@pytest.mark.parametrize("fraction", [0.0001, 0.9999])
def test_a_part_without_images_is_refused(fraction):
    train_split = load_dataset("digits").train
    with pytest.raises(UsageError, match="of 1,437 images; expected some"):
        hold_out(train_split, fraction, seed=1)


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "dropout.py").write_text(DEFINITION)
    return f"{tmp_path}/dropout.py:net"


def recipe(model: str, **settings: object) -> Recipe:
    """A learning rate far too high, so that the epochs go up and down."""
    quick = {
        "model": model, "dataset": "digits", "epochs": 6, "precision": "fp32", "device": "cpu",
        "optimizer": "sgd", "lr": 2.0, "schedule": "constant", "holdout": 0.2,
    }  # fmt: skip
    return Recipe(**{**quick, **settings})  # type: ignore[arg-type]


def test_the_best_epoch_is_what_a_run_of_so_many_epochs_gives(tmp_path, model):
    both = train(recipe(model, keep="both"), tmp_path / "w.pt")
    losses = [epoch.holdout_loss for epoch in both.curves]
    assert both.epoch == 1 + losses.index(min(losses)) < 6, "else the test shows nothing"
    assert both.last_path == tmp_path / "w.last.pt"
    short = recipe(model, epochs=both.epoch, keep="last")
    train(short, tmp_path / "short.pt")
    assert (tmp_path / "short.pt").read_bytes() == (tmp_path / "w.pt").read_bytes()
    last = train(recipe(model, keep="last"), tmp_path / "last.pt")
    assert last.epoch == 6
    assert (tmp_path / "last.pt").read_bytes() == both.last_path.read_bytes()
    assert both.record["holdout_count"] == 287
    assert set(both.series) >= {"holdout_loss", "holdout_accuracy"}


def test_patience_ends_a_run(tmp_path, model):
    whole = train(recipe(model, epochs=12), tmp_path / "w.pt")
    stopped = train(recipe(model, epochs=12, patience=1), tmp_path / "p.pt")
    losses = [epoch.holdout_loss for epoch in whole.curves]
    first_rise = next(at for at in range(1, 12) if losses[at] >= min(losses[:at]))
    assert len(stopped.curves) == first_rise + 1 < 12
    assert stopped.epoch == first_rise


@pytest.mark.parametrize("after", [3, 18, 40])  # 18 windows an epoch: 1,150 = 17 x 64 + 62
def test_the_best_epoch_survives_an_interruption(tmp_path, model, after):
    settings = recipe(model, epochs=3, keep="both", ema=0.9)
    train(settings, tmp_path / "whole.pt")
    with pytest.raises(InterruptedTrainingError):
        keeper = Stops(tmp_path / "state.pt", after)
        train(settings, tmp_path / "x.pt", keeper=keeper)
    state = read_state(tmp_path / "state.pt")
    train(state.recipe, tmp_path / "again.pt", resumed=state)
    for name in ("", ".last"):
        whole, again = (tmp_path / f"{stem}{name}.pt" for stem in ("whole", "again"))
        assert whole.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("settings", [{"patience": 2}, {"keep": "both"}])
def test_what_needs_a_hold_out_says_so(settings):
    with pytest.raises(UsageError, match=r"holdout is 0\.0, expected above 0 with"):
        Recipe(**settings)
