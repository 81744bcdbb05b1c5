"""`ckpt diff`: what a person sees first, and what they ask for next."""

from pathlib import Path

import pytest
import torch

from ckpt.ops.register import register
from ckpt.ops.registry import Registry
from tests.cli.support import Run, weights


@pytest.fixture
def trained(ckpt: Run, folder: Path) -> Run:
    """`net` v1 and v2, trained differently, and v3 that renames v2."""
    for seed, (epochs, accuracy) in enumerate([(14, 0.99), (5, 0.97)]):
        torch.save(weights(seed), folder / "net.pt")
        recipe = {"epochs": epochs, "lr": 1.0, "dataset": "mnist"}
        record = {
            "training": {"recipe": recipe, "environment": {"torch": "2.13.0"}},
            "curves": {"loss": [1.0] * epochs, "accuracy": [0.5] * epochs},
        }
        register(
            folder / "net.pt",
            registry=Registry(folder),
            metrics={"accuracy": accuracy},
            record=record,
        )
    assert ckpt("rename", "net:v2", "--rule", "conv=embed").code == 0
    return ckpt


def test_records_stand_side_by_side_where_they_differ(trained: Run) -> None:
    assert "  record    2 fields not alike; --records\n" in trained("diff", "v1", "v2").out
    ran = trained("diff", "v1", "v2", "--records")
    assert ran.out.endswith(
        "\n"
        "  record                  net:v1    net:v2\n"
        "  ----------------------  --------  --------\n"
        "  metrics.accuracy        99.00%    97.00%\n"
        "  training.recipe.epochs  14        5\n"
    )
    assert trained("diff", "v1", "v2", "--json").data["records"] == [
        {"name": "metrics.accuracy", "before": 0.99, "after": 0.97},
        {"name": "training.recipe.epochs", "before": 14, "after": 5},
    ]


def test_rename_has_the_training_of_its_parent(trained: Run) -> None:
    assert "record" not in trained("diff", "v2", "v3").out
    assert len(trained("diff", "v1", "v3", "--json").data["records"]) == 2


def test_what_files_hold_besides_tensors_is_compared(ckpt: Run, folder: Path) -> None:
    for epoch in (3, 4):
        checkpoint = {"model": weights(), "epoch": epoch, "note": "\x1b[31m" * (epoch - 3)}
        torch.save(checkpoint, folder / f"{epoch}.pt")
    ran = ckpt("diff", "3.pt::model", "4.pt::model", "--records")
    assert "  epoch     3              4\n" in ran.out
    assert r"\x1b[31m" in ran.out
    assert ckpt("diff", "3.pt::model", "4.pt::model", "--exit-code").code == 0, "tensors only"


def test_module_that_moved_is_one_line(ckpt: Run, folder: Path) -> None:
    torch.save(weights(), folder / "a.pt")
    torch.save({f"backbone.{key}": each for key, each in weights().items()}, folder / "b.pt")
    assert ckpt("diff", "a.pt", "b.pt").out == (
        "a.pt -> b.pt\n  moved     *  ->  backbone.*   8 keys, same bytes\n"
    )
    assert ckpt("diff", "b.pt", "a.pt", "--json").data["moved"] == [
        {"old": "backbone", "new": "", "count": 8}
    ]


def test_order_and_ties_are_told_and_are_no_difference(ckpt: Run, folder: Path) -> None:
    state = {"embed.weight": torch.ones(300, 8), "head.weight": torch.ones(300, 8)}
    torch.save(state, folder / "a.pt")
    tied = {"head.weight": state["embed.weight"], "embed.weight": state["embed.weight"]}
    torch.save(tied, folder / "b.pt")
    ran = ckpt("diff", "a.pt", "b.pt", "--exit-code")
    assert ran.code == 0
    assert ran.out == (
        "a.pt -> b.pt\n"
        "  tied      embed.weight  =  head.weight   one tensor for both\n"
        "  reordered embed.weight\n"
        "  same      2 keys\n"
        "  no difference\n"
    )
    assert "  untied    embed.weight  =  head.weight" in ckpt("diff", "b.pt", "a.pt").out


def test_swapped_tensors_are_told_as_such(ckpt: Run, folder: Path) -> None:
    q, k, v = (torch.full((64, 64), value) for value in (1.0, 2.0, 3.0))
    torch.save({"q": q, "k": k, "v": v, "o": q}, folder / "a.pt")
    torch.save({"q": k, "k": q, "v": v + 1, "o": q}, folder / "b.pt")
    ran = ckpt("diff", "a.pt", "b.pt")
    assert "  swapped   q  <->  k   each has the bytes of the other\n" in ran.out
    assert "  changed   v   other values\n" in ran.out
    data = ckpt("diff", "a.pt", "b.pt", "--values", "--json").data
    assert (data["swapped"], data["changed"]) == ([["q", "k"]], ["q", "k", "v"])
    for name in ("a.pt", "b.pt"):
        assert ckpt("register", name, "--name", "net").code == 0
    assert ckpt("diff", "v1", "v2", "--json").data["swapped"] == [["q", "k"]]


def test_two_definitions_and_their_arguments(ckpt: Run, folder: Path) -> None:
    text = "import torch.nn as nn\nclass Net(nn.Module):\n    def __init__(self, width):\n"
    for name in ("fc", "lin"):
        body = f"        super().__init__()\n        self.{name} = nn.Linear(4, width)\n"
        (folder / f"{name}.py").write_text(text + body)
    ran = ckpt("diff", "fc.py:Net", "lin.py:Net", "--arg", "width=8")
    assert ran.code == 0
    assert ran.out.startswith("fc.py:Net --arg width=8 does not fit lin.py:Net --arg width=8\n")
    assert "fc.weight" in ran.out
