"""Optimizers, schedules, clipping and averages: as torch alone would do, and only on real steps."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, nll_loss
from torch.optim import lr_scheduler

from ckpt.errors import UsageError
from ckpt.train.loop import Trainer, evaluate
from ckpt.train.recipes.recipe import OPTIMIZERS, Recipe
from tests.train.epochs import train_epoch, window_of


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.LogSoftmax(dim=1))


def batch(seed: int, count: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, 28, 28, generator=generator)
    return images, torch.randint(0, 10, (count,), generator=generator)


def trained(precision: str = "fp32", windows: int = 6, **settings: object) -> Trainer:
    recipe = Recipe(**{"epochs": 1, **settings})  # type: ignore[arg-type]
    trainer = Trainer(network(), precision, recipe, windows=windows)
    train_epoch(trainer, [window_of(*batch(seed)) for seed in range(windows)])
    return trainer


REFERENCES = {
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=0.1, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.01),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.5, nesterov=True, weight_decay=0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_are_those_of_torchs_own_loop(name: str) -> None:
    found = trained(optimizer=name, lr=0.1, momentum=0.5, weight_decay=0.01, schedule="constant")
    model = network()
    optimizer = REFERENCES[name](model.parameters())
    for seed in range(6):
        images, labels = batch(seed)
        optimizer.zero_grad()
        (nll_loss(model(images), labels, reduction="sum") / 8).backward()
        optimizer.step()
    for mine, theirs in zip(found.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def rates(schedule: str, *, windows: int = 6, overflow: int | None = None) -> list[float]:
    """The learning rate of each window."""
    recipe = Recipe(epochs=1, schedule=schedule, optimizer="sgd", lr=0.4)
    precision = "fp32" if overflow is None else "fp16"
    trainer = Trainer(network(), precision, recipe, windows=windows)
    found = []
    for number in range(windows):
        found.append(trainer.optimizer.param_groups[0]["lr"])
        images, labels = batch(number)
        if number == overflow:
            images = images * float("inf")
        train_epoch(trainer, [window_of(images, labels)])
    return found


def test_cosine_falls_to_nothing_over_all_steps() -> None:
    found = rates("cosine")
    assert found[0] == 0.4
    assert found == sorted(found, reverse=True)
    assert found[3] == pytest.approx(0.2)


def test_onecycle_rises_and_falls_once() -> None:
    found = rates("onecycle", windows=20)
    top = found.index(max(found))
    assert max(found) == pytest.approx(0.4, rel=0.05)
    assert 3 <= top <= 5
    assert found[:top] == sorted(found[:top])
    assert found[top:] == sorted(found[top:], reverse=True)


@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "step"])
def test_skipped_step_moves_no_learning_rate(schedule: str) -> None:
    found = rates(schedule, overflow=2)
    assert found[3] == found[2]
    assert found[:3] == rates(schedule)[:3]


def test_gradient_is_clipped_after_it_is_unscaled() -> None:
    """Clipped before, the scale of fp16 would shrink it to nothing."""
    for precision in ("fp32", "fp16"):
        recipe = Recipe(optimizer="sgd", lr=1.0, momentum=0.0, clip=0.5, schedule="constant")
        trainer = Trainer(network(), precision, recipe)
        before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
        train_epoch(trainer, [window_of(*batch(0))])
        after = [parameter.detach() for parameter in trainer.model.parameters()]
        moved = torch.cat([(a - b).flatten() for a, b in zip(after, before, strict=True)])
        assert float(moved.norm()) == pytest.approx(0.5, rel=1e-3), precision


def test_small_gradient_is_left_as_it_is() -> None:
    loose, free = trained(clip=1e6, optimizer="sgd"), trained(optimizer="sgd")
    for one, other in zip(loose.model.parameters(), free.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_average_follows_the_steps_that_happened() -> None:
    recipe = Recipe(optimizer="sgd", lr=0.1, momentum=0.0, ema=0.75, schedule="constant")
    trainer = Trainer(network(), "fp16", recipe)
    assert trainer.average is not None
    expected: list[torch.Tensor] = []
    for number in range(5):
        images, labels = batch(number)
        if number == 2:
            images = images * float("inf")
        train_epoch(trainer, [window_of(images, labels)])
        weights = [parameter.detach().clone() for parameter in trainer.model.parameters()]
        if not expected:
            expected = weights
        elif number != 2:
            expected = [0.75 * old + 0.25 * new for old, new in zip(expected, weights, strict=True)]
    found = trainer.average.module.parameters()
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "value"),
    [("optimizer", "lion"), ("schedule", "linear"), ("ema", 1.0), ("momentum", -0.1),
     ("clip", -1.0), ("weight_decay", float("nan"))],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=name.replace("_", "-")):
        Recipe(**{name: value})  # type: ignore[arg-type]


def test_label_smoothing_trains_and_does_not_score() -> None:
    found = trained(optimizer="sgd", lr=0.1, schedule="constant", label_smoothing=0.2, momentum=0.0)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for seed in range(6):
        images, labels = batch(seed)
        optimizer.zero_grad()
        log_probs = model(images)
        # log_softmax of log-probabilities is what they are already.
        cross_entropy(log_probs, labels, label_smoothing=0.2).backward()
        optimizer.step()
    for mine, theirs in zip(found.model.parameters(), model.parameters(), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-5, atol=1e-7)
    images, labels = batch(9)
    with torch.no_grad():
        plain = nll_loss(found.model.eval()(images), labels).item()
    assert evaluate(found.model, [(images, labels)]).loss == pytest.approx(plain)


WARM = {
    "constant": lambda sgd, _: lr_scheduler.ConstantLR(sgd, factor=1.0),
    "cosine": lambda sgd, steps: lr_scheduler.CosineAnnealingLR(sgd, T_max=steps),
    "step": lambda sgd, steps: lr_scheduler.StepLR(sgd, step_size=steps // 2, gamma=0.7),
}


@pytest.mark.parametrize("schedule", WARM)
@pytest.mark.parametrize("warmup", [1, 5])
def test_warm_up_is_torchs_linear_one_times_the_schedule(schedule: str, warmup: int) -> None:
    recipe = Recipe(epochs=2, optimizer="sgd", lr=0.4, schedule=schedule, warmup=warmup)
    trainer = Trainer(network(), "fp32", recipe, windows=6)
    found = []
    for _ in range(2):
        for number in range(6):
            found.append(trainer.optimizer.param_groups[0]["lr"])
            trainer.accumulate([batch(number)], 8)
            trainer.step()
    sgd = torch.optim.SGD(network().parameters(), lr=0.4)
    ramp = lr_scheduler.LinearLR(sgd, 1 / warmup, total_iters=warmup - 1)
    both = lr_scheduler.ChainedScheduler([ramp, WARM[schedule](sgd, 12)])
    expected = []
    for _ in range(12):
        expected.append(sgd.param_groups[0]["lr"])
        sgd.step()
        both.step()
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_skipped_step_does_not_warm_up() -> None:
    recipe = Recipe(epochs=1, optimizer="sgd", lr=0.4, schedule="constant", warmup=4)
    trainer = Trainer(network(), "fp16", recipe, windows=3)
    images, labels = batch(0)
    rates = []
    for factor in (1.0, float("inf"), 1.0):
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        train_epoch(trainer, [window_of(images * factor, labels)])
    assert rates == pytest.approx([0.1, 0.2, 0.2])


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_decay_on_matrices_leaves_biases_and_norms_alone(name: str) -> None:
    def normed() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(784, 12), nn.LayerNorm(12), nn.Linear(12, 10), nn.LogSoftmax(1)
        )

    recipe = Recipe(
        epochs=1, optimizer=name, lr=0.1, momentum=0.0, weight_decay=0.5, decay_on="matrices",
        schedule="constant",
    )  # fmt: skip
    trainer = Trainer(normed(), "fp32", recipe, windows=4)
    train_epoch(trainer, [window_of(*batch(seed)) for seed in range(4)])
    model = normed()
    weights = [each for key, each in model.named_parameters() if key in ("1.weight", "3.weight")]
    others = [each for each in model.parameters() if each.dim() < 2]
    groups = [{"params": weights}, {"params": others, "weight_decay": 0.0}]
    made = torch.optim.AdamW if name == "adamw" else torch.optim.SGD
    optimizer = made(groups, lr=0.1, weight_decay=0.5)
    for seed in range(4):
        images, labels = batch(seed)
        optimizer.zero_grad()
        nll_loss(model(images), labels).backward()
        optimizer.step()
    for mine, theirs in zip(trainer.model.parameters(), model.parameters(), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-6)
    ordered = [each for group in trainer.optimizer.param_groups for each in group["params"]]
    assert all(a is b for a, b in zip(ordered, trainer.model.parameters(), strict=True))
