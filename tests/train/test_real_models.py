"""Twelve networks that people train, from their definition to a loaded version."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import ckpt
from ckpt.definitions import find_definition
from tests.effort import long_but

SIZE, CLASSES, IMAGES = 64, 3, 16  # of a square's side; images a class, of which 12 are trained on
OURS = """
import torch
from torch import nn

class MLP(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Flatten(), nn.Linear(4096, 32), nn.BatchNorm1d(32), nn.GELU()
        )
        self.head = nn.Linear(32, num_classes)
    def forward(self, x):
        return self.head(self.hidden(x))

class RNN(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.rows = nn.GRU(64, 16, batch_first=True, bidirectional=True)
        self.head = nn.Linear(32, num_classes)
    def forward(self, x):
        return self.head(self.rows(x.squeeze(1))[0].mean(1))

class ViT(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.patches = nn.Conv2d(1, 24, 16, 16)
        self.places = nn.Parameter(torch.zeros(1, 16, 24))
        layer = nn.TransformerEncoderLayer(24, 2, 48, 0.1, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(24, num_classes)
    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.layers(tokens).mean(1))
"""
MODELS = [
    *(
        f"torchvision.models:{name}(num_classes={CLASSES})"
        for name in (
            "resnet18", "mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5",
            "efficientnet_b0", "mnasnet0_5",
        )
    ),
    *(
        f"timm:create_model(model_name={name!r}, num_classes={CLASSES}, in_chans=1{more})"
        for name, more in (
            ("resnet10t", ""),
            ("test_convnext", ""),
            ("vit_tiny_patch16_224", f", img_size={SIZE}, depth=2"),
        )
    ),
    *(f"net.py:{name}(num_classes={CLASSES})" for name in ("MLP", "RNN", "ViT")),
]  # fmt: skip


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a registry to be, definitions, and grey images in three brightnesses."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(OURS)
    noise = np.random.default_rng(0)
    data = {}
    for split, count in (("train", 12), ("test", 4)):
        labels = np.repeat(np.arange(CLASSES), count)
        pixels = noise.integers(0, 80, (len(labels), SIZE, SIZE)) + 80 * labels[:, None, None]
        data |= {f"x_{split}": pixels.astype(np.uint8), f"y_{split}": labels}
    np.savez("squares.npz", **data)
    return tmp_path


@pytest.mark.parametrize(
    "model", long_but(MODELS[-3:], MODELS), ids=lambda it: re.sub(r"\W+", "-", it)
)
def test_network_trains_is_registered_renamed_and_loaded(images: Path, model: str) -> None:
    """Two steps of an epoch; torch's own loader then reads each version into the class."""
    if model.startswith("timm"):
        pytest.importorskip("timm", reason="timm is not installed")
    done = ckpt.train(
        register_result=True, name="net", model=model, dataset="squares.npz", epochs=1,
        batch_size=9, accumulate=2, optimizer="sgd", lr=0.01, precision="fp32", clip=1.0, ema=0.5,
    )  # fmt: skip
    assert done is not None
    assert done.trained.curves[0].skipped_steps == 0
    module = find_definition(model).build()
    state = ckpt.load("net:v1")
    module.load_state_dict(state, strict=True)
    assert all(tensor.isfinite().all() for tensor in state.values())
    fresh = find_definition(model).build()
    moved = [key for key, tensor in fresh.named_parameters() if not torch.equal(tensor, state[key])]
    assert moved, "nothing was trained"

    first = next(iter(state)).split(".")[0]
    renamed = ckpt.rename("net:v1", [f"^{first}(?=[.]|$)->renamed_first"])
    assert renamed.added is not None
    after = ckpt.load("net:v2")
    assert len(after) == len(state)
    back = type(state)((re.sub("^renamed_first", first, key), it) for key, it in after.items())
    back._metadata = state._metadata  # mnasnet demands the version in it
    again = find_definition(model).build()
    again.load_state_dict(back, strict=True)
    image = torch.rand(2, 3 if "torchvision" in model else 1, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(again.eval()(image), module.eval()(image))
