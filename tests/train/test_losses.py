"""Label smoothing beside torch's own."""

import pytest
import torch
from torch.nn.functional import cross_entropy, log_softmax

from ckpt.train.losses import loss_sum


@pytest.mark.parametrize("name", ["nll", "cross-entropy"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_label_smoothing_is_torchs(name: str, smoothing: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 7, (20,), generator=generator)
    labels[3] = -100  # ignored
    expected = cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
    (gradient,) = torch.autograd.grad(expected, logits)
    scores = log_softmax(logits, dim=1) if name == "nll" else logits
    found = loss_sum(name, scores, labels, smoothing=smoothing)
    assert found.item() == pytest.approx(expected.item(), rel=1e-14)
    (mine,) = torch.autograd.grad(found, logits)
    assert torch.allclose(mine, gradient, rtol=1e-12, atol=1e-15)
    assert not mine[3].any()
