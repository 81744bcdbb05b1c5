"""Why BatchNorm over a window is not offered: what docs/tips.md says about it, in numbers."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import nll_loss

from tests.train.test_loop import TOLERANCE, worst

Statistics = dict[nn.Module, tuple[Tensor, Tensor]]


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(20, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(),
        nn.Linear(8, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(),
        nn.Linear(8, 5), nn.LogSoftmax(1),
    ).double()  # fmt: skip


@pytest.fixture
def window() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(96, 20, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, 5, (96,), generator=generator)


def statistics(network: nn.Sequential, parts: tuple[Tensor, ...]) -> Statistics:
    """Mean and variance of all that reaches each norm, from one forward pass of each part."""
    reached: dict[nn.Module, list[Tensor]] = {}
    norms = [module for module in network if isinstance(module, nn.BatchNorm1d)]
    hooks = [
        norm.register_forward_hook(
            lambda module, inputs, _: reached.setdefault(module, []).append(inputs[0].detach())
        )
        for norm in norms
    ]
    for part in parts:
        network(part)
    for hook in hooks:
        hook.remove()
    whole = {norm: torch.cat(inputs) for norm, inputs in reached.items()}
    return {norm: (it.mean(0), it.var(0, unbiased=False)) for norm, it in whole.items()}


def gradients(network: nn.Sequential) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in network.parameters()]


def test_statistics_of_the_window_as_constants_do_not_give_its_gradient(
    network: nn.Sequential, window: tuple[Tensor, Tensor], record_property
) -> None:
    """Two passes: the outputs are those of one batch, the gradient is not."""
    images, labels = window
    scores = network.train()(images)
    nll_loss(scores, labels).backward()
    expected = gradients(network)
    for norm, (mean, variance) in statistics(network, (images,)).items():
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
    network.eval().zero_grad()
    outputs = []
    for part, of_part in zip(images.split(32), labels.split(32), strict=True):
        outputs.append(network(part))
        (nll_loss(outputs[-1], of_part, reduction="sum") / len(labels)).backward()
    assert torch.allclose(torch.cat(outputs), scores, rtol=TOLERANCE, atol=TOLERANCE)
    error = worst(gradients(network), expected)
    record_property("figure", f"BatchNorm by constant statistics: relative error {error:.1e}")
    assert error > 0.1


def test_one_pass_does_not_give_the_statistics_of_a_second_layer(
    network: nn.Sequential, window: tuple[Tensor, Tensor]
) -> None:
    """In micro-batches the first norm already normalises otherwise than over the window."""
    images, _ = window
    network.train()
    whole, parts = statistics(network, (images,)), statistics(network, images.split(32))
    first, second = whole
    assert torch.allclose(whole[first][0], parts[first][0], rtol=TOLERANCE, atol=TOLERANCE)
    assert not torch.allclose(whole[second][0], parts[second][0], rtol=1e-3, atol=1e-3)
