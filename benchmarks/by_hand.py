"""A training loop that one would write by hand for speed: no DataLoader, no PIL, no `ckpt.train`.

All images are one tensor of bytes, normalised a batch at a time, channels last; autocast to
bfloat16 if asked for.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional


def steps_by_hand(
    model: nn.Module, images: Tensor, labels: Tensor, *, lower: bool
) -> Iterator[nn.Module]:
    """Epochs without end: the model after each step, and once before the first.

    Args:
        model: On the CPU.
        images: ``(n, 28, 28)`` uint8.
        labels: ``(n,)`` int64.
        lower: Whether to autocast.
    """
    model = model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload] # not in its stub
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    yield model
    while True:
        for chosen in torch.randperm(len(labels)).split(64):
            batch = ((images[chosen, None].float() / 255 - 0.1307) / 0.3081).contiguous(
                memory_format=torch.channels_last
            )
            optimizer.zero_grad()
            with autocast(lower):
                log_probs = model(batch)
            functional.nll_loss(log_probs.float(), labels[chosen]).backward()
            optimizer.step()
            yield model
        schedule.step()


def autocast(lower: bool) -> AbstractContextManager[object]:
    """To bfloat16, or nothing."""
    return torch.autocast("cpu", torch.bfloat16) if lower else nullcontext()
