"""The contract of the effective batch, measured on gradients.

Adadelta divides by the gradient's own size, so an accuracy would not notice a forgotten
division; gradients do. Everything in float64, dropout off.
"""

import copy
import gc
from itertools import pairwise

import pytest
import torch
from ckpt.models.mnist_cnn import Net
from torch import nn
from torch.nn.functional import nll_loss
from torch.utils._python_dispatch import TorchDispatchMode

from ckpt.train.loop import Trainer, evaluate
from ckpt.train.memory.size import MicroBatchSize
from ckpt.train.processes import Processes
from ckpt.train.recipes.recipe import Recipe
from tests.effort import long_but
from tests.train.epochs import train_epoch, window_of

TOLERANCE = 1e-12
CUTS = {
    "256 = 1 x 256": [256],
    "256 = 4 x 64": [64, 64, 64, 64],
    "256 = 100 + 93 + 63": [100, 93, 63],
    "96 = 64 + 32": [64, 32],
}


def samples(count, *, dtype=torch.float64):
    generator = torch.Generator().manual_seed(count)
    images = torch.randn(count, 1, 28, 28, generator=generator, dtype=dtype)
    return images, torch.randint(0, 10, (count,), generator=generator)


def cut(images, labels, sizes):
    return list(zip(images.split(sizes), labels.split(sizes), strict=True))


def small_trainer(precision="fp32", **settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.LogSoftmax(dim=1))
    return Trainer(model, precision, Recipe(batch_size=8, **settings))


@pytest.fixture(scope="module")
def trainer():
    """The default model in float64, in eval mode: dropout would differ between cuts."""
    torch.manual_seed(0)
    return Trainer(Net().double().eval(), "fp32", Recipe())


def gradients(trainer):
    return [parameter.grad.clone() for parameter in trainer.model.parameters()]


def one_batch(trainer, images, labels):
    """The definition: the gradient of the mean loss of one batch."""
    trainer.optimizer.zero_grad()
    nll_loss(trainer.model(images), labels).backward()
    return gradients(trainer)


def worst(found, expected):
    """Largest difference of a parameter's gradient, relative to that gradient's largest."""
    pairs = zip(found, expected, strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


@pytest.mark.parametrize("sizes", long_but([CUTS["96 = 64 + 32"]], CUTS.values()), ids=CUTS)
def test_a_window_has_the_gradient_of_one_batch(trainer, sizes, record_property):
    images, labels = samples(sum(sizes))
    expected = one_batch(trainer, images, labels)
    trainer.optimizer.zero_grad()
    trainer.accumulate(cut(images, labels, sizes), len(labels))
    error = worst(gradients(trainer), expected)
    cuts = " + ".join(map(str, sizes))
    record_property("figure", f"gradient of {sum(sizes)} as {cuts}: relative error {error:.1e}")
    assert error <= TOLERANCE


def mean_of_means(trainer, batches):
    for images, labels in batches:
        (nll_loss(trainer.model(images), labels) / len(batches)).backward()


def sum_of_means(trainer, batches):
    for images, labels in batches:
        nll_loss(trainer.model(images), labels).backward()


def zeroed_inside(trainer, batches):
    total = sum(len(labels) for _, labels in batches)
    for images, labels in batches:
        trainer.optimizer.zero_grad()
        (nll_loss(trainer.model(images), labels, reduction="sum") / total).backward()


def nominal_size(trainer, batches):
    for images, labels in batches:
        (nll_loss(trainer.model(images), labels, reduction="sum") / 256).backward()


MISTAKES = [mean_of_means, sum_of_means, zeroed_inside, nominal_size]


@pytest.mark.parametrize(
    "mistake",
    long_but([mean_of_means, nominal_size], MISTAKES),
    ids=lambda mistake: mistake.__name__,
)
def test_the_classic_mistakes_are_told_apart_on_the_tail(trainer, mistake, record_property):
    images, labels = samples(96)
    expected = one_batch(trainer, images, labels)
    trainer.optimizer.zero_grad()
    mistake(trainer, cut(images, labels, [64, 32]))
    error = worst(gradients(trainer), expected)
    name = mistake.__name__.replace("_", " ")
    record_property("figure", f"mistake on 96 as 64 + 32, {name}: relative error {error:.1e}")
    assert error > 1e6 * TOLERANCE


def test_world_size_multiplies_because_processes_average():
    trainer = small_trainer()
    batch = samples(32, dtype=torch.float32)
    trainer.accumulate([batch], 32)
    alone = gradients(trainer)
    two = Trainer(trainer.model, "fp32", Recipe())
    two.processes = Processes(count=2)
    two.optimizer.zero_grad()
    two.accumulate([batch], 32)
    assert all(torch.equal(2 * a, b) for a, b in zip(alone, gradients(two), strict=True))


def test_a_window_that_holds_less_than_it_says_is_refused():
    with pytest.raises(ValueError, match="window of 64 samples holds 32"):
        small_trainer().accumulate([samples(32, dtype=torch.float32)], 64)


def test_losses_and_hits_are_those_of_the_whole_window(trainer):
    images, labels = samples(96)
    tally = trainer.accumulate(cut(images, labels, [64, 32]), 96)
    log_probs = trainer.model(images)
    expected = nll_loss(log_probs, labels, reduction="sum").item()
    assert tally[0].item() == pytest.approx(expected, rel=1e-12)
    assert tally[1].item() == (log_probs.argmax(dim=1) == labels).sum().item()


def windows_of(count, size):
    """Windows of `size` samples, which `small_trainer` cuts into micro-batches of 8."""
    return [window_of(*samples(size, dtype=torch.float32)) for _ in range(count)]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_each_window_is_zeroed_unscaled_stepped_and_updated_once(precision, monkeypatch):
    trainer = small_trainer(precision)
    calls = []
    for owner, name in [
        (trainer.optimizer, "zero_grad"),
        (trainer.scaler, "unscale_"),
        (trainer.scaler, "step"),
        (trainer.scaler, "update"),
    ]:
        real = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *a, _r=real, _n=name, **k: (calls.append(_n), _r(*a, **k))[1]
        )
    totals = train_epoch(trainer, windows_of(3, 12))
    assert calls == ["zero_grad", "unscale_", "step", "update"] * 3
    assert (totals.samples, totals.windows, totals.steps) == (36, 3, 3)


def test_fp16_gradients_are_those_of_fp32_once_unscaled():
    plain, scaled = small_trainer("fp32"), small_trainer("fp16")
    batches = cut(*samples(24, dtype=torch.float32), [16, 8])
    plain.accumulate(batches, 24)
    scaled.accumulate(batches, 24)
    assert worst(gradients(scaled), gradients(plain)) > 1000  # still times the scale
    scaled.scaler.unscale_(scaled.optimizer)
    assert worst(gradients(scaled), gradients(plain)) < 0.02  # float16 has 11 bits


def test_a_skipped_step_advances_nothing():
    trainer = small_trainer("fp16")
    images, labels = samples(8, dtype=torch.float32)
    before = [parameter.clone() for parameter in trainer.model.parameters()]
    scale = trainer.scaler.get_scale()
    overflow = window_of(images * float("inf"), labels)
    totals = train_epoch(trainer, [overflow])
    assert (totals.windows, totals.steps) == (1, 0)
    after = trainer.model.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert trainer.optimizer.param_groups[0]["lr"] == 1.0
    assert not trainer.optimizer.state
    assert trainer.scaler.get_scale() == scale / 2


def test_an_epoch_with_one_skipped_step_counts_the_others():
    trainer = small_trainer("fp16")
    first, second = windows_of(2, 8)
    images, labels = samples(8, dtype=torch.float32)
    overflow = window_of(images * float("inf"), labels)
    totals = train_epoch(trainer, [first, overflow, second])
    assert (totals.windows, totals.steps) == (3, 2)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.7)


def test_the_learning_rate_falls_once_an_epoch():
    trainer = small_trainer(lr=0.5, lr_decay=0.1)
    rates = []
    for _ in range(3):
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        train_epoch(trainer, windows_of(2, 8))
    assert [b / a for a, b in pairwise(rates)] == pytest.approx([0.1, 0.1])


def test_metrics_have_no_graph_and_none_outlives_the_epoch():
    gc.collect()
    before = {id(thing) for thing in gc.get_objects() if type(thing) is torch.Tensor}
    trainer = small_trainer()
    tally = trainer.accumulate_window(windows_of(1, 12)[0])
    assert tally.grad_fn is None
    assert not tally.requires_grad
    train_epoch(trainer, windows_of(2, 12))
    alive = [thing for thing in gc.get_objects() if type(thing) is torch.Tensor]
    mine = [tensor for tensor in alive if id(tensor) not in before]
    assert not [tensor for tensor in mine if tensor.grad_fn is not None]


class Reads(TorchDispatchMode):
    """Counts what makes the host wait for one number."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        # Whole numbers of no dimension are counters, as an average's, and stay on the CPU.
        reads = func is torch.ops.aten._local_scalar_dense.default
        self.count += reads and args[0].is_floating_point()
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nothing_is_read_from_the_device_within_an_epoch(precision):
    trainer = small_trainer(precision)
    trainer._reads = False  # as on CUDA
    windows = windows_of(4, 12)
    with Reads() as reads:
        train_epoch(trainer, windows)
    few = reads.count
    with Reads() as reads:
        train_epoch(trainer, windows * 3)
    assert reads.count == few <= 2


@pytest.mark.parametrize("more", [{}, {"clip": 1.0}, {"schedule": "cosine"}, {"ema": 0.9}], ids=str)
def test_fp16_reads_one_number_a_step(more):
    """GradScaler's own, of whether a gradient is infinite: nothing may follow a skipped step."""
    trainer = small_trainer("fp16", **more)
    windows = windows_of(4, 12)
    counts = []
    for several in (windows, windows * 3):
        with Reads() as reads:
            train_epoch(trainer, several)
        counts.append(reads.count)
    at_the_end = 2
    assert counts[1] - counts[0] == 8
    assert counts[0] <= 4 + at_the_end


def test_evaluation_uses_no_dropout_and_keeps_no_graph():
    torch.manual_seed(0)
    model = Net().train()
    batches = [samples(16, dtype=torch.float32)]
    first, second = evaluate(model, batches), evaluate(model, batches)
    assert first == second
    assert first.samples == 16
    assert all(parameter.grad is None for parameter in model.parameters())


def normed(batch_norm="micro-batch"):
    """A trainer of a network with BatchNorm whose running statistics are not the first ones."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
    model.double()(samples(32)[0])
    return Trainer(model, "fp32", Recipe(batch_norm=batch_norm, batch_size=64))


def test_batch_norm_sees_its_micro_batch():
    trainer = normed()
    images, labels = samples(96)
    expected = one_batch(trainer, images, labels)
    trainer.optimizer.zero_grad()
    trainer.accumulate(cut(images, labels, [64, 32]), 96)
    assert worst(gradients(trainer), expected) > 1e-3


def test_frozen_batch_norm_has_the_gradient_of_one_batch():
    trainer = normed("frozen")
    buffers = {name: each.clone() for name, each in trainer.model.named_buffers()}
    images, labels = samples(96)
    expected = one_batch(
        Trainer(copy.deepcopy(trainer.model).eval(), "fp32", Recipe()), images, labels
    )
    trainer.accumulate(cut(images, labels, [64, 32]), 96)
    assert trainer.model.training
    assert worst(gradients(trainer), expected) <= TOLERANCE
    assert all(torch.equal(each, buffers[name]) for name, each in trainer.model.named_buffers())


def test_last_image_alone_has_no_variance_and_is_no_crash():
    trainer = normed()
    images, labels = samples(65)
    trainer.accumulate(cut(images, labels, [64, 1]), 65)
    assert all(gradient.isfinite().all() for gradient in gradients(trainer))
    assert trainer.model[2].num_batches_tracked == 2


def test_single_images_that_memory_allows_are_no_crash():
    trainer = normed()
    trainer.size = MicroBatchSize(1, adapts=True)
    images, labels = samples(3)
    trainer.accumulate(cut(images, labels, [1, 1, 1]), 3)
    assert all(gradient.isfinite().all() for gradient in gradients(trainer))
