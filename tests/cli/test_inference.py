"""`ckpt rename --to` and `ckpt diff --map`: the rules write themselves, and say what they know."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from tests.cli.support import Run, weights

BLOCKS = """
import torch.nn as nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn_norm, self.mlp_norm = nn.LayerNorm(16), nn.LayerNorm(16)
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(16, 32), nn.Linear(32, 16)

class Net(nn.Module):
    def __init__(self, depth=3):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.blocks = nn.ModuleList(Block() for _ in range(depth))
        self.head = nn.Linear(16, 50)
"""
OLD = {
    "attn_norm": "attention.LayerNorm", "mlp_norm": "output.LayerNorm",
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
    "o": "attention.dense", "fc1": "intermediate.dense", "fc2": "output.dense",
}  # fmt: skip


def new_state(depth: int = 3) -> dict[str, torch.Tensor]:
    space: dict[str, object] = {}
    exec(BLOCKS, space)
    torch.manual_seed(0)
    return space["Net"](depth).state_dict()


def old_key(key: str) -> str:
    first, *rest = key.split(".")
    if first != "blocks":
        return {"embed": "word_embeddings", "head": "classifier"}[first] + "." + rest[0]
    number, module, leaf = rest
    leaf = {"weight": "gamma", "bias": "beta"}[leaf] if "norm" in module else leaf
    return f"module.encoder.layer.{number}.{OLD[module]}.{leaf}"


@pytest.fixture
def refactored(ckpt: Run, folder: Path) -> Run:
    """old.pt, whose every key is another one in net.py:Net."""
    (folder / "net.py").write_text(BLOCKS)
    torch.save(OrderedDict((old_key(k), v) for k, v in new_state().items()), folder / "old.pt")
    return ckpt


def test_file_is_made_to_fit_with_no_rule_given(refactored: Run, folder: Path) -> None:
    ran = refactored("rename", "old.pt", "--to", "net.py:Net", "-o", "new.pt")
    assert ran.code == 0, ran
    assert "fits net.py:Net" in ran.out
    made, want = torch.load(folder / "new.pt"), new_state()
    assert {*made} == {*want}
    assert all(torch.equal(made[key], want[key]) for key in want)


def test_rules_that_were_found_are_saved_and_do_the_same(refactored: Run, folder: Path) -> None:
    words = ("rename", "old.pt", "--to", "net.py:Net", "-o", "new.pt", "--save-rules", "r.toml")
    assert refactored(*words).code == 0
    assert refactored("rename", "old.pt", "--rules", "r.toml", "-o", "again.pt").code == 0
    assert (folder / "new.pt").read_bytes() == (folder / "again.pt").read_bytes()
    assert refactored("rename", "again.pt", "--rules", "r.toml", "--undo", "-o", "b.pt").code == 0
    assert (folder / "b.pt").read_bytes() == (folder / "old.pt").read_bytes()


def test_diff_says_what_to_type(refactored: Run) -> None:
    ran = refactored("diff", "old.pt", "net.py:Net")
    assert ran.out.endswith("To make it fit:  ckpt rename old.pt --to net.py:Net\n")


def test_map_shows_pairs_by_how_sure_they_are_and_writes_nothing(
    refactored: Run, folder: Path
) -> None:
    before = {path.name for path in folder.iterdir()}
    data = refactored("diff", "old.pt", "net.py:Net", "--map", "--json").data
    assert {match["source"]: match["target"] for match in data["matches"]} == {
        old_key(key): key for key in new_state()
    }
    assert data["settled"]
    assert 0 < len(data["rules"]) <= 15
    text = refactored("diff", "old.pt", "net.py:Net", "--map").out
    assert "  likely    module.encoder.layer.{0..2}." in text
    assert {path.name for path in folder.iterdir()} <= {*before, "__pycache__"}


def test_values_find_any_renaming_exactly(ckpt: Run, folder: Path) -> None:
    """Whatever the names: equal bytes are proof."""
    state = weights()
    names = {key: f"p{at:02}" for at, key in enumerate(sorted(state))}
    torch.save(state, folder / "a.pt")
    torch.save({names[key]: each for key, each in state.items()}, folder / "b.pt")
    data = ckpt("diff", "a.pt", "b.pt", "--map", "--json").data
    assert {match["source"]: match["target"] for match in data["matches"]} == names
    assert {match["confidence"] for match in data["matches"]} == {"certain"}
    assert ckpt("rename", "a.pt", "--to", "b.pt", "-o", "c.pt").code == 0
    assert "no difference" in ckpt("diff", "c.pt", "b.pt").out


def test_what_nothing_decides_is_not_written_unasked(ckpt: Run, folder: Path) -> None:
    (folder / "net.py").write_text(
        "import torch.nn as nn\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.zig, self.zag = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)\n"
    )
    torch.save({"x9.weight": torch.ones(8, 8), "k2.weight": torch.zeros(8, 8)}, folder / "old.pt")
    words = ("rename", "old.pt", "--to", "net.py:Net", "-o", "new.pt")
    ran = ckpt(*words)
    assert ran.code == 3
    assert "ambiguous: x9.weight could become zig.weight or zag.weight" in ran.err
    assert "--accept-ambiguous" in ran.err
    assert not (folder / "new.pt").exists()
    assert "  ambiguous x9.weight  ->  " in ckpt("diff", "old.pt", "net.py:Net", "--map").out
    assert ckpt(*words, "--rule", "x9=zag").code == 0, "a rule settles it"
    assert torch.equal(torch.load(folder / "new.pt")["zag.weight"], torch.ones(8, 8))
    assert ckpt(*words, "--force", "--accept-ambiguous").code == 0


def test_version_becomes_the_next_version(ckpt: Run, folder: Path) -> None:
    torch.save(weights(), folder / "net.pt")
    assert ckpt("register", "net.pt").code == 0
    ran = ckpt("rename", "net:v1", "--to", "ckpt.models.mnist_embed:Net", "--json")
    assert ran.data["added"]["version"] == "v2"
    assert ran.data["added"]["new_bytes"] < 20_000, "the manifest alone"
    assert ckpt("diff", "v1", "v2", "--json").data["changed"] == []


def test_counters_that_old_files_lack_are_filled_with_zero(ckpt: Run, folder: Path) -> None:
    norms = torch.nn.Sequential(torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 4, 1))
    state = {f"body.{k}": v for k, v in norms.state_dict().items() if "num_batches" not in k}
    torch.save(state, folder / "old.pt")
    (folder / "net.py").write_text(
        "import torch.nn as nn\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.layers = nn.Sequential("
        "nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))\n"
    )
    ran = ckpt("rename", "old.pt", "--to", "net.py:Net", "-o", "new.pt")
    assert ran.code == 0, ran
    made = torch.load(folder / "new.pt")
    assert made["layers.0.num_batches_tracked"] == 0
    assert made["layers.0.num_batches_tracked"].dtype == torch.int64


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("rename", "old.pt", "--accept-ambiguous", "--rule", "a=b"), 2),
        (("rename", "old.pt", "--to", "net.py:Gone"), 2),
        (("rename", "old.pt", "--to", "net.py:Net", "--undo"), 2),
    ],
)
def test_what_cannot_be_meant_is_refused(
    words: tuple[str, ...], code: int, refactored: Run, folder: Path
) -> None:
    assert refactored(*words).code == code
    assert not (folder / "old.renamed.pt").exists()


def test_target_that_lacks_a_source_is_refused(ckpt: Run, folder: Path) -> None:
    torch.save({"conv1.weight": torch.ones(32, 1, 3, 3)}, folder / "old.pt")
    ran = ckpt("rename", "old.pt", "--to", "ckpt.models.mnist_embed:Net")
    assert ran.code == 3
    assert "7 missing" in ran.err


def test_nothing_that_has_a_place_is_said_plainly(ckpt: Run, folder: Path) -> None:
    torch.save({"a.weight": torch.ones(3, 4), "a.bias": torch.ones(3)}, folder / "a.pt")
    torch.save({"z.weight": torch.ones(9, 7, 3), "z.bias": torch.ones(9)}, folder / "z.pt")
    shown = ckpt("diff", "a.pt", "z.pt", "--map")
    assert shown.code == 0
    assert "no rules: nothing has a place in the other" in shown.out
    refused = ckpt("rename", "a.pt", "--to", "z.pt", "-o", "new.pt")
    assert refused.code == 3
    assert "2 missing (z.weight, z.bias), 2 unexpected (a.weight, a.bias)" in refused.err
    assert not (folder / "new.pt").exists()
