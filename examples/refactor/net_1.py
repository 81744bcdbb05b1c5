"""The first form of the class: a stem, attention blocks with a fused projection, a head."""

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Attention over the rows of an image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows in, rows out: ``(batch, 28, width)``."""
        q, k, v = self.qkv(self.norm(rows)).chunk(3, -1)  # (batch, 28, width) each
        mixed: Tensor = self.out(nn.functional.scaled_dot_product_attention(q, k, v))
        return rows + mixed


class Net(nn.Module):
    """Reads an image of digits row by row."""

    def __init__(self, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.fc_in = nn.Linear(28, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.fc_out = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Log-probabilities, ``(batch, 10)``, of images ``(batch, 1, 28, 28)``."""
        rows = self.fc_in(images.squeeze(1))  # (batch, 28, width)
        for block in self.blocks:
            rows = block(rows)
        return torch.log_softmax(self.fc_out(rows.mean(1)), -1)
