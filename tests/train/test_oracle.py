"""The trainer beside a loop that shares no code with it, over what a recipe can ask for."""

import copy
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from ckpt.train.loop import Trainer
from ckpt.train.memory.size import MicroBatchSize
from ckpt.train.recipes.recipe import Recipe
from tests.effort import by_effort, long_but
from tests.train.epochs import train_epoch, window_of
from tests.train.networks import ALIKE, APART, CLASSES, logits, mlp
from tests.train.plain_loop import Loop

WINDOWS = (12, 12, 12, 7)  # samples; the last one is shorter
DOUBLE, SINGLE = 1e-12, 1e-6


def epochs_of(dtype: torch.dtype, count: int = 2) -> list[list[tuple[Tensor, Tensor]]]:
    generator = torch.Generator().manual_seed(11)

    def window(size: int) -> tuple[Tensor, Tensor]:
        images = torch.randn(size, 1, 8, 8, generator=generator, dtype=torch.float64)
        return images.to(dtype), torch.randint(0, CLASSES, (size,), generator=generator)

    return [[window(size) for size in WINDOWS] for _ in range(count)]


def pair(
    model: nn.Module,
    epochs: list[list[tuple[Tensor, Tensor]]],
    *,
    micro: int,
    whole: bool = False,
    precision: str = "fp32",
    **settings: object,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The state_dicts that the trainer and the plain loop end with.

    Args:
        whole: Whether the plain loop takes each window as one batch.
    """
    recipe = Recipe(**{"epochs": len(epochs), **settings})  # type: ignore[arg-type]
    other = copy.deepcopy(model)
    trainer = Trainer(model, precision, recipe, windows=len(epochs[0]), size=MicroBatchSize(micro))
    torch.manual_seed(1)
    for windows in epochs:
        train_epoch(trainer, [window_of(*window) for window in windows])
    other.train()
    loop = Loop(
        other, optimizer=recipe.optimizer, lr=recipe.lr, momentum=recipe.momentum,
        decay=recipe.weight_decay, schedule=recipe.schedule, gamma=recipe.lr_decay,
        clip=recipe.clip, ema=recipe.ema, precision=precision,
        loss="nll" if recipe.loss == "auto" else recipe.loss,
        micro=10**9 if whole else micro,
    )  # fmt: skip
    torch.manual_seed(1)
    loop.run(epochs)
    return dict(trainer.result.state_dict()), loop.result


def furthest(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference, relative to the largest number of its tensor."""
    assert found.keys() == expected.keys()
    differences = [0.0]
    for key, tensor in expected.items():
        assert found[key].dtype == tensor.dtype, key
        scale = float(tensor.double().abs().max()) or 1.0
        differences.append(float((found[key].double() - tensor.double()).abs().max()) / scale)
    return max(differences)


def built(make: object, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return make().to(dtype)  # type: ignore[operator, no-any-return]


OPTIMIZERS = {
    "sgd": {"optimizer": "sgd", "lr": 0.1},
    "sgd without momentum": {"optimizer": "sgd", "lr": 0.1, "momentum": 0.0},
    "adam": {"optimizer": "adam", "lr": 0.01},
    "adamw": {"optimizer": "adamw", "lr": 0.01},
    "adadelta": {"optimizer": "adadelta", "lr": 1.0},
}
GRID = list(
    product(
        OPTIMIZERS,
        ("step", "cosine", "onecycle", "constant"),
        (0.0, 0.3),  # clip
        (0.0, 0.05),  # weight decay
        (0.0, 0.8),  # average
        (12, 5, 1),  # micro-batch
    )
)


def settings_of(case: tuple[object, ...]) -> dict[str, object]:
    name, schedule, clip, decay, ema, _ = case
    more = {"schedule": schedule, "clip": clip, "weight_decay": decay, "ema": ema}
    return {**OPTIMIZERS[name], **more}  # type: ignore[index, dict-item]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_whole_grid_in_float64_is_as_one_batch_by_hand(name: str, record_property) -> None:
    """Every optimizer, schedule, clip, decay, average and micro-batch."""
    epochs, worst = epochs_of(torch.float64), 0.0
    cases = [case for case in GRID if case[0] == name][:: by_effort(13, 1, 1)]
    for case in cases:
        found, expected = pair(built(mlp), epochs, micro=case[-1], whole=True, **settings_of(case))
        worst = max(worst, error := furthest(found, expected))
        assert error <= DOUBLE, case
    record_property("figure", f"{len(cases)} runs with {name} beside a plain loop: {worst:.0e}")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_step_in_each_precision_is_as_by_hand(precision: str) -> None:
    """One step: after it a difference in float32's last bit may become one in bfloat16's."""
    epochs = [epochs_of(torch.float32)[0][:1]]
    for case in [case for case in GRID if case[1] == "constant"][:: by_effort(7, 1, 1)]:
        found, expected = pair(
            built(mlp, torch.float32), epochs, micro=case[-1], precision=precision,
            **settings_of(case),
        )  # fmt: skip
        assert furthest(found, expected) <= SINGLE, case


def test_grid_in_float32_is_as_by_hand() -> None:
    epochs = epochs_of(torch.float32)
    for case in GRID[:: by_effort(37, 5, 1)]:
        found, expected = pair(
            built(mlp, torch.float32), epochs, micro=case[-1], **settings_of(case)
        )
        assert furthest(found, expected) <= SINGLE, case


@pytest.mark.parametrize("schedule", long_but(["cosine"], ["step", "cosine", "onecycle"]))
@pytest.mark.parametrize("bad", long_but([(0,), (2, 3)], [(), (0,), (2, 3), (1, 7)]), ids=str)
def test_steps_that_fp16_skips_are_skipped_by_hand_too(schedule: str, bad: tuple[int, ...]) -> None:
    """With weights in float64, which autocast leaves alone: the scaler's part alone, exactly."""
    epochs = epochs_of(torch.float64)
    for place in bad:
        images, labels = epochs[place // 4][place % 4]
        wrong = images.clone().index_fill_(0, torch.tensor([1]), float("inf"))
        epochs[place // 4][place % 4] = (wrong, labels)
    for case in [case for case in GRID if case[1] == schedule and case[4]][:: by_effort(11, 1, 1)]:
        found, expected = pair(
            built(mlp), epochs, micro=case[-1], precision="fp16", **settings_of(case)
        )
        assert furthest(found, expected) <= DOUBLE, case


@pytest.mark.parametrize("name", ALIKE)
@pytest.mark.parametrize("micro", [12, 5, 1])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_network_trains_as_with_one_batch_by_hand(name: str, micro: int, optimizer: str) -> None:
    more = {**OPTIMIZERS[optimizer], "clip": 0.5, "ema": 0.8, "weight_decay": 0.01}
    found, expected = pair(
        built(ALIKE[name]), epochs_of(torch.float64), micro=micro, whole=True, **more
    )
    assert furthest(found, expected) <= DOUBLE


@pytest.mark.parametrize("name", [*ALIKE, *APART])
@pytest.mark.parametrize("micro", [12, 4])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, DOUBLE), (torch.float32, SINGLE)])
def test_network_trains_as_with_the_same_micro_batches_by_hand(
    name: str, micro: int, dtype: torch.dtype, bound: float
) -> None:
    more = {**OPTIMIZERS["sgd"], "clip": 0.5, "ema": 0.8}
    model = built({**ALIKE, **APART}[name], dtype)
    found, expected = pair(model, epochs_of(dtype), micro=micro, **more)
    assert furthest(found, expected) <= bound


@pytest.mark.parametrize("loss", ["nll", "cross-entropy", "bce", "mse"])
@pytest.mark.parametrize("micro", [12, 5])
def test_loss_is_that_by_hand(loss: str, micro: int) -> None:
    model = built(mlp if loss == "nll" else logits)
    more = {**OPTIMIZERS["sgd"], "loss": loss, "lr": 0.02}
    found, expected = pair(model, epochs_of(torch.float64), micro=micro, whole=True, **more)
    assert furthest(found, expected) <= DOUBLE


@pytest.mark.parametrize("clip", [0.0, 0.05])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_mean_norm_of_the_gradients_is_that_by_hand(precision: str, clip: float) -> None:
    """Before clipping, and without the step that fp16 skips."""
    (windows,) = epochs_of(torch.float64, count=1)
    if precision == "fp16":
        images, labels = windows[1]
        windows[1] = (images.index_fill(0, torch.tensor([2]), float("inf")), labels)
    recipe = Recipe(optimizer="sgd", lr=0.1, clip=clip, schedule="constant")
    trainer = Trainer(built(mlp), precision, recipe, size=MicroBatchSize(5))
    progress = trainer.new_epoch()
    for _ in trainer.steps([window_of(*window) for window in windows], progress):
        pass
    _, norm = trainer.end_epoch(progress)
    loop = Loop(built(mlp).train(), lr=0.1, clip=clip, precision=precision)
    loop.run([windows])
    assert len(loop.norms) == (4 if precision == "fp32" else 3)
    assert min(loop.norms) > 0.05, "clipping would show"
    assert norm == pytest.approx(sum(loop.norms) / len(loop.norms), rel=DOUBLE)


def test_comparison_notices_each_setting() -> None:
    """It can fail: the plain loop with another rate, clip, decay or average differs."""
    epochs = epochs_of(torch.float64)
    usual = {"optimizer": "sgd", "lr": 0.1, "clip": 0.3, "weight_decay": 0.05, "ema": 0.8}
    found, _ = pair(built(mlp), epochs, micro=5, **usual)
    for change in ({"lr": 0.1001}, {"clip": 0.31}, {"weight_decay": 0.0}, {"ema": 0.81}):
        _, other = pair(built(mlp), epochs, micro=5, **{**usual, **change})
        assert furthest(found, other) > 1e6 * DOUBLE, change
