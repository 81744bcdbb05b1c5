"""Gradient checkpointing: the gradients of a plain forward pass, bit by bit, in less memory."""

import copy
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import nll_loss
from torch.utils.checkpoint import checkpoint

from ckpt.definitions import find_definition
from ckpt.errors import FitError
from ckpt.train.loop import Trainer, evaluate
from ckpt.train.memory.recomputing import blocks_of
from ckpt.train.memory.size import MicroBatchSize
from ckpt.train.random_numbers import generators, seed_all
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.run import train
from ckpt.train.tips.kept import Graphs
from tests.train.epochs import train_epoch, window_of

CPU = torch.device("cpu")


class Block(nn.Module):
    """All that a second forward pass could change: masks, statistics, other generators."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(width, width), nn.Dropout(0.3),
        )  # fmt: skip

    def forward(self, hidden: Tensor, *, scale: float = 1.0) -> Tensor:
        noise = 1.0
        if self.training:
            noise += 0.1 * (random.random() + np.random.standard_normal())
        return hidden + self.layers(hidden) * (noise * scale)


class Net(nn.Module):
    def __init__(self, depth: int = 3, width: int = 16) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(784, width), nn.Linear(width, 10)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.stem(images.flatten(1))
        for block in self.blocks:
            hidden = block(hidden, scale=0.5)
        return self.head(hidden).log_softmax(1)


class Penalised(Net):
    """A gradient is part of the forward pass: the blocks are run again more than once."""

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.stem(images.flatten(1))
        out = self.blocks[0](hidden)
        (slope,) = torch.autograd.grad(out.square().sum(), hidden, create_graph=True)
        return self.head(out + slope).log_softmax(1)


class Plain(nn.Sequential):
    def __init__(self, width: int) -> None:
        inner = nn.Sequential(nn.Linear(width, width), nn.Dropout(0.5), nn.Tanh())
        super().__init__(inner, nn.Dropout(0.3))


class Own(Net):
    """Has torch's checkpointing around the blocks, which are such that it is sound."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Plain(16) for _ in range(3))

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.stem(images.flatten(1))
        for block in self.blocks:
            hidden = checkpoint(block, hidden, use_reentrant=False)
        return self.head(hidden).log_softmax(1)


class Counts(Block):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, hidden: Tensor) -> Tensor:
        self.count += 1
        return super().forward(hidden)


def samples(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    images = torch.randn(count, 1, 28, 28, generator=generator)
    return images, torch.randint(0, 10, (count,), generator=generator)


def built(make: Callable[[], nn.Module], dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return make().to(dtype)


def trainer_of(model: nn.Module, precision: str = "fp32", **settings: object) -> Trainer:
    recipe = Recipe(gradient_checkpointing=True, **settings)  # type: ignore[arg-type]
    return Trainer(model.train(), precision, recipe)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("make", [Net, Penalised], ids=lambda make: make.__name__)
def test_gradients_are_those_by_hand(make: type[Net], dtype: torch.dtype) -> None:
    images, labels = samples(24)
    model = built(make, dtype).train()
    trainer = trainer_of(copy.deepcopy(model))
    seed_all(1)
    # 0.5 is k/256: the trainer's dropout draws other masks, so both have its modules.
    plain = Trainer(model, "fp32", Recipe()).model
    (nll_loss(plain(images.to(dtype)), labels, reduction="sum") / 24).backward()
    after = generators(CPU)
    seed_all(1)
    trainer.accumulate([(images.to(dtype), labels)], 24)
    expected = {name: it.grad for name, it in plain.named_parameters() if it.grad is not None}
    found = {n: it.grad for n, it in trainer.model.named_parameters() if it.grad is not None}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    buffers = zip(plain.buffers(), trainer.model.buffers(), strict=True)
    assert all(torch.equal(first, second) for first, second in buffers)
    assert torch.equal(after.pop("cpu"), (now := generators(CPU)).pop("cpu"))
    assert after == now


def test_torchs_own_checkpoint_would_count_a_batch_twice() -> None:
    """Why the running statistics need care; the comparison above can fail."""
    block = built(lambda: Block(16)).train()
    checkpoint(block, samples(8)[0].flatten(1)[:, :16], use_reentrant=False).sum().backward()
    assert block.layers[1].num_batches_tracked == 2


@pytest.mark.parametrize("make", [Net, Own], ids=lambda make: make.__name__)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_run_ends_with_the_same_bytes(make: type[Net], precision: str) -> None:
    """Micro-batches, clipping, an average; the latter is scored with its own weights."""
    states, scores = [], []
    for checkpoints in (False, True):
        recipe = Recipe(
            gradient_checkpointing=checkpoints, clip=0.5, ema=0.5, batch_norm="micro-batch"
        )
        trainer = Trainer(built(make), precision, recipe, size=MicroBatchSize(10))
        seed_all(1)
        train_epoch(trainer, [window_of(*samples(count)) for count in (24, 25, 13)])
        states.append([*trainer.model.state_dict().items(), *trainer.result.state_dict().items()])
        scores.append(evaluate(trainer.result, [samples(30)]))
        fresh = built(make)
        fresh.load_state_dict(trainer.result.state_dict())
        assert evaluate(fresh, [samples(30)]) == scores[-1]
    assert [key for key, _ in states[0]] == [key for key, _ in states[1]]
    pairs = zip(states[0], states[1], strict=True)
    assert all(torch.equal(first, second) for (_, first), (_, second) in pairs)
    assert scores[0] == scores[1]


def test_graphs_hold_less() -> None:
    most = []
    for checkpoints in (False, True):
        recipe = Recipe(gradient_checkpointing=checkpoints)
        trainer = Trainer(built(lambda: Net(depth=8, width=64)).train(), "fp32", recipe)
        graphs = Graphs(trainer.model)
        with graphs.watched():
            trainer.accumulate([samples(64)], 64)
        most.append(graphs.most)
    assert most[1] < 0.6 * most[0]


NAMES = {
    "torchvision.models:resnet18": [f"layer{at}.{of}" for at in range(1, 5) for of in range(2)],
    "torchvision.models:vit_b_16": [f"encoder.layers.encoder_layer_{at}" for at in range(12)],
    "torchvision.models:mobilenet_v2": [f"features.{at}" for at in range(19)],
    "torchvision.models:efficientnet_b0": None,
    "torchvision.models:convnext_tiny": None,
}


@pytest.mark.parametrize("ref", NAMES)
def test_blocks_of_real_models_are_found(ref: str) -> None:
    with torch.device("meta"):
        model = find_definition(ref).build()
    found = dict(blocks_of(model))
    kinds = {type(block).__name__ for block in found.values()}
    if NAMES[ref] is not None:
        assert list(found) == NAMES[ref]
    assert not kinds & {"Sequential", "ModuleList"}
    assert kinds & {"BasicBlock", "EncoderBlock", "InvertedResidual", "MBConv", "CNBlock"}


def test_real_model_has_the_same_gradient() -> None:
    images, labels = samples(4)
    images = images.expand(-1, 3, -1, -1).contiguous()
    gradients = []
    for checkpoints in (False, True):
        model = built(find_definition("torchvision.models:resnet18").build)
        recipe = Recipe(gradient_checkpointing=checkpoints, loss="cross-entropy")
        Trainer(model.train(), "fp32", recipe).accumulate([(images, labels)], 4)
        gradients.append([it.grad for it in model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_model_without_blocks_is_refused() -> None:
    with pytest.raises(FitError, match="has no blocks for --gradient-checkpointing"):
        trainer_of(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))


def test_block_that_changes_its_buffers_is_refused() -> None:
    model = Net()
    model.blocks[1] = Counts(16)
    model.forward = lambda images: model.blocks[1](model.stem(images.flatten(1)))  # type: ignore
    trainer = trainer_of(model)
    with pytest.raises(FitError, match=r"blocks\.1: changes its buffers"):
        trainer.accumulate([samples(8)], 8)


DEFINITION = """
from torch import nn
def net():
    blocks = [nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(32), nn.Dropout(0.5)) for _ in "ab"]
    wrapped = [Block(each) for each in blocks]
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 32), *wrapped, nn.Linear(32, 10))
class Block(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
    def forward(self, x):
        return x + self.inner(x)
"""


def test_weights_of_a_run_are_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(DEFINITION)
    files = []
    for checkpoints in (False, True):
        recipe = Recipe(
            model=f"{tmp_path}/net.py:net", dataset="digits", epochs=1, precision="fp32",
            device="cpu", gradient_checkpointing=checkpoints,
        )  # fmt: skip
        train(recipe, tmp_path / f"{checkpoints}.pt")
        files.append((tmp_path / f"{checkpoints}.pt").read_bytes())
    assert files[0] == files[1]
