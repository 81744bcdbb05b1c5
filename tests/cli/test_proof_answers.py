"""What `--prove` answers to a wrong mapping: the rule to type, which is typed here and proved.

The oracle is torch: the result loads into the new class, and gives the outputs of the old one.
"""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.support import Run
from tests.effort import long_but

MODEL = """
import torch
from torch import nn

def rotated(x):                                              # (b, heads, time, size)
    size, time = x.shape[-1], x.shape[-2]
    angles = torch.arange(time)[:, None] / 10 ** (torch.arange(size // 2) / 3)
    sin, cos = angles.sin().to(x.dtype), angles.cos().to(x.dtype)
    if {interleaved}:
        a, b = x[..., ::2], x[..., 1::2]
        return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.{norm1}, self.{norm2} = nn.LayerNorm(16), nn.LayerNorm(16)
        self.{q}, self.{k} = nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False)
        self.value, self.out = nn.Linear(16, 16), nn.Parameter(torch.randn(16, 16))
        self.fused = nn.Linear(16, 48)
        self.gate_up, self.down = nn.Linear(16, 24), nn.Linear(12, 16)

    def forward(self, x):
        y = self.{first}(x)
        q, k, v = ({a}(y), {b}(y), self.value(y))
        q, k, v = (it.unflatten(-1, (2, 8)).transpose(1, 2) for it in (q, k, v))
        scores = rotated(q) @ rotated(k).transpose(-1, -2) / 3
        causal = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        mixed = torch.softmax(scores.masked_fill(~causal, -torch.inf), -1) @ v
        x = x + mixed.transpose(1, 2).flatten(-2) @ self.out{turned}
        parts = self.fused(self.{second}(x)).chunk(3, -1)
        {thirds} = parts
        x = x + torch.tanh(one) * two.sin() + three
        {halves} = self.gate_up(x).chunk(2, -1)
        return x + self.down(torch.sigmoid(gate) * up)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.{blocks} = nn.ModuleList(Block() for _ in range(3))

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in {order}(self.{blocks}):
            x = block(x)
        return x
"""
PLAIN = {
    "interleaved": "False", "norm1": "norm1", "norm2": "norm2", "q": "query", "k": "key",
    "turned": "", "thirds": "one, two, three", "halves": "gate, up", "blocks": "layers",
    "order": "iter", "first": "norm1", "second": "norm2", "a": "self.query", "b": "self.key",
}  # fmt: skip
RENAMED = {"norm1": "ln_a", "norm2": "ln_b", "q": "query_proj", "k": "key_proj", "blocks": "h",
           "first": "ln_a", "second": "ln_b", "a": "self.query_proj",
           "b": "self.key_proj"}  # fmt: skip
CHANGES: dict[str, dict[str, str]] = {
    "query and key swapped": {"a": "b", "b": "a"},
    "norms swapped": {"first": "second", "second": "first"},
    "square matrix transposed": {"turned": ".T"},
    "rotary layout": {"interleaved": "True"},
    "thirds": {"thirds": "two, one, three"},
    "halves": {"halves": "up, gate"},
    "reversed order": {"order": "reversed"},
}


def words_of(change: dict[str, str], names: dict[str, str]) -> dict[str, str]:
    words = {**PLAIN, **names}
    return {**words, **{k: words.get(it, it) for k, it in change.items()}}


@pytest.fixture
def state(folder: Path) -> dict[str, Any]:
    (folder / "old.py").write_text(MODEL.format(**PLAIN))
    torch.manual_seed(0)
    model = loaded("old.py", folder)
    made = {key: torch.randn_like(it) / 3 for key, it in model.state_dict().items()}
    torch.save(made, folder / "old.pt")
    return made


def loaded(name: str, folder: Path) -> torch.nn.Module:
    space: dict[str, Any] = {}
    exec((folder / name).read_text(), space)
    made: torch.nn.Module = space["Net"]()
    return made


def answered(hint: str, folder: Path) -> list[str]:
    """The words of a command that the hint says to type."""
    if found := re.search(r"(--rule '[^']+'|--rule \S+)$", hint.strip()):
        return shlex.split(found[1])
    lines = hint[hint.index("rules = [") :].splitlines()
    (folder / "fix.toml").write_text("\n".join(lines) + "\n")
    return ["--rules", "fix.toml"]


def expect_same_function(state: dict[str, Any], folder: Path) -> None:
    old, new = loaded("old.py", folder), loaded("new.py", folder)
    old.load_state_dict(state)
    new.load_state_dict(torch.load(folder / "new.pt"))
    tokens = torch.arange(24).reshape(2, 12) % 20
    old_out, new_out = old.double()(tokens), new.double()(tokens)
    assert torch.allclose(old_out, new_out, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("renamed", long_but([False], [False, True]))
@pytest.mark.parametrize("change", long_but([*CHANGES][:2], CHANGES))
def test_answer_is_what_proves_the_mapping(
    change: str, renamed: bool, ckpt: Run, folder: Path, state: dict[str, Any]
) -> None:
    words = words_of(CHANGES[change], RENAMED if renamed else {})
    (folder / "new.py").write_text(MODEL.format(**words))
    goal = "--to" if renamed else "--check"
    command = ("rename", "old.pt", "--from", "old.py:Net", goal, "new.py:Net", "--prove")
    ran = ckpt(*command, "-o", "new.pt")
    assert (ran.code, "give different outputs" in ran.err) == (3, True), ran
    assert not (folder / "new.pt").exists()
    assert "outputs agree with" in ran.err, ran.err
    again = ckpt(*command, *answered(ran.err, folder), "-o", "new.pt")
    assert (again.code, "proved: outputs agree" in again.out) == (0, True), again
    expect_same_function(state, folder)


@pytest.mark.long
def test_one_block_that_is_wrong_is_named(ckpt: Run, folder: Path, state: dict[str, Any]) -> None:
    (folder / "new.py").write_text(MODEL.format(**PLAIN))
    swap = ("--rule", "layers.1.query<->layers.1.key")
    command = ("rename", "old.pt", "--from", "old.py:Net", "--check", "new.py:Net", "--prove")
    ran = ckpt(*command, *swap)
    assert "in layers.1 alone" in ran.err
    again = ckpt(*command, *swap, *answered(ran.err, folder), "-o", "new.pt")
    assert (again.code, "proved: outputs agree" in again.out) == (0, True), again
    expect_same_function(state, folder)


def test_no_answer_is_invented(ckpt: Run, folder: Path, state: dict[str, Any]) -> None:
    text = MODEL.format(**PLAIN).replace("torch.tanh(one)", "torch.relu(one)")
    (folder / "new.py").write_text(text)
    command = ("rename", "old.pt", "--from", "old.py:Net", "--check", "new.py:Net", "--prove")
    ran = ckpt(*command)
    assert (ran.code, "give different outputs" in ran.err) == (3, True)
    assert "outputs agree" not in ran.err
    assert "first differ at layers.0.gate_up and layers.0.gate_up" in ran.err


SPLIT = """
import torch
from torch import nn

class {name}(nn.Module):
    def __init__(self):
        super().__init__()
        {modules}
        self.out = nn.Linear(8, 4)

    def forward(self, x):
        k, q, v = {called}
        return self.out((q @ k.transpose(-1, -2)).softmax(-1) @ torch.tanh(v))
"""
FUSED = {"name": "Old", "modules": "self.fused = nn.Linear(8, 24)",
         "called": "self.fused(x).chunk(3, -1)"}  # fmt: skip
APART = {"name": "New",
         "modules": "self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)",
         "called": "self.k(x), self.q(x), self.v(x)"}  # fmt: skip


def test_answer_after_found_operations_is_a_whole_command(ckpt: Run, folder: Path) -> None:
    """It gives the optimizer the order of the new class, too: torch loads each state by place."""
    space: dict[str, Any] = {}
    for words in (FUSED, APART):
        text = SPLIT.format(**words)
        (folder / f"{words['name'].lower()}.py").write_text(text)
        exec(text, space)
    torch.manual_seed(0)
    old = space["Old"]()
    adam = torch.optim.Adam(old.parameters())
    old(torch.randn(5, 8)).square().sum().backward()
    adam.step()
    torch.save({"model": old.state_dict(), "optimizer": adam.state_dict()}, "run.pt")
    ran = ckpt("rename", "run.pt", "--from", "old.py:Old", "--to", "new.py:New", "--prove")
    assert ran.code == 3
    hint = ran.err[ran.err.index("hint:") :]
    assert hint == (
        "hint:  outputs agree with q and k swapped:\n"
        "       ckpt rename run.pt --from old.py:Old --check new.py:New --prove --rules FILE\n"
        "       with these lines in FILE:\n"
        "       rules = [\n"
        "           { split = '^fused\\.(weight|bias)$', into = ['q.{1}', 'k.{1}', 'v.{1}'] },\n"
        "           { rename = 'k<->q' },\n"
        "       ]\n"
    )
    _, command, _, *lines = hint.splitlines()
    (folder / "FILE").write_text("\n".join(lines))
    again = ckpt(*command.split()[1:], "-o", "new.pt")
    assert (again.code, "proved: outputs agree" in again.out) == (0, True), again
    run, new = torch.load("new.pt"), space["New"]()
    new.load_state_dict(run["model"], strict=True)
    resumed = torch.optim.Adam(new.parameters())
    resumed.load_state_dict(run["optimizer"])
    state = adam.state[old.fused.weight]["exp_avg"].chunk(3)
    for layer, wanted in zip((new.k, new.q, new.v), state, strict=True):
        assert torch.equal(resumed.state[layer.weight]["exp_avg"], wanted)
