"""What a resumed run keeps, and what it may change: epochs, device, the folder of the data."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ckpt.errors import UsageError
from ckpt.train import run as running
from ckpt.train.recipes.outputs import Outputs
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.run import train
from ckpt.train.state import Keeper, read_state
from tests.effort import long_but, long_pairs
from tests.train.stopping import finished, stopped

WINDOWS = 23  # of an epoch: 1,437 = 22 x 64 + 29
QUICK = {"dataset": "digits", "precision": "fp32", "device": "cpu", "optimizer": "sgd", "lr": 0.1}


def recipe(model: str, **settings: object) -> Recipe:
    return Recipe(**{**QUICK, "model": model, **settings})  # type: ignore[arg-type]


def torchs_rates(schedule: str, steps: int) -> list[float]:
    """The learning rate of each step, by torch's own scheduler, planned for all of them."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    planned = {
        "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps),
        "onecycle": lambda: torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=0.1, total_steps=steps, pct_start=0.25, cycle_momentum=False
        ),
    }[schedule]()
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        planned.step()
    return rates


@pytest.mark.parametrize(
    ("schedule", "after"),
    long_pairs(
        [("cosine", 5), ("onecycle", WINDOWS), ("onecycle", WINDOWS + 7)],
        ["cosine", "onecycle"],
        [5, WINDOWS, WINDOWS + 7],
    ),
)
def test_learning_rate_in_the_curves_is_that_of_the_first_step_of_each_epoch(
    tmp_path: Path, linear: str, schedule: str, after: int
) -> None:
    made = recipe(linear, schedule=schedule, epochs=2)
    state = stopped(made, tmp_path, after=after)
    trained = train(made, tmp_path / "w.pt", resumed=state)
    expected = torchs_rates(schedule, 2 * WINDOWS)[::WINDOWS]
    assert [epoch.lr for epoch in trained.curves] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("schedule", ["step", "constant"])
@pytest.mark.parametrize("more", [{}, {"ema": 0.9, "holdout": 0.1}], ids=["plain", "average"])
def test_finished_run_with_more_epochs_ends_as_one_that_had_them_from_the_start(
    tmp_path: Path, linear: str, schedule: str, more: dict[str, object]
) -> None:
    made = recipe(linear, schedule=schedule, epochs=1, **more)
    state = finished(made, tmp_path)
    longer = replace(made, epochs=3)
    again = train(longer, tmp_path / "again.pt", resumed=state)
    whole = train(longer, tmp_path / "whole.pt")
    assert (tmp_path / "again.pt").read_bytes() == (tmp_path / "whole.pt").read_bytes()
    assert [epoch.loss for epoch in again.curves] == [epoch.loss for epoch in whole.curves]
    assert again.record["recipe"]["epochs"] == 3


@pytest.mark.parametrize(
    ("schedule", "after"),
    long_pairs([("cosine", None), ("onecycle", 9)], ["cosine", "onecycle"], [None, 9]),
)
def test_more_epochs_move_to_the_longer_curve_of_the_learning_rate(
    tmp_path: Path, linear: str, schedule: str, after: int | None
) -> None:
    made = recipe(linear, schedule=schedule, epochs=1)
    state = stopped(made, tmp_path, after=after) if after else finished(made, tmp_path)
    longer = replace(made, epochs=3)
    trained = train(
        longer, tmp_path / "w.pt", resumed=state, keeper=Keeper(tmp_path / "s", every=0)
    )
    expected = torchs_rates(schedule, 3 * WINDOWS)[::WINDOWS]
    assert [epoch.lr for epoch in trained.curves[1:]] == pytest.approx(expected[1:], rel=1e-12)
    last = read_state(tmp_path / "s").parts["schedule"]
    assert last["last_epoch"] == 3 * WINDOWS


def test_fewer_epochs_than_begun_are_refused(tmp_path: Path, linear: str) -> None:
    made = recipe(linear, epochs=3)
    state = stopped(made, tmp_path, after=WINDOWS + 2)
    with pytest.raises(UsageError, match="epochs is 1, but the run is in epoch 2"):
        train(replace(made, epochs=1), tmp_path / "w.pt", resumed=state)
    trained = train(replace(made, epochs=2), tmp_path / "w.pt", resumed=state)
    train(replace(made, epochs=2), tmp_path / "whole.pt")
    assert len(trained.curves) == 2
    assert (tmp_path / "w.pt").read_bytes() == (tmp_path / "whole.pt").read_bytes()


def test_run_that_was_killed_between_weights_and_score_goes_on(
    tmp_path: Path, linear: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, made = tmp_path / "w.pt", recipe(linear, epochs=1)
    with monkeypatch.context() as killed:

        def die(*_: object) -> None:
            raise KeyboardInterrupt

        killed.setattr(running, "read_weights", die)
        with pytest.raises(KeyboardInterrupt):
            train(made, out, keeper=Keeper(tmp_path / "s", every=1e9))
    before, state = out.read_bytes(), read_state(tmp_path / "s")
    trained = train(made, out, resumed=state)
    assert trained.test_count == 360
    assert out.read_bytes() == before
    out.write_bytes(before + b"another file")
    with pytest.raises(UsageError, match="already exists"):
        train(made, out, resumed=state)
    assert out.read_bytes() == before + b"another file"


def test_state_from_a_gpu_goes_on_on_a_cpu(tmp_path: Path, linear: str) -> None:
    made = replace(recipe(linear, epochs=1), device="cuda")
    state = stopped(replace(made, device="cpu"), tmp_path, after=5)
    there = [{**state.generators[0], "cuda": [torch.zeros(16, dtype=torch.uint8)]}]
    state = replace(state, recipe=made, generators=there)
    trained = train(replace(made, device="cpu"), tmp_path / "w.pt", resumed=state)
    assert trained.record["device"] == "cpu"


def test_moved_data_is_found_again(tmp_path: Path, linear: str, real_data: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    (here / "MNIST").symlink_to(real_data / "MNIST")
    made = recipe(linear, dataset="mnist", data_dir=here, epochs=1, batch_size=6000)
    state = stopped(made, tmp_path, after=2)
    assert state.recipe.data_dir == here
    here.rename(there)
    trained = train(replace(state.recipe, data_dir=there), tmp_path / "w.pt", resumed=state)
    assert trained.test_count == 10_000


def test_outputs_are_those_asked_for_first_but_for_new_ones() -> None:
    first = Outputs(out=Path("a.pt"), registers=True, name="net", save_minutes=0.0)
    again = Outputs(out=Path("b.pt"), message="").or_else(first)
    assert again == replace(first, out=Path("b.pt"), message="")


@pytest.mark.parametrize("steps", long_but([1, 4, 5, 11], range(1, 12)))
def test_one_cycle_of_few_steps_reaches_its_top(tmp_path: Path, linear: str, steps: int) -> None:
    """torch's divides by zero with 4 steps, and takes a single one at a rate of 0."""
    size = -(-1437 // steps)
    made = recipe(linear, schedule="onecycle", epochs=1, batch_size=size, lr=0.5)
    keeper, rates = Keeper(tmp_path / "s", every=0), []
    write = keeper.write

    def look(state: object) -> None:
        write(state)  # type: ignore[arg-type]
        rates.append(state.parts["optimizer"]["param_groups"][0]["lr"])  # type: ignore[attr-defined]

    keeper.write = look  # type: ignore[method-assign]
    trained = train(made, tmp_path / "w.pt", keeper=keeper)
    rates = [trained.curves[0].lr, *rates[: steps - 1]]  # before each step
    assert len(rates) == steps
    assert max(rates) > 0.4
    assert steps < 3 or rates[0] < rates[1]
