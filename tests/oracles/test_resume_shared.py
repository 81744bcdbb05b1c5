"""Optimizers whose state is not that of one key each: tied parameters, and LBFGS.

torch's optimizers have a tied parameter once, and LBFGS has one state for all parameters.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, linear

from tests.cli.support import Run
from tests.oracles.test_resume import AFTER, BEFORE, plain

NETS = """
from torch import nn

class Old(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 6)
        self.qk = nn.Linear(6, 12)
        self.head = nn.Linear(6, 7, bias=False)
        self.head.weight = self.embed.weight

class Untied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 6)
        self.q = nn.Linear(6, 6)
        self.k = nn.Linear(6, 6)
        self.head = nn.Linear(6, 7, bias=False)

class New(Untied):
    def __init__(self):
        super().__init__()
        self.head.weight = self.embed.weight

class Keys(nn.Module):
    '''The parameters in the order of the file's keys.'''
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 6)
        self.qk = nn.Linear(6, 12)
        self.last = nn.Linear(6, 3)

class Moved(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(6, 3)
        self.embed = nn.Embedding(7, 6)
        self.qk = nn.Linear(6, 12)
"""
SPLIT = "[[rules]]\nsplit = '^qk'\ninto = ['q', 'k']\n"
SPACE: dict[str, Any] = {}
exec(NETS, SPACE)


@pytest.fixture
def nets(ckpt: Run, folder: Path) -> Run:
    (folder / "net.py").write_text(NETS)
    (folder / "r.toml").write_text(SPLIT)
    return ckpt


def train(net: Any, optimizer: torch.optim.Optimizer, steps: range) -> None:
    fused = [net.qk] if hasattr(net, "qk") else [net.q, net.k]
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        numbers, labels = torch.randint(0, 7, (2, 16), generator=generator)
        optimizer.zero_grad()
        weight, bias = (torch.cat([getattr(it, of) for it in fused]) for of in ("weight", "bias"))
        q, k = linear(net.embed(numbers), weight, bias).chunk(2, -1)
        cross_entropy(net.head(q * k), labels).backward()
        optimizer.step()


def trained(folder: Path) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = SPACE["Old"]()
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    train(net, optimizer, range(BEFORE))
    torch.save(plain(net, optimizer), folder / "run.pt")
    return net, optimizer


@pytest.mark.parametrize("check", [(), ("--check", "net.py:New")], ids=["no class", "class"])
def test_tied_parameter_is_there_once_after_operations(
    check: tuple[str, ...], nets: Run, folder: Path
) -> None:
    old, optimizer = trained(folder)
    ran = nets("rename", "run.pt", "--rules", "r.toml", *check, "-o", "new.pt")
    assert ran.code == 0, ran
    assert "state of 3 parameters carried over to 5" in ran.out
    run = torch.load(folder / "new.pt")
    new = SPACE["New"]()
    new.load_state_dict(run["model"], strict=True)
    named = dict(new.named_parameters())
    order = [*named] if check else [key for key in run["model"] if key in named]
    resumed = torch.optim.Adam([named[key] for key in order], 0.01)
    resumed.load_state_dict(run["optimizer"])
    train(old, optimizer, range(BEFORE, BEFORE + AFTER))
    train(new, resumed, range(BEFORE, BEFORE + AFTER))
    mine, theirs = new.state_dict(), old.state_dict()
    assert torch.equal(mine["embed.weight"], theirs["embed.weight"])
    assert torch.equal(torch.cat([mine["q.weight"], mine["k.weight"]]), theirs["qk.weight"])


def test_tied_parameter_that_becomes_two_has_no_state_for_both(nets: Run, folder: Path) -> None:
    """Both would get the same tensors, which each step then counts twice."""
    trained(folder)
    words = ("rename", "run.pt", "--rules", "r.toml", "--check", "net.py:Untied", "-o", "new.pt")
    ran = nets(*words)
    assert ran.code == 3
    assert "an element of embed.weight would be in two parameters" in ran.err
    assert nets(*words, "--drop-optimizer").code == 0


def test_lbfgs_does_not_follow_another_order(nets: Run, folder: Path) -> None:
    """Its directions are of all parameters in one, and noted at the first one."""
    net = SPACE["Keys"]()
    optimizer = torch.optim.LBFGS(net.parameters())

    def closure() -> float:
        optimizer.zero_grad()
        loss = sum((it**2).sum() for it in net.parameters())
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        return float(loss.detach())

    optimizer.step(closure)
    torch.save(plain(net, optimizer), folder / "run.pt")
    ran = nets("rename", "run.pt", "--to", "net.py:Moved", "-o", "new.pt")
    assert ran.code == 3
    assert "the state of optimizer is of all parameters in one" in ran.err
    ran = nets("rename", "run.pt", "--rule", "last=final", "-o", "same.pt")
    assert ran.code == 0, "the order stays"
    assert nets("rename", "run.pt", "--drop", "^last", "-o", "new.pt").code == 3
