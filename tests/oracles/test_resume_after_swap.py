"""Training goes on after rules that give a parameter the old name of another, or they are refused.

Whether the state of an optimizer has to move depends on the new class alone: one that keeps its
names in their order has the swapped parameters at other places.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.cli.support import Ran, Run

NETS = """
from torch import nn

class Old(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

class Same(Old):
    pass

class Moved(nn.Module):
    def __init__(self):
        super().__init__()
        self.two, self.one, self.three = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

class Layers(nn.Module):
    def __init__(self, count=3):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(count))
"""
SPACE: dict[str, Any] = {}
exec(NETS, SPACE)
REFUSED = (
    "error: run.pt: cannot tell which parameter the optimizer's state belongs to: the rules do not "
    "tell their order in the new class\n"
    "hint:  --check NEW_DEF  names the class of the result, which tells its parameters\n"
    "       --drop-optimizer  writes the file without its optimizer\n"
)


def train(layers: Sequence[nn.Module], optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        images = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        for layer in layers:
            images = torch.tanh(layer(images))
        optimizer.zero_grad()
        images.square().sum().backward()
        optimizer.step()


def called(net: nn.Module, names: str) -> list[nn.Module]:
    return [net.get_submodule(name) for name in names.split()]


def first_part(net: nn.Module, names: str, **more: Any) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    train(called(net, names), optimizer, range(5))
    run = {"model": net.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({**run, **more}, "run.pt")
    return optimizer


def resumed(net: nn.Module, names: str) -> list[torch.Tensor]:
    """The weights, layer by layer as they are called."""
    run = torch.load("new.pt")
    net.load_state_dict(run["model"], strict=True)
    optimizer = torch.optim.Adam(net.parameters())
    optimizer.load_state_dict(run["optimizer"])
    train(called(net, names), optimizer, range(5, 10))
    return [it for layer in called(net, names) for it in layer.parameters()]


def same(found: Sequence[torch.Tensor], layers: Sequence[nn.Module]) -> bool:
    wanted = [it for layer in layers for it in layer.parameters()]
    return all(map(torch.equal, found, wanted)) and len(found) == len(wanted)


@pytest.fixture
def nets(ckpt: Run, folder: Path) -> Run:
    torch.manual_seed(0)
    (folder / "net.py").write_text(NETS)
    return ckpt


@pytest.mark.parametrize("name", ["Same", "Moved"])
def test_state_of_swapped_parameters_follows_the_new_class(name: str, nets: Run) -> None:
    old = SPACE["Old"]()
    optimizer = first_part(old, "one two three")
    words = ("rename", "run.pt", "--rule", "one<->two", "-o", "new.pt")
    assert nets(*words) == Ran(3, "", REFUSED), "one of the two classes would get wrong state"
    assert nets(*words, "--check", f"net.py:{name}").code == 0
    train(called(old, "one two three"), optimizer, range(5, 10))
    assert same(resumed(SPACE[name](), "two one three"), called(old, "one two three"))


@pytest.mark.parametrize(
    "rules",
    [
        ("--rule", "one<->three"),
        ("--rule", "one=x", "--rule", "two=one", "--rule", "x=two"),
        ("--drop", "^one", "--rule", "two<->three"),
        ("--rules", "r.toml"),
    ],
    ids=["swap", "through another name", "drop", "operation"],
)
def test_names_that_change_places_are_refused(
    rules: tuple[str, ...], nets: Run, folder: Path
) -> None:
    swap = "{rename = 'two<->three'}"
    (folder / "r.toml").write_text(f"rules = [{{transpose = 'one.weight'}}, {swap}]")
    first_part(SPACE["Old"](), "one two three")
    for end in (("-o", "new.pt"), ("--dry-run",), ("--in-place",)):
        assert nets("rename", "run.pt", *rules, *end) == Ran(3, "", REFUSED)
    assert nets("rename", "run.pt", *rules, "-o", "new.safetensors").code == 0
    assert nets("rename", "run.pt", *rules, "--drop-optimizer", "-o", "new.pt").code == 0
    assert nets("register", "run.pt").code == 0
    assert nets("rename", "run:v1", *rules).err == REFUSED.replace("run.pt", "run:v1")


def test_tensors_by_the_places_of_swapped_parameters_are_refused(nets: Run) -> None:
    net = SPACE["Old"]()
    averages = [it.detach() / 2 for it in net.parameters()]
    first_part(net, "one two three", ema={"shadow_params": averages})
    ran = nets("rename", "run.pt", "--rule", "one<->two", "--drop-optimizer", "-o", "new.pt")
    assert (ran.code, ran.err) == (
        3,
        "error: run.pt: ema.shadow_params.* holds tensors by the places of the parameters, which "
        "the result may have at other places\n"
        "hint:  -o NEW.safetensors  writes the tensors of the state_dict alone\n",
    )


def test_layers_that_move_up_keep_their_order(nets: Run) -> None:
    """The old names come in their old order: a list of layers has them so."""
    old = SPACE["Layers"]()
    optimizer = first_part(old, "layers.0 layers.1 layers.2")
    up = ("--drop", r"^layers\.0\.", "--rule", r"layers\.(\d+)->layers.{1-1}")
    ran = nets("rename", "run.pt", *up, "-o", "new.pt")
    assert ran.code == 0, ran
    group = optimizer.param_groups[0]
    group["params"] = group["params"][2:]
    train(called(old, "layers.1 layers.2"), optimizer, range(5, 10))
    left = called(old, "layers.1 layers.2")
    assert same(resumed(SPACE["Layers"](2), "layers.0 layers.1"), left)


def test_names_that_are_not_of_parameters_may_be_swapped(nets: Run) -> None:
    norm = nn.BatchNorm1d(4)
    optimizer = torch.optim.Adam(norm.parameters())
    train([norm], optimizer, range(3))
    torch.save({"model": norm.state_dict(), "optimizer": optimizer.state_dict()}, "run.pt")
    assert nets("rename", "run.pt", "--rule", "running_mean<->running_var").code == 0
