"""`ckpt diff`: what a person sees first, and what they ask for next."""

from pathlib import Path

import pytest
import torch

from ckpt.ops.register import register
from ckpt.registry.registry import Registry
from tests.cli.support import Run, on_a_terminal, weights


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
    assert "  record    2 fields differ; --records\n" in trained("diff", "v1", "v2").out
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
        "  tied      embed.weight  =  head.weight   share one tensor\n"
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
    assert "  swapped   q  <->  k   exchanged their bytes\n" in ran.out
    assert "  changed   v   values differ\n" in ran.out
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


@pytest.fixture
def two_files(ckpt: Run, folder: Path) -> Run:
    """Much that differs between a.pt and b.pt."""

    def layers(value: float, stem: str, count: int) -> dict[str, torch.Tensor]:
        return {
            f"{stem}.{at}.{leaf}": torch.full(shape, float(value + at))
            for at in range(count)
            for leaf, shape in (("attn.q", (8, 8)), ("attn.k", (8, 8)), ("norm", (8,)))
        }  # fmt: skip

    old = {
        **layers(1, "encoder.layer", 3),
        "head.weight": torch.ones(10, 8),
        "scale": torch.ones(1),
    }
    new = {
        **layers(1, "blocks", 3),
        "head.weight": torch.ones(12, 8),
        "scale": torch.ones(1).half(),
    }
    new["blocks.1.attn.q"] = new["blocks.1.attn.q"] + 0.5
    new["extra.bias"] = torch.ones(3)
    torch.save(old, folder / "a.pt")
    torch.save(new, folder / "b.pt")
    return ckpt


def test_what_people_see(two_files: Run) -> None:
    assert two_files("diff", "a.pt", "b.pt").out == (
        "a.pt -> b.pt\n"
        "  added     extra.bias   3  float32\n"
        "  moved     encoder.layer.{0,2}.*  ->  blocks.{0,2}.*   2 modules, same bytes\n"
        "  renamed   encoder.layer.1.attn.k  ->  blocks.1.attn.k   same bytes\n"
        "  renamed   encoder.layer.1.norm  ->  blocks.1.norm   same bytes\n"
        "  renamed?  encoder.layer.1.attn.q  ->  blocks.1.attn.q   by names and shapes\n"
        "  reshaped  head.weight   10 8  ->  12 8\n"
        "  re-typed  scale   float32  ->  float16\n"
    )
    assert two_files("diff", "a.pt", "b.pt", "--stat").out == (
        "a.pt -> b.pt\n"
        "  module               added    renamed    renamed?    reshaped    re-typed\n"
        "  -----------------  -------  ---------  ----------  ----------  ----------\n"
        "  extra                    1\n"
        "  blocks.1.attn                       1           1\n"
        "  blocks.{0,2}.attn                   4\n"
        "  blocks.{0..2}                       3\n"
        "  head                                                        1\n"
        "  (root)                                                                  1\n"
    )


def test_what_people_see_in_a_pull_request(two_files: Run) -> None:
    title, _, verdict, _, *rows = two_files(
        "diff", "b.pt", "a.pt", "--format", "markdown", "--stat"
    ).out.splitlines()
    assert title == "### b.pt -\\> a.pt"
    assert verdict == "**differs: 1 removed, 8 renamed, 1 renamed?, 1 reshaped, 1 re-typed**"
    assert {len(row) for row in rows} == {len(rows[0])}, "columns stand below each other"
    assert [
        [cell.strip() for cell in row.split("|")[1:-1]] for row in rows if ":--" not in row
    ] == [
        ["module", "removed", "renamed", "renamed?", "reshaped", "re-typed"],
        ["extra", "1", "", "", "", ""],
        ["encoder.layer.1.attn", "", "1", "1", "", ""],
        [r"encoder.layer.\{0,2\}.attn", "", "4", "", "", ""],
        [r"encoder.layer.\{0..2\}", "", "3", "", "", ""],
        ["head", "", "", "", "1", ""],
        ["(root)", "", "", "", "", "1"],
    ]
    page = two_files("diff", "a.pt", "b.pt", "--format", "html").out
    assert page.startswith("<!doctype html>")
    assert "moved" in page
    assert "encoder.layer.{0,2}.*" in page


def test_report_is_written_to_a_file(two_files: Run, folder: Path) -> None:
    for form in ("markdown", "html"):
        words = ["diff", "a.pt", "b.pt", "--format", form]
        ran = two_files(*words, "-o", "out", "--force")
        assert (ran.code, ran.out) == (0, "wrote out\n")
        assert (folder / "out").read_text() == two_files(*words).out
    assert two_files(*words, "-o", "out").code == 2
    assert two_files("diff", "a.pt", "b.pt", "-o", "other").code == 2
    assert not (folder / "other").exists()
    same = two_files("diff", "a.pt", "b.pt", "--json").out
    assert two_files("diff", "a.pt", "b.pt", "--format", "json").out == same


def test_renames_of_unread_files_are_inferred_and_marked(two_files: Run) -> None:
    ran = two_files("diff", "--keys", "a.pt", "b.pt")
    assert (
        "  renamed?  encoder.layer.{0..2}.attn.{q,k}  ->  blocks.{0..2}.attn.{q,k}"
        "   6 keys, by names and shapes\n"
    ) in ran.out
    data = two_files("diff", "--keys", "a.pt", "b.pt", "--json").data
    assert len(data["inferred"]) == len(data["removed"]) == 9
    assert data["renamed"] == []


LONG = "encoder.transformer.stages.2.blocks.11.self_attention.output_projection"


@pytest.mark.long
@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        (
            80,
            [
                "a.pt does not fit net.py:Net",
                "",
                "  only in a.pt                                   only in Net    shape    match",
                "  ---------------------------------------------  -------------  -------  -------",
                "  encoder.transformer.stages.2.blocks.11.self_a  head.weight    4 4      likely",
                "  ttention.output_projection.weight",
                "",
                "  1 key agrees · 1 missing · 1 unexpected",
            ],
        ),
        (
            120,
            [
                "a.pt does not fit net.py:Net",
                "",
                f"  {'only in a.pt':<80}only in Net    shape    match",
                f"  {'-' * 78}  -------------  -------  -------",
                f"  {LONG}.weight  head.weight    4 4      likely",
                "",
                "  1 key agrees · 1 missing · 1 unexpected",
                "",
            ],
        ),
    ],
)
def test_verdict_on_a_terminal(columns: int, lines: list[str], ckpt: Run, folder: Path) -> None:
    """A long key folds where the terminal is narrow, and stands in one line where it is not."""
    (folder / "net.py").write_text(
        "import torch.nn as nn\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.head = nn.Linear(4, 4)\n"
    )
    torch.save({f"{LONG}.weight": torch.ones(4, 4), "head.bias": torch.ones(4)}, folder / "a.pt")
    shown = on_a_terminal(columns, "diff", "a.pt", "net.py:Net").splitlines()
    assert shown[0] == f"\x1b[31m{lines[0]}\x1b[0m"
    assert [line.rstrip() for line in shown[1:8]] == lines[1:]
