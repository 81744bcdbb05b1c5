"""Small networks of every kind that the trainer must be right for: images ``(b, 1, 8, 8)``."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CLASSES = 5


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, CLASSES), nn.LogSoftmax(1)
    )


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, CLASSES),
        nn.LogSoftmax(1),
    )  # fmt: skip


def normed() -> nn.Module:
    """No bias before a norm: its gradient is nothing but rounding."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(144, 8, bias=False), nn.BatchNorm1d(8), nn.Linear(8, CLASSES), nn.LogSoftmax(1),
    )  # fmt: skip


def dropped() -> nn.Module:
    """At 0.3 the masks are torch's own, see `ckpt.train.kernels`."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 12), nn.Dropout(0.3), nn.ReLU(), nn.Dropout(0.7),
        nn.Linear(12, CLASSES), nn.LogSoftmax(1),
    )  # fmt: skip


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 12), nn.Linear(12, CLASSES)
        self.block = nn.Sequential(nn.Linear(12, 12), nn.Tanh(), nn.Dropout(0.3), nn.Linear(12, 12))
        self.reentrant = reentrant

    def forward(self, images: Tensor) -> Tensor:
        hidden = checkpoint(self.block, self.first(images.flatten(1)), use_reentrant=self.reentrant)
        return self.last(hidden).log_softmax(1)


class Tied(nn.Module):
    """A code and its decoder share one matrix, under two names; one more module is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(64, 12, bias=False), nn.Linear(12, 12)
        self.twice, self.head = nn.Linear(12, 12), nn.Linear(12, CLASSES, bias=False)
        self.decoder.weight = self.twice.weight

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.twice(self.twice(self.encoder(images.flatten(1))).tanh()).tanh()
        return self.head(self.decoder(hidden)).log_softmax(1)


class Attention(nn.Module):
    """Rows of an image are tokens: a small vision transformer.

    Without biases: the gradient of a key's is nothing but rounding.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(8, 8), nn.Linear(8, CLASSES)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        rows = self.embed(images.squeeze(1))
        hidden = self.layer(torch.cat((self.token.expand(len(rows), 1, 8), rows), 1))
        return self.head(hidden[:, 0]).log_softmax(1)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows, self.head = nn.LSTM(8, 6, num_layers=2, batch_first=True), nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.rows(images.squeeze(1))[0][:, -1]).log_softmax(1)


class Whole(nn.Module):
    """Pixels become whole numbers, and these the rows of an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(16, 6, mode="sum"), nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        levels = ((images.tanh() + 1) * 7.99).long().flatten(1)
        return self.head(self.bag(levels)).log_softmax(1)


class Unused(nn.Module):
    """Has a parameter without a gradient, and one that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.unused = mlp(), nn.Parameter(torch.ones(3))
        self.inner[1].bias.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images)


def logits() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, CLASSES))


# Those whose output for an image depends on nothing but it: a window is like one batch.
ALIKE: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "convolutions": convolutions,
    "tied": Tied,
    "attention": Attention,
    "recurrent": Recurrent,
    "whole numbers": Whole,
    "unused": Unused,
}
# Others: BatchNorm looks at its micro-batch, dropout draws in the order of the micro-batches.
APART: dict[str, Callable[[], nn.Module]] = {
    "BatchNorm": normed,
    "dropout": dropped,
    "checkpointing": lambda: Checkpointed(False),
    "checkpointing, reentrant": lambda: Checkpointed(True),
}
