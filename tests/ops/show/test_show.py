"""What `show` says of a checkpoint in all: totals, ties, who wrote it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ckpt.ops.register import register
from ckpt.ops.show import show


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved(state: dict[str, torch.Tensor]) -> str:
    torch.save(state, "x.pt")
    return "x.pt"


def test_tied_tensors_count_once(folder: Path) -> None:
    embedding = torch.randn(5, 4)
    state = {
        "wte": embedding,
        "bias": torch.zeros(5, dtype=torch.float64),
        "lm_head": embedding,
        "again": embedding,
        "flat": embedding.view(20),
    }
    shown = show(saved(state))
    assert shown.ties == {"lm_head": "wte", "again": "wte", "flat": "wte"}
    assert shown.totals() == ({"float32": 20, "float64": 5}, 20 * 4 + 5 * 8)


def test_version_has_the_ties_of_its_file(folder: Path) -> None:
    weight = torch.randn(5, 4)
    same_bytes = {"b": torch.zeros(3), "c": torch.zeros(3)}
    shown = show(saved({"wte": weight, **same_bytes, "lm_head": weight}))
    register("x.pt", name="m")
    version = show("m:v1")
    assert version.ties == shown.ties == {"lm_head": "wte"}
    assert version.totals() == shown.totals()


def test_what_only_resembles_a_tie_is_none(folder: Path) -> None:
    base = torch.randn(4, 4)
    state = {
        "first": base[0],
        "second": base[1],
        "column": base[:, 0],
        "turned": base.t(),
        "whole": base,
        "empty": torch.zeros(0),
        "also empty": torch.zeros(0),
        "equal": base.clone(),
    }
    assert show(saved(state)).ties == {}


@pytest.mark.parametrize(
    ("metadata", "writer"),
    [
        ({"format": "pt"}, "a PyTorch writer"),
        ({"format": "mlx", "more": "x"}, "an MLX writer"),
        ({"format": "\x1b[2J"}, None),
        ({"made": "pt"}, None),
        (None, None),
    ],
)
def test_writer_of_safetensors_is_what_its_metadata_says(
    folder: Path, metadata: dict[str, str] | None, writer: str | None
) -> None:
    save_file({"a": torch.zeros(2)}, "x.safetensors", metadata)
    assert show("x.safetensors").written_by == writer


def test_definition_has_totals_and_no_container(folder: Path) -> None:
    Path("model.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Linear):\n"
        "    def __init__(self):\n"
        "        super().__init__(3, 2, dtype=torch.bfloat16)\n"
    )
    shown = show("model.py:Net")
    assert (shown.format, shown.size, shown.written_by, shown.ties) == (None, None, None, {})
    assert shown.totals() == ({"bfloat16": 8}, 16)
