"""`accumulate` against plain torch: the loss of a whole window in one batch, and one step.

The oracle imports nothing of ckpt. In float64, where the order of sums changes 16 digits little.
"""

import copy
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import ckpt
from ckpt.errors import UsageError
from ckpt.train import accumulate, doctor
from tests.effort import PATIENCE
from tests.train.starting import torchrun
from tests.train.tips.two_loops import CASES, batches_of, net, trained_alone

TOLERANCE = 1e-12
SCRIPT = Path(__file__).with_name("two_loops.py")
Batch = tuple[Tensor, Tensor]


def samples(count: int, dtype: torch.dtype = torch.float64) -> Batch:
    generator = torch.Generator().manual_seed(count)
    inputs = torch.randn(count, 6, generator=generator, dtype=dtype)
    return inputs, torch.randint(0, 3, (count,), generator=generator)


def windows_of(batches: list[Batch], size: int) -> Iterator[list[Batch]]:
    iterator = iter(batches)
    while window := list(islice(iterator, size)):
        yield window


def joined(window: list[Batch]) -> Batch:
    inputs, labels = zip(*window, strict=True)
    return torch.cat(inputs), torch.cat(labels)


def distance(found: nn.Module, expected: nn.Module) -> float:
    """Largest difference of a tensor, relative to its largest element."""
    pairs = zip(found.state_dict().values(), expected.state_dict().values(), strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def trained(windows: Any, loss_of: Callable[[Any], Tensor]) -> list[Any]:
    """The windows, after the loop that the documentation shows."""
    done = []
    for window in windows:
        for batch in window:
            with window.forward():
                loss = loss_of(batch)
            window.backward(loss)
        done.append(window)
    return done


def classified(model: nn.Module, **options: Any) -> Callable[[Batch], Tensor]:
    return lambda batch: cross_entropy(model(batch[0]), batch[1], **options)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 99], ids=lambda size: f"windows of {size}")
def test_windows_train_like_whole_batches(
    reduction: Any, size: int, record_property: Callable[[str, object], None]
) -> None:
    """Uneven micro-batches, a short last window, clipping, a schedule by steps, an average."""
    inputs, labels = samples(61)
    cuts = [9, 4, 9, 1, 9, 9, 7, 9, 4]
    batches = list(zip(inputs.split(cuts), labels.split(cuts), strict=True))
    expected = net()
    found = copy.deepcopy(expected)
    ema = get_ema_multi_avg_fn(0.9)
    averages = [AveragedModel(each, multi_avg_fn=ema) for each in (found, expected)]
    sgds = [
        torch.optim.SGD(each.parameters(), lr=0.5, momentum=0.9, weight_decay=0.01)
        for each in (found, expected)
    ]
    steps = -(-len(batches) // size)
    schedules = [OneCycleLR(each, max_lr=0.5, total_steps=steps + 1) for each in sgds]

    norms, losses = [], 0.0
    for window in windows_of(batches, size):
        whole, truth = joined(window)
        sgds[1].zero_grad()
        loss = cross_entropy(expected(whole), truth)
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(expected.parameters(), 0.05).item())
        sgds[1].step()
        schedules[1].step()
        averages[1].update_parameters(expected)
        losses += loss.item() * len(truth)

    windows = accumulate(
        batches, found, sgds[0], micro_batches=size, reduction=reduction, clip=0.05,
        schedule=schedules[0], average=averages[0],
    )  # fmt: skip
    found_norms = [
        each.norm.item() for each in trained(windows, classified(found, reduction=reduction))
    ]
    error = max(distance(found, expected), distance(averages[0], averages[1]))
    record_property("figure", f"accumulate, windows of {size}, {reduction}: error {error:.1e}")
    assert error <= TOLERANCE
    assert min(norms) > 0.05, "clipping changes every step"
    assert found_norms == pytest.approx(norms, rel=TOLERANCE)
    assert schedules[0].get_last_lr() == schedules[1].get_last_lr()
    assert len(windows) == steps
    assert (windows.samples, windows.steps, windows.skipped) == (61, steps, 0)
    assert windows.loss == pytest.approx(losses / 61, rel=TOLERANCE)


def test_tokens_weigh_alike_whatever_their_sequence() -> None:
    """Means over unpadded tokens, averaged by micro-batch, would weigh those of short rows more."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 11, (8, 12), generator=generator)
    labels = tokens.roll(-1, dims=1)
    lengths = torch.tensor([12, 1, 3, 0, 11, 2, 0, 0])
    labels[torch.arange(12) >= lengths[:, None]] = -100
    batches = [
        {"tokens": part, "labels": truth}
        for part, truth in zip(tokens.split([2, 1, 3, 2]), labels.split([2, 1, 3, 2]), strict=True)
    ]
    torch.manual_seed(0)
    expected = nn.Sequential(nn.Embedding(11, 5), nn.Linear(5, 11)).double()
    found = copy.deepcopy(expected)

    def loss_of(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return cross_entropy(model(batch["tokens"]).flatten(0, 1), batch["labels"].flatten())

    loss_of(expected, {"tokens": tokens, "labels": labels}).backward()
    torch.optim.SGD(expected.parameters(), lr=1.0).step()

    def step(model: nn.Module, **options: Any) -> float:
        sgd = torch.optim.SGD(model.parameters(), lr=1.0)
        windows = accumulate(batches, model, sgd, micro_batches=4, **options)
        trained(windows, lambda batch: loss_of(model, batch))
        assert windows.steps == 1
        return windows.loss

    wrong = copy.deepcopy(found)
    step(wrong)  # by rows
    assert not distance(wrong, expected) <= 0.01
    loss = step(found, count=lambda batch: (batch["labels"] != -100).sum())
    assert distance(found, expected) <= TOLERANCE
    assert loss < 10, "a micro-batch without tokens has no loss"


@pytest.mark.parametrize("at", [0, 1, 2], ids=["first", "middle", "last"])
def test_a_batch_without_samples_is_left_out(at: int) -> None:
    """A mean by a mask is 0 / 0 there, and so is its gradient: with any weight it is nan."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, 4, 6, generator=generator, dtype=torch.float64)
    mask = torch.ones(3, 4, dtype=torch.float64)
    mask[at] = 0
    expected = net()
    found = copy.deepcopy(expected)

    def loss_of(model: nn.Module, batch: Batch) -> Tensor:
        return (model(batch[0]).square().sum(-1) * batch[1]).sum() / batch[1].sum()

    loss_of(expected, (inputs, mask)).backward()
    torch.optim.SGD(expected.parameters(), lr=0.1).step()
    batches = list(zip(inputs, mask, strict=True))
    sgd = torch.optim.SGD(found.parameters(), lr=0.1)
    options: dict[str, Any] = {"count": lambda batch: batch[1].sum()}
    windows = accumulate(batches, found, sgd, micro_batches=3, **options)
    (window,) = trained(windows, lambda batch: loss_of(found, batch))
    assert distance(found, expected) <= TOLERANCE
    assert (len(window), window.samples, windows.steps) == (2, 8, 1)
    (empty,) = trained(accumulate([batches[at]], found, sgd, micro_batches=3, **options), loss_of)
    assert (len(empty), empty.stepped) == (0, False)
    assert distance(found, expected) <= TOLERANCE


class Endless(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        yield from torch.arange(10.0, dtype=torch.float64)


def test_a_loader_without_a_length_ends_with_a_short_window() -> None:
    model = nn.Linear(1, 1).double()
    sgd = torch.optim.SGD(model.parameters(), lr=0.0)
    windows = accumulate(DataLoader(Endless(), batch_size=3), model, sgd, micro_batches=3)
    with pytest.raises(TypeError):
        len(windows)
    seen = []
    for window in windows:
        for numbers in window:
            with window.forward():
                loss = model(numbers[:, None]).mean()
            window.backward(loss)
        seen.append((window.samples, len(window)))
        assert model.weight.grad is not None
        first = 9 if len(seen) == 2 else 0
        mean = sum(range(first, int(first + window.samples))) / window.samples
        assert model.weight.grad.item() == pytest.approx(mean, rel=TOLERANCE)
    assert seen == [(9, 3), (1, 1)]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_loader_of_processes_serves_too(workers: int) -> None:
    dataset = TensorDataset(*samples(20))
    loader = DataLoader(dataset, batch_size=3, num_workers=workers)
    model = net()
    windows = accumulate(loader, model, torch.optim.SGD(model.parameters()), micro_batches=2)
    trained(windows, classified(model))
    assert (len(windows), windows.steps, windows.samples) == (4, 4, 20)


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_fp16_windows_with_infinities_are_skipped_whole(fused: bool) -> None:
    """Weights, schedule, average and scale are those of torch's own recipe, written out."""
    inputs, labels = samples(48, torch.float32)
    batches = list(zip(inputs.split(8), labels.split(8), strict=True))
    factors = {3: torch.inf}  # the fourth micro-batch: the window of the third and fourth
    torch.manual_seed(0)
    expected = nn.Linear(6, 3)
    found = copy.deepcopy(expected)

    def parts(model: nn.Module) -> tuple[Any, ...]:
        adam = torch.optim.Adam(model.parameters(), lr=0.1, fused=fused)
        schedule = LambdaLR(adam, lambda step: 0.5**step)
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
        return adam, torch.amp.GradScaler("cpu", init_scale=8.0), schedule, average

    adam, scaler, schedule, average = parts(expected)
    for at in (0, 2, 4):
        adam.zero_grad()
        for index in (at, at + 1):
            with torch.autocast("cpu", torch.float16):
                loss = cross_entropy(expected(batches[index][0]), batches[index][1])
            scaler.scale(loss * factors.get(index, 1.0) / 2).backward()
        scaler.unscale_(adam)
        nn.utils.clip_grad_norm_(expected.parameters(), 1e-2)
        scaler.step(adam)
        scaler.update()
        if at != 2:
            schedule.step()
            average.update_parameters(expected)

    mine = parts(found)
    windows = accumulate(
        list(enumerate(batches)), found, mine[0], micro_batches=2, precision="fp16",
        clip=1e-2, scaler=mine[1], schedule=mine[2], average=mine[3],
        count=lambda batch: len(batch[1][1]),
    )  # fmt: skip

    def loss_of(batch: Any) -> Tensor:
        index, (part, truth) = batch
        scores = found(part)
        assert scores.dtype == torch.float16
        return cross_entropy(scores, truth) * factors.get(index, 1.0)

    assert [each.stepped for each in trained(windows, loss_of)] == [True, False, True]
    assert (windows.steps, windows.skipped) == (2, 1)
    assert distance(found, expected) == 0
    assert distance(mine[3], average) == 0
    assert int(mine[3].n_averaged) == int(average.n_averaged) == 2
    assert mine[1].state_dict() == scaler.state_dict()
    rates = (*mine[2].get_last_lr(), *schedule.get_last_lr())
    assert (scaler.get_scale(), *rates) == (4.0, 0.025, 0.025)


def test_a_step_with_a_scale_of_zero_is_skipped() -> None:
    """A loss that stays infinite halves it down to 0, from where it cannot fall."""
    model = nn.Linear(6, 3)
    before = copy.deepcopy(model)
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    schedule = LambdaLR(sgd, lambda step: 0.5**step)
    scaler = torch.amp.GradScaler("cpu", init_scale=1e-44)
    windows = accumulate(
        [samples(8, torch.float32)] * 6, model, sgd, micro_batches=1, precision="fp16",
        scaler=scaler, schedule=schedule,
    )  # fmt: skip
    done = trained(windows, lambda batch: classified(model)(batch) * torch.inf)
    assert scaler.get_scale() == 0
    assert not any(each.stepped for each in done)
    assert (windows.steps, windows.skipped, schedule.last_epoch) == (0, 6, 0)
    assert distance(model, before) == 0


def test_bf16_is_torchs_autocast() -> None:
    inputs, labels = samples(8, torch.float32)
    expected = net().float()
    found = copy.deepcopy(expected)
    sgds = [torch.optim.SGD(each.parameters(), lr=1.0) for each in (found, expected)]
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy(expected(inputs), labels)
    loss.backward()
    sgds[1].step()
    batches = [(inputs, labels)]
    trained(
        accumulate(batches, found, sgds[0], micro_batches=1, precision="bf16"), classified(found)
    )
    assert distance(found, expected) == 0


def test_nothing_stays_on_after_an_exception() -> None:
    """As in a notebook, which keeps the traceback, and with it all that is suspended."""
    model = net().float()
    windows = accumulate(
        [samples(8, torch.float32)], model, torch.optim.SGD(model.parameters()),
        micro_batches=1, precision="bf16",
    )  # fmt: skip
    with pytest.raises(ZeroDivisionError) as kept:
        for window in windows:
            for inputs, _ in window:
                with window.forward():
                    model(inputs)
                    1 / 0  # noqa: B018
    assert kept.tb is not None
    assert not torch.is_autocast_enabled("cpu")


def test_losses_keep_no_graph() -> None:
    model = net()
    sgd = torch.optim.SGD(model.parameters())
    windows = accumulate([samples(8), samples(4)], model, sgd, micro_batches=1)
    kept = [each.loss_sum for each in trained(windows, classified(model))]
    assert all(each is not None and not each.requires_grad for each in kept)


def test_a_loop_may_end_after_any_window() -> None:
    """The step belongs to the end of the inner loop: what follows sees new weights and figures."""
    model = net()
    before = copy.deepcopy(model)
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    windows = accumulate([samples(8)] * 3, model, sgd, micro_batches=1)
    for window in windows:
        for inputs, labels in window:
            with window.forward():
                loss = cross_entropy(model(inputs), labels)
            window.backward(loss)
        break
    assert window.stepped
    assert (windows.steps, windows.samples, windows.skipped) == (1, 8, 0)
    assert windows.loss == pytest.approx(loss.item())
    assert distance(model, before) > 0


def run_window(model: nn.Module, batches: Any, then: Callable[..., None], **options: Any) -> None:
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    options = {"micro_batches": 2, **options}
    for window in accumulate(batches, model, sgd, **options):
        for batch in window:
            then(window, batch, model)


def no_forward(window: Any, batch: Batch, model: nn.Module) -> None:
    window.backward(cross_entropy(model(batch[0]), batch[1]))


def no_backward(window: Any, batch: Batch, model: nn.Module) -> None:
    with window.forward():
        model(batch[0])


def not_reduced(window: Any, batch: Batch, model: nn.Module) -> None:
    with window.forward():
        losses = cross_entropy(model(batch[0]), batch[1], reduction="none")
    window.backward(losses)


def twice(window: Any, batch: Batch, model: nn.Module) -> None:
    for _ in range(2):
        with window.forward():
            loss = cross_entropy(model(batch[0]), batch[1])
        window.backward(loss)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (no_forward, r"the forward pass was outside of window.forward\(\)"),
        (no_backward, "batch 1 of the window had no backward pass"),
        (not_reduced, r"the loss has shape \(4,\), expected \(\), the mean of the batch"),
        (twice, "a batch had two backward passes"),
    ],
)
def test_wrong_loops_are_refused_before_the_step(wrong: Callable[..., None], message: str) -> None:
    model = net()
    before = copy.deepcopy(model)
    with pytest.raises(UsageError, match=message):
        run_window(model, [samples(4)] * 2, wrong)
    assert distance(model, before) == 0


def test_a_window_that_was_left_is_refused() -> None:
    model = net()
    sgd = torch.optim.SGD(model.parameters())
    with pytest.raises(UsageError, match="the window was left before its step"):
        for window in accumulate([samples(4)] * 4, model, sgd, micro_batches=2):
            for _ in window:
                break
    with pytest.raises(UsageError, match="a window can be used once"):
        list(window)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"micro_batches": 0}, "micro_batches is 0, expected at least 1"),
        ({"reduction": "none"}, "reduction is none, expected mean or sum"),
        ({"precision": "auto"}, "precision is auto, expected fp32, bf16 or fp16"),
        ({"clip": -1.0}, "clip is -1.0, expected 0 or more"),
        ({"precision": "fp16"}, "precision is fp16, which needs a scaler"),
        (
            {"precision": "bf16", "scaler": torch.amp.GradScaler("cpu")},
            "precision is bf16, which needs no scaler",
        ),
    ],
)
def test_wrong_values_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run_window(net(), [], no_forward, **options)


def test_fp16_asks_for_a_scaler_of_the_models_device() -> None:
    """With the scaler of the hint it trains; torch disables one for CUDA without a GPU."""
    with pytest.raises(UsageError, match=r"(?m)fp16, which needs a scaler$") as missing:
        run_window(net(), [], no_forward, precision="fp16")
    assert missing.value.hint == 'scaler = torch.amp.GradScaler("cpu")  once, before the epochs'
    disabled = torch.amp.GradScaler("cuda", enabled=False)
    with pytest.raises(UsageError, match="which needs an enabled scaler; this one is") as found:
        run_window(net(), [], no_forward, precision="fp16", scaler=disabled)
    assert found.value.hint == missing.value.hint
    run_window(net(), [], no_forward, precision="fp16", scaler=torch.amp.GradScaler("cpu"))


@pytest.mark.parametrize(
    "batch",
    [
        [torch.zeros(3, 2), torch.zeros(4)],
        [[torch.zeros(3, 8, 8)] * 2, [{"boxes": torch.zeros(5, 4)}] * 2],
        ["text", "more"],
    ],
    ids=["two lengths", "lists of images", "text"],
)
def test_batches_without_one_length_need_a_count(batch: Any) -> None:
    with pytest.raises(UsageError, match="cannot count the samples of a batch: list with") as found:
        run_window(net(), [batch], no_forward)
    assert "count=lambda batch: …" in str(found.value.hint)


def test_gradient_checkpointing_dropout_and_ties_train_as_before() -> None:
    """Nothing is changed in a model: one micro-batch is a plain step, bit by bit."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.drop, self.second = nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, 6)
            self.second.weight = self.first.weight

        def forward(self, inputs: Tensor) -> Tensor:
            hidden = torch.utils.checkpoint.checkpoint(
                lambda x: self.drop(self.first(x)), inputs, use_reentrant=False
            )
            return self.second(hidden)

    torch.manual_seed(0)
    expected = Tied().double()
    found = copy.deepcopy(expected)
    inputs, _ = samples(8)
    torch.manual_seed(1)
    mse_loss(expected(inputs), inputs).backward()
    torch.optim.SGD(expected.parameters(), lr=1.0).step()
    torch.manual_seed(1)
    sgd = torch.optim.SGD(found.parameters(), lr=1.0)
    trained(
        accumulate([inputs], found, sgd, micro_batches=1),
        lambda part: mse_loss(found(part), part),
    )
    assert distance(found, expected) == 0


def test_both_names_are_one_function_and_need_no_torch() -> None:
    assert ckpt.train.accumulate is accumulate
    assert ckpt.train.doctor is doctor
    program = (
        "import sys, ckpt\n"
        "from ckpt.train import accumulate, doctor\n"
        "import ckpt.train\n"
        "assert ckpt.train.accumulate is accumulate and ckpt.train.__name__ == 'train'\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have trained each case."""
    folder = tmp_path_factory.mktemp("two")
    started = torchrun(folder, str(SCRIPT), str(folder))
    _, errors = started.communicate(timeout=PATIENCE)
    assert started.returncode == 0, errors
    return folder


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_like_one(
    two: Path, name: str, record_property: Callable[[str, object], None]
) -> None:
    """Unequal shares, a process that runs out of batches, one reduction a window."""
    expected = trained_alone(name)
    both = [torch.load(two / f"{name}.{rank}.pt") for rank in (0, 1)]
    for each in both:
        found = net()
        found.load_state_dict(each["state"])
        error = distance(found, expected)
        record_property("figure", f"accumulate in two processes, {name}: error {error:.1e}")
        assert error <= TOLERANCE
        assert each["reductions"] == each["windows"]
    assert both[0]["windows"] == both[1]["windows"]
    mine = [sum(len(labels) for _, labels in batches_of(name, rank)) for rank in (0, 1)]
    assert [each["samples"] for each in both] == mine


@pytest.mark.long
def test_a_process_without_any_batch_is_an_error_in_both(two: Path) -> None:
    for rank in (0, 1):
        words = (two / f"none.{rank}.txt").read_text()
        assert words == "only 1 of 2 processes have batches"
