"""The network of PyTorch's basic MNIST example, with a narrower first dense layer.

Source of the shape: github.com/pytorch/examples, mnist/main.py, with 64 in place of 128
hidden units; 609,354 parameters.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Net(nn.Module):
    """Two convolutions, two dense layers.

    Keys: ``conv1``, ``conv2``, ``fc1`` and ``fc2``, each with ``weight`` and ``bias``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3)
        self.pool = nn.MaxPool2d(2)
        self.dropout1 = nn.Dropout(0.25)
        self.dropout2 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(9216, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Log-probabilities ``(batch, 10)`` of normalised images ``(batch, 1, 28, 28)``."""
        x = functional.relu(self.conv1(images))  # (batch, 32, 26, 26)
        x = functional.relu(self.conv2(x))  # (batch, 64, 24, 24)
        x = self.pool(x)  # (batch, 64, 12, 12)
        x = torch.flatten(self.dropout1(x), 1)  # (batch, 9216)
        x = functional.relu(self.fc1(x))  # (batch, 64)
        x = self.fc2(self.dropout2(x))  # (batch, 10)
        # On the CPU autocast leaves log_softmax in bfloat16, which has 8 bits of mantissa.
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return functional.log_softmax(x, dim=1)
