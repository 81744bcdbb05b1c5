"""The code in docs/loops.md runs as it is written, with the objects that it names."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

DOCUMENT = Path(__file__).parents[3] / "docs" / "loops.md"
FOUND = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text("utf-8"), re.M | re.S)
BLOCKS = [block for block in FOUND if "window" in block]


class LanguageModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7))

    def forward(self, input_ids: Tensor, labels: Tensor) -> SimpleNamespace:
        logits = self.layers(input_ids)[:, :-1]
        return SimpleNamespace(loss=cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten()))


@pytest.fixture
def names() -> dict[str, Any]:
    """What the text leaves to the reader."""
    torch.manual_seed(0)
    model, language_model = nn.Linear(4, 3), LanguageModel()
    ids = torch.randint(0, 7, (2, 5))
    return {
        "cross_entropy": cross_entropy,
        "loader": [(torch.randn(8, 4), torch.randint(0, 3, (8,))) for _ in range(6)],
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "batches": [{"input_ids": ids, "labels": ids}] * 9,
        "language_model": language_model,
        "adamw": torch.optim.AdamW(language_model.parameters(), lr=0.1),
    }


def test_loops_run_as_documented(names: dict[str, Any]) -> None:
    windows = []
    for block in BLOCKS:
        exec(compile(block, str(DOCUMENT), "exec"), names)
        windows.append(names["window"])
    assert [(window.samples, window.stepped) for window in windows] == [(16, True), (8, True)]
