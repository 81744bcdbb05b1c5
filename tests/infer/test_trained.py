"""Twenty small networks, trained twice from one start: values tell what names do not.

The second copy has meaningless names, and its outermost modules in another order. The oracle is
how its names were made.
"""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from ckpt.infer.find_rules import find_rules
from ckpt.infer.result import Confidence
from tests.effort import by_effort

State = dict[str, torch.Tensor]
STEPS = 60
LEAST_RIGHT = 0.99  # of the keys of all networks


class Towers(nn.Module):
    """Two of one shape, for the left and the right half of an image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.left, self.right = (
            nn.Sequential(nn.Linear(32, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
            for _ in range(2)
        )
        self.head = nn.Linear(2 * width, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        halves = images.reshape(-1, 8, 2, 4).transpose(1, 2).reshape(-1, 2, 32)
        return self.head(torch.cat([self.left(halves[:, 0]), self.right(halves[:, 1])], 1))


class Attention(nn.Module):
    """An encoder over the rows of an image."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        for parameter in self.encoder.parameters():  # else all layers are copies of one
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        self.head = nn.Linear(width, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(images.reshape(-1, 8, 8))).mean(1))


class Residual(nn.Module):
    """Blocks of one shape, with norms."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({
                "conv1": nn.Conv2d(width, width, 3, padding=1, bias=False),
                "bn1": nn.BatchNorm2d(width),
                "conv2": nn.Conv2d(width, width, 3, padding=1, bias=False),
                "bn2": nn.BatchNorm2d(width),
            })
            for _ in range(blocks)
        )  # fmt: skip
        self.head = nn.Linear(width, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stem(images.reshape(-1, 1, 8, 8))
        for block in self.blocks:
            assert isinstance(block, nn.ModuleDict)
            inner = functional.relu(block["bn1"](block["conv1"](x)))
            x = functional.relu(x + block["bn2"](block["conv2"](inner)))
        return self.head(x.mean((2, 3)))


def layers(width: int, depth: int) -> nn.Module:
    inner = [part for _ in range(depth) for part in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), *inner, nn.Linear(width, 10))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    **{f"towers of {width}": lambda width=width: Towers(width) for width in (16, 24, 32, 48, 64)},
    **{f"{n} equal layers": lambda n=n: layers(32, n) for n in (2, 3, 4, 6, 8)},
    **{f"{n} encoder layers": lambda n=n: Attention(32, n) for n in (1, 2, 3, 4, 6)},
    **{f"{n} residual blocks": lambda n=n: Residual(16, n) for n in (1, 2, 3, 4, 6)},
}


def trained(network: nn.Module, seed: int) -> State:
    """The weights after some steps on handwritten digits, from those that the network has."""
    from sklearn.datasets import load_digits  # takes a second

    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32) / 16 - 0.3
    y = torch.tensor(labels, dtype=torch.int64)
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    for _ in range(STEPS):
        batch = torch.randint(len(x), (64,), generator=draw)
        optimizer.zero_grad()
        functional.cross_entropy(network(x[batch]), y[batch]).backward()
        optimizer.step()
    return {key: value.clone() for key, value in network.state_dict().items()}


def hidden(state: State, seed: int) -> tuple[State, dict[str, str]]:
    """The state under meaningless names, its outermost modules shuffled; and each old name."""
    draw = random.Random(seed)
    words = dict[str, str]()
    names = dict[str, str]()
    for key in state:
        *module, last = key.split(".")
        for part in module:
            syllables = "".join(draw.choice(("ba", "ko", "zu", "mi", "re")) for _ in range(4))
            words.setdefault(part, part if part.isdecimal() else f"{syllables}{len(words)}x")
        names[key] = ".".join([*(words[part] for part in module), last])
    outer = [*dict.fromkeys(key.split(".")[0] for key in state)]
    order = draw.sample(outer, len(outer))
    keys = sorted(state, key=lambda key: order.index(key.split(".")[0]))
    return {names[key]: state[key] for key in keys}, {names[key]: key for key in keys}


@pytest.mark.parametrize("few", [by_effort(1, 20, 20)], ids=["networks"])
def test_values_tell_what_names_do_not(few: int, tmp_path: Path, record_property) -> None:
    right = wrong = asked = 0
    names = [*NETWORKS][:: len(NETWORKS) // few]
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        one, other = NETWORKS[name](), NETWORKS[name]()
        other.load_state_dict(one.state_dict())
        new, truth = hidden(trained(other, seed + 100), seed)
        torch.save(trained(one, seed), tmp_path / "old.pt")
        torch.save(new, tmp_path / "new.pt")
        found = find_rules(tmp_path / "old.pt", tmp_path / "new.pt").inference
        for match in found.matches:
            if truth[match.target] == match.source:
                right += 1
            elif match.confidence is Confidence.AMBIGUOUS:
                asked += 1
            else:
                wrong += 1
        asked += len(found.missing)
    share = right / (right + wrong + asked)
    record_property(
        "figure", f"{len(names)} trained networks: {share:.1%} of the keys right, {wrong} wrong"
    )
    assert wrong == 0
    assert share >= LEAST_RIGHT
