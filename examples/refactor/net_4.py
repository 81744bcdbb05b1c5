"""The fourth form: the blocks are an encoder of their own, and the head is transposed."""

import torch
from torch import Tensor, nn

import ckpt


class Block(nn.Module):
    """Attention over the rows of an image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows in, rows out: ``(batch, 28, width)``."""
        rows_in = self.norm(rows)  # (batch, 28, width)
        q, k, v = self.q(rows_in), self.k(rows_in), self.v(rows_in)
        mixed: Tensor = self.out(nn.functional.scaled_dot_product_attention(q, k, v))
        return rows + mixed


class Encoder(nn.Module):
    """The blocks, one after the other."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(width) for _ in range(depth))

    def forward(self, rows: Tensor) -> Tensor:
        """Rows in, rows out: ``(batch, 28, width)``."""
        for layer in self.layers:
            rows = layer(rows)
        return rows


class Head(nn.Module):
    """A linear layer whose weight is stored as (inputs, outputs)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(width, 10) / width**0.5)
        self.bias = nn.Parameter(torch.zeros(10))

    def forward(self, rows: Tensor) -> Tensor:
        """A score for each class: ``(batch, 10)``."""
        return rows @ self.kernel + self.bias


@ckpt.migrating
class Net(nn.Module):
    """Reads an image of digits row by row."""

    def __init__(self, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(28, width)
        self.encoder = Encoder(width, depth)
        self.head = Head(width)

    def forward(self, images: Tensor) -> Tensor:
        """Log-probabilities, ``(batch, 10)``, of images ``(batch, 1, 28, 28)``."""
        rows = self.encoder(self.embed(images.squeeze(1)))  # (batch, 28, width)
        return torch.log_softmax(self.head(rows.mean(1)), -1)
