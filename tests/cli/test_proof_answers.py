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


PAIR = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.{one}, self.{two} = nn.Linear(8, 8), nn.Linear(8, 8)
        self.out = nn.Linear(8, 4)

    def forward(self, x):
        return self.out({called})
"""
MIXED = "torch.relu(self.{}(torch.tanh(self.{}(x))))"
AMBIGUOUS = "error: net.pt: ambiguous: query.weight could become "
PROOF = ("rename", "net.pt", "--from", "a.py:Net", "--to", "b.py:Net", "--prove")


def pair(folder: Path, new: tuple[str, str], called: tuple[str, str]) -> dict[str, Any]:
    old = PAIR.format(one="query", two="mix", called=called[0])
    (folder / "a.py").write_text(old)
    (folder / "b.py").write_text(PAIR.format(one=new[0], two=new[1], called=called[1]))
    space: dict[str, Any] = {}
    exec(old, space)
    state: dict[str, Any] = space["Net"]().state_dict()
    torch.save(state, "net.pt")
    return state


@pytest.mark.parametrize("new", [("blend", "ask"), ("ask", "blend")], ids=["wrong", "right"])
def test_proof_decides_what_names_do_not(new: tuple[str, str], ckpt: Run, folder: Path) -> None:
    """With the order of the modules as the best guess, which is wrong in the first case."""
    called = (MIXED.format("mix", "query"), MIXED.format("blend", "ask"))
    state = pair(folder, new, called)
    ran = ckpt(*PROOF[:2], *PROOF[4:6])
    assert (ran.code, ran.err) == (
        3,
        f"{AMBIGUOUS}{new[0]}.weight or {new[1]}.weight (and 3 keys with it)\n"
        "hint:  --from OLD_DEF --prove  decides, where the old class is there\n"
        f"       --rule 'query->{new[0]}'  takes the best guess\n"
        "       ckpt diff net.pt b.py:Net --map  shows all\n"
        "       decide with a --rule for one of them, or --ask; --accept-ambiguous accepts the "
        "best guess\n",
    )
    ran = ckpt(*PROOF, "-o", "new.pt")
    if new[0] == "blend":
        assert (ran.code, "outputs agree with blend and ask swapped" in ran.err) == (3, True), ran
        ran = ckpt(*PROOF, *answered(ran.err, folder), "-o", "new.pt")
    assert (ran.code, "proved: outputs agree" in ran.out) == (0, True), ran
    made = torch.load(folder / "new.pt")
    assert torch.equal(made["ask.weight"], state["query.weight"])
    assert torch.equal(made["blend.weight"], state["mix.weight"])


@pytest.mark.parametrize(
    "called",
    [("x", "x"), (MIXED.format("mix", "query"), "self.ask(x) * self.blend(x)")],
    ids=["no influence", "another function"],
)
def test_what_a_proof_does_not_decide_stays_a_question(
    called: tuple[str, str], ckpt: Run, folder: Path
) -> None:
    pair(folder, ("blend", "ask"), called)
    ran = ckpt(*PROOF, "-o", "new.pt")
    assert (ran.code, ran.err.startswith(AMBIGUOUS)) == (3, True), ran
    assert "--prove" not in ran.err
    assert not (folder / "new.pt").exists()


def test_names_alone_are_not_called_sure(ckpt: Run, folder: Path) -> None:
    """Where rules are only likely, the line says how to be sure; and a split is for a file."""
    (folder / "old.py").write_text(SPLIT.format(**FUSED))
    (folder / "new.py").write_text(SPLIT.format(**APART))
    space: dict[str, Any] = {}
    exec((folder / "old.py").read_text(), space)
    torch.save(space["Old"]().state_dict(), "old.pt")
    ran = ckpt("rename", "old.pt", "--to", "new.py:New", "--dry-run")
    assert ran.out.splitlines()[-7:-2] == [
        "  found for new.py:New: 2 certain, 2 likely",
        "  to be sure:  --from OLD_DEF --prove",
        "  1 rule:",
        r"    split '^fused\.(weight|bias)$'   (in a rule file; --save-rules FILE  writes it)",
        "  0 keys renamed, 6 made, 2 kept · fits new.py:New",
    ]
    torch.save(space["Old"]().state_dict(), "other.pt")
    ran = ckpt("rename", "old.pt", "--to", "other.pt", "--rule", "out=end", "--dry-run")
    assert "to be sure" not in ran.out, "there is no class to run"
