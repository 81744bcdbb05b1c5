"""`ckpt rename --prove`: mistakes that keep every shape load strictly, and are found by running."""

from pathlib import Path

import pytest
import torch

from tests.cli.support import Run, weights

MODEL = """
import torch
import torch.nn as nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.{norm1}, self.{norm2} = nn.LayerNorm(16), nn.LayerNorm(16)
        self.{q}, self.{k}, self.{v} = (nn.Linear(16, 16) for _ in range(3))

    def forward(self, x):
        y = self.{norm1}(x)
        scores = self.{q}(y) @ self.{k}(y).transpose(-1, -2)
        return self.{norm2}(x + torch.softmax(scores, -1) @ self.{v}(y))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.{embed} = nn.Embedding(50, 16)
        self.{blocks} = nn.ModuleList(Block() for _ in range(2))

    def forward(self, tokens):
        x = self.{embed}(tokens)
        for block in self.{blocks}:
            x = block(x)
        return {{"logits": (x,)}}
"""
OLD = {"norm1": "ln_1", "norm2": "ln_2", "q": "query", "k": "key", "v": "value",
       "embed": "wte", "blocks": "h"}  # fmt: skip
NEW = {"norm1": "pre_norm", "norm2": "post_norm", "q": "wq", "k": "wk", "v": "wv",
       "embed": "embeddings", "blocks": "layers"}  # fmt: skip
RIGHT = {"ln_1": "pre_norm", "ln_2": "post_norm", "query": "wq", "key": "wk", "value": "wv"}
PROVE = ("--from", "old.py:Net", "--check", "new.py:Net", "--prove")


@pytest.fixture
def both(ckpt: Run, folder: Path) -> Run:
    """old.py and new.py, the same function under other names, and old.pt with random weights."""
    space: dict[str, object] = {}
    for name, words in (("old", OLD), ("new", NEW)):
        (folder / f"{name}.py").write_text(MODEL.format(**words))
    exec(MODEL.format(**OLD), space)
    state = space["Net"]().state_dict()
    torch.save({key: torch.randn_like(value) for key, value in state.items()}, folder / "old.pt")
    return ckpt


def rules(mapping: dict[str, str]) -> list[str]:
    pairs = {
        "wte": "embeddings",
        r"^h\.": "layers.",
        **{f".{k}.": f".{v}." for k, v in mapping.items()},
    }
    return [word for old, new in pairs.items() for word in ("--rule", f"{old}->{new}")]


def test_right_mapping_is_proved(both: Run, folder: Path) -> None:
    ran = both("rename", "old.pt", *rules(RIGHT), *PROVE, "-o", "new.pt", "--json")
    assert ran.code == 0, ran
    assert ran.data["proof"]["dtype"] == "float64"
    assert max(ran.data["proof"]["largest"]) < 1e-12
    found = both("rename", "old.pt", *rules(RIGHT), *PROVE, "--dry-run")
    assert "proved: outputs agree" in found.out


@pytest.mark.parametrize(
    ("one", "other", "where"),
    [
        ("ln_1", "ln_2", "h.0.ln_1 and layers.0.post_norm"),
        ("query", "value", "h.0.ln_2 and layers.0.post_norm"),
        ("query", "key", ""),
    ],
)
def test_modules_of_one_shape_that_were_swapped_are_found(
    one: str, other: str, where: str, both: Run, folder: Path
) -> None:
    swapped = {**RIGHT, one: RIGHT[other], other: RIGHT[one]}
    assert both("rename", "old.pt", *rules(swapped), *PROVE[2:4], "--dry-run").code == 0, "loads"
    ran = both("rename", "old.pt", *rules(swapped), *PROVE, "-o", "new.pt")
    assert (ran.code, "give different outputs" in ran.err) == (3, True), ran
    assert where in ran.err
    assert not (folder / "new.pt").exists()


def test_square_matrix_that_was_transposed_is_found(both: Run, folder: Path) -> None:
    (folder / "turn.toml").write_text("[[rules]]\ntranspose = '^h\\.1\\.key\\.weight$'\n")
    words = ("rename", "old.pt", "--rules", "turn.toml", *rules(RIGHT), *PROVE, "-o", "new.pt")
    ran = both(*words)
    assert (ran.code, "layers.1.wk" in ran.err) == (3, True), ran


def test_rules_that_were_found_are_proved(both: Run) -> None:
    words = ("rename", "old.pt", "--to", "new.py:Net", "--from", "old.py:Net", "--prove")
    ran = both(*words, "--dry-run")
    assert ran.code == 0, ran
    assert "proved" in ran.out


def test_shape_of_the_input_can_be_said(both: Run) -> None:
    words = ("rename", "old.pt", *rules(RIGHT), *PROVE, "--dry-run")
    assert both(*words, "--input", "1x5", "--json").data["proof"]["shape"] == [1, 5]
    for shape in ("5", "1x2x3x4"):
        assert both(*words, "--input", shape).code in (0, 3)
    assert both(*words, "--input", "1xfour").code == 2


def test_input_that_does_not_go_in_is_said(ckpt: Run, folder: Path) -> None:
    torch.save(weights(), folder / "net.pt")
    words = ("rename", "net.pt", "--rule", "conv=embed", "--from", "ckpt.models.mnist_cnn:Net",
             "--check", "ckpt.models.mnist_embed:Net", "--prove", "--dry-run")  # fmt: skip
    assert ckpt(*words).code == 0
    ran = ckpt(*words, "--input", "1x1x30x30")
    assert (ran.code, "--input" in ran.err) == (3, True), ran


@pytest.mark.parametrize("words", [("--prove",), ("--from", "old.py:Net"), ("--input", "1x2")])
def test_proof_needs_both_definitions(words: tuple[str, ...], both: Run) -> None:
    assert both("rename", "old.pt", "--rule", "wte=embeddings", *words).code == 2
    assert both("rename", "old.pt", "--rule", "wte=e", "--from", "old.py:Net", "--prove").code == 2


def test_proved_conversion_keeps_the_metrics(ckpt: Run, folder: Path) -> None:
    for name, made, used in (
        ("old", "nn.Linear(4, 4, bias=False)", "self.w(x)"),
        ("new", "nn.Parameter(torch.ones(4, 4))", "x @ self.w"),
    ):
        (folder / f"{name}.py").write_text(
            "import torch\nfrom torch import nn\n\nclass Net(nn.Module):\n"
            f"    def __init__(self):\n        super().__init__()\n        self.w = {made}\n\n"
            f"    def forward(self, x):\n        return {used}\n"
        )
    torch.save({"w.weight": torch.randn(4, 4)}, folder / "net.pt")
    assert ckpt("register", "net.pt", "--metric", "accuracy=0.5").code == 0
    (folder / "turn.toml").write_text(
        "[[rules]]\nrename = '^w.weight$->w'\n\n[[rules]]\ntranspose = '^w$'\n"
    )
    (folder / "cast.toml").write_text("[[rules]]\ncast = '.'\ndtype = 'float16'\n")
    prove = ("--from", "old.py:Net", "--check", "new.py:Net", "--prove", "--input", "2x4")
    assert ckpt("rename", "v1", "--rules", "turn.toml", *prove).code == 0
    assert ckpt("rename", "v1", "--rules", "cast.toml").code == 0
    metrics = [row["metrics"] for row in ckpt("ls", "--json").data]
    assert metrics == [{}, {"accuracy": 0.5}, {"accuracy": 0.5}]


def test_metrics_stay_only_if_every_tensor_is_proved(ckpt: Run, folder: Path) -> None:
    """A head that eval mode does not use may be wrong; a metric may be about it."""
    text = (
        "from torch import nn\n\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.{w}, self.aux = nn.Linear(4, 4), nn.Linear(4, 2)\n"
        "        self.norm = nn.BatchNorm1d(4)\n\n"
        "    def forward(self, x):\n        return self.norm(self.{w}(x)){more}\n"
    )
    for more, metrics in (("", {}), (", self.aux(x)", {"accuracy": 0.5})):
        space: dict[str, type[torch.nn.Module]] = {}
        for name, key in (("old", "w"), ("new", "v")):
            (folder / f"{name}.py").write_text(text.format(w=key, more=more))
        exec(text.format(w="w", more=more), space)
        state = space["Net"]().state_dict()
        torch.save(state, folder / "net.pt")
        name = f"net{len(more)}"
        ran = ckpt("register", "net.pt", "--name", name, "--metric", "accuracy=0.5")
        assert ran.code == 0, ran
        (folder / "turn.toml").write_text(
            "[[rules]]\nrename = '^w->v'\n\n[[rules]]\nduplicate = '^aux.bias$'\n"
            "into = ['aux.bias']\n\n[[rules]]\nreshape = '^norm.bias$'\nshape = [4]\n"
        )
        words = ("--rules", "turn.toml", "--from", "old.py:Net", "--check", "new.py:Net")
        ran = ckpt("rename", f"{name}:v1", *words, "--prove", "--json")
        assert ran.code == 0, ran
        unproved = {it["key"] for it in ran.data["proof"]["unproved"]}
        assert unproved - {"norm.num_batches_tracked"} == (
            set() if more else {"aux.weight", "aux.bias"}
        )
        newest = next(row for row in ckpt("ls", name, "--json").data if row["version"] == "v2")
        assert newest["metrics"] == metrics
