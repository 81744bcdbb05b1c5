"""`mnist_cnn.Net` after a refactoring: ``embed1`` and ``embed2`` are its convolutions.

The same function of the same tensors, under other keys.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Net(nn.Module):
    """Two convolutions, two dense layers.

    Keys: ``embed1``, ``embed2``, ``fc1`` and ``fc2``, each with ``weight`` and ``bias``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embed1 = nn.Conv2d(1, 32, kernel_size=3)
        self.embed2 = nn.Conv2d(32, 64, kernel_size=3)
        self.pool = nn.MaxPool2d(2)
        self.dropout1 = nn.Dropout(0.25)
        self.dropout2 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(9216, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Log-probabilities ``(batch, 10)`` of normalised images ``(batch, 1, 28, 28)``."""
        x = functional.relu(self.embed1(images))  # (batch, 32, 26, 26)
        x = functional.relu(self.embed2(x))  # (batch, 64, 24, 24)
        x = self.pool(x)  # (batch, 64, 12, 12)
        x = torch.flatten(self.dropout1(x), 1)  # (batch, 9216)
        x = functional.relu(self.fc1(x))  # (batch, 64)
        x = self.fc2(self.dropout2(x))  # (batch, 10)
        # On the CPU autocast leaves log_softmax in bfloat16, which has 8 bits of mantissa.
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return functional.log_softmax(x, dim=1)
