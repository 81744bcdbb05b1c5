from pathlib import Path

import pytest

from tests.cli.conftest import folder, git  # noqa: F401 - fixtures

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, depth=2):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(depth))
"""


@pytest.fixture
def net(folder: Path) -> Path:  # noqa: F811
    """`net.py`, with a class `Net`."""
    path = folder / "net.py"
    path.write_text(NET)
    return path
