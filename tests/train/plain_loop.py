"""A training loop as one would write it by hand: the oracle of the trainer. No code of ours.

Optimizers, schedules, clipping, loss scaling and averages are written out here by their formulas
(Loshchilov & Hutter 2019 for AdamW, Zeiler 2012 for Adadelta, Smith & Topin 2018 for one-cycle,
PyTorch's documentation for the details), not taken from `torch.optim`.
"""

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

Batch = tuple[Tensor, Tensor]
LOWER = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Loop:
    """Trains `model` on windows; a window is cut into micro-batches of at most `micro` samples."""

    model: nn.Module
    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    decay: float = 0.0
    schedule: str = "constant"
    gamma: float = 0.7
    clip: float = 0.0
    ema: float = 0.0
    loss: str = "nll"
    precision: str = "fp32"
    micro: int = 10**9
    epochs: int = 1
    states: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    scale: float = 65536.0
    steps: int = 0
    averages: dict[str, Tensor] | None = None
    norms: list[float] = field(default_factory=list)

    def run(self, epochs: list[list[Batch]]) -> None:
        total = sum(map(len, epochs))
        for number, windows in enumerate(epochs):
            for images, labels in windows:
                self.step(images, labels, self.rate(number, total))

    def rate(self, epoch: int, total: int) -> float:
        """The learning rate of the next step."""
        at = self.steps
        match self.schedule:
            case "step":
                return self.lr * self.gamma**epoch
            case "cosine":
                return self.lr * (1 + math.cos(math.pi * at / total)) / 2
            case "onecycle":
                top, end = total / 4 - 1, total - 1
                first, last = self.lr / 25, self.lr / 25 / 1e4
                if at <= top:
                    return _between(first, self.lr, at / top)
                return _between(self.lr, last, (at - top) / (end - top))
        return self.lr

    def step(self, images: Tensor, labels: Tensor, lr: float) -> None:
        lower = LOWER.get(self.precision)
        scale = self.scale if self.precision == "fp16" else 1.0
        for parameter in self.model.parameters():
            parameter.grad = None
        for some, of_some in zip(images.split(self.micro), labels.split(self.micro), strict=True):
            with torch.autocast("cpu", dtype=lower) if lower else nullcontext():
                scores = self.model(some)
            (_loss(self.loss, scores, of_some) / len(labels) * scale).backward()
        named = {
            name: it.grad / scale
            for name, it in self.model.named_parameters()
            if it.grad is not None
        }
        if self.precision == "fp16" and not all(it.isfinite().all() for it in named.values()):
            self.scale /= 2
            return
        norm = math.sqrt(sum(float((it.double() ** 2).sum()) for it in named.values()))
        self.norms.append(norm)
        if self.clip:
            named = {name: it * min(1, self.clip / (norm + 1e-6)) for name, it in named.items()}
        self.steps += 1
        with torch.no_grad():
            for place, (name, parameter) in enumerate(self.model.named_parameters()):
                if name in named:
                    self._update(place, parameter, named[name], lr)
        self._average()

    def _update(self, place: int, weight: Tensor, gradient: Tensor, lr: float) -> None:
        first = place not in self.states
        state = self.states.setdefault(place, {})
        zeros = torch.zeros_like(weight)
        if self.optimizer == "adamw":
            weight.mul_(1 - lr * self.decay)
        elif self.decay:
            gradient = gradient + self.decay * weight
        match self.optimizer:
            case "sgd":
                velocity = state["v"] * self.momentum + gradient if not first else gradient.clone()
                state["v"] = velocity
                weight -= lr * (gradient + self.momentum * velocity if self.momentum else gradient)
            case "adam" | "adamw":
                state["m"] = 0.9 * state.get("m", zeros) + 0.1 * gradient
                state["v"] = 0.999 * state.get("v", zeros) + 0.001 * gradient**2
                mean = state["m"] / (1 - 0.9**self.steps)
                square = state["v"] / (1 - 0.999**self.steps)
                weight -= lr * mean / (square.sqrt() + 1e-8)
            case "adadelta":
                state["v"] = 0.9 * state.get("v", zeros) + 0.1 * gradient**2
                moved = state.get("d", zeros)
                change = (moved + 1e-6).sqrt() / (state["v"] + 1e-6).sqrt() * gradient
                state["d"] = 0.9 * moved + 0.1 * change**2
                weight -= lr * change

    def _average(self) -> None:
        if not self.ema:
            return
        now = {name: it.detach().clone() for name, it in self.model.state_dict().items()}
        if self.averages is None:
            self.averages = now
            return
        for name, it in now.items():
            if it.is_floating_point():
                it = self.ema * self.averages[name] + (1 - self.ema) * it
            self.averages[name] = it

    @property
    def result(self) -> dict[str, Tensor]:
        return copy.copy(self.averages) if self.averages else dict(self.model.state_dict())


def _between(start: float, end: float, at: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * at))


def _nll(scores: Tensor, labels: Tensor) -> Tensor:
    return -scores[torch.arange(len(labels)), labels].sum()


def _targets(scores: Tensor, labels: Tensor) -> Tensor:
    return (torch.arange(scores.shape[1])[None] == labels[:, None]).to(scores.dtype)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "nll": _nll,
    "cross-entropy": lambda scores, labels: _nll(scores.log_softmax(1), labels),
    "bce": lambda scores, labels: (
        functional.softplus(scores) - scores * _targets(scores, labels)
    ).sum(),
    "mse": lambda scores, labels: ((scores - _targets(scores, labels)) ** 2).sum(),
}


def _loss(name: str, scores: Tensor, labels: Tensor) -> Tensor:
    """The sum over the samples, in float32 at the least."""
    wide = scores.float() if scores.dtype in LOWER.values() else scores
    return LOSSES[name](wide, labels)
