"""Two forms of a class, as files that tests write, and the migration between them."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import ckpt

OLD = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=6, depth=2):
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(depth))
        self.fc = nn.Linear(width, 10)
        self.register_buffer("scale", torch.ones(1), persistent=False)

    def forward(self, images):
        hidden = self.norm(self.conv1(images)).mean((2, 3)) * self.scale
        for block in self.blocks:
            q, k, v = block(hidden).chunk(3, -1)
            hidden = hidden + q * k.sigmoid() + v
        return self.fc(hidden)
"""
NEW = """
import ckpt
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))

    def forward(self, hidden):
        return hidden + self.q(hidden) * self.k(hidden).sigmoid() + self.v(hidden)


@ckpt.migrating
class Net(nn.Module):
    def __init__(self, width=6, depth=2):
        super().__init__()
        self.embed = nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width))
        self.layers = nn.ModuleList(Block(width) for _ in range(depth))
        self.fc = nn.Linear(width, 10)
        self.register_buffer("scale", torch.ones(1), persistent=False)

    def forward(self, images):
        hidden = self.embed(images).mean((2, 3)) * self.scale
        for layer in self.layers:
            hidden = layer(hidden)
        return self.fc(hidden)
"""
RULES = [
    {"rename": r"^conv1\.->embed.0."},
    {"rename": r"^norm\.->embed.1."},
    {"split": r"^blocks\.(\d+)\.", "into": [rf"layers.\1.{name}." for name in "qkv"]},
]


def class_in(file: Path, text: str, name: str = "Net") -> Any:
    """The class of a file with this text, imported under a name of its own."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    spec = spec_from_file_location(f"made_{abs(hash(str(file)))}", file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    import sys

    sys.modules[module.__name__] = module  # pickle looks the class up there
    spec.loader.exec_module(module)
    return getattr(module, name)


def both_forms(folder: Path) -> tuple[Any, Any]:
    """The old class and the new one, beside which the migration is."""
    from ckpt.rules.document import read_rules

    old = class_in(folder / "old" / "net.py", OLD)
    new = class_in(folder / "net.py", NEW)
    rules = read_rules(RULES, name="the rules")
    ckpt.new_migration(
        f"{folder / 'net.py'}:Net", f"{folder / 'old' / 'net.py'}:Net", rules, message="new blocks"
    )
    return old, new
