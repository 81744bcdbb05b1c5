"""Training goes on after a drop as if the dropped parameters had never been in the optimizer.

Two runs take the same steps: one with an auxiliary head, which does not touch the gradients of the
others, and one without it. The file of the first, from which `ckpt` drops the head, resumes to the
second, bit for bit.
"""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import cross_entropy

from tests.cli.support import Run
from tests.effort import SHORT
from tests.oracles.test_resume import (
    AFTER,
    BEFORE,
    OPTIMIZERS,
    Parameters,
    all_alike,
    in_groups,
    with_names,
)

NETS = '''
import torch
from torch import nn

class With(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.aux = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3))
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 3)

class Without(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 3)

class Refactored(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(6, 3)
        self.norm = nn.BatchNorm1d(6)
        self.first = nn.Linear(6, 6)

class Weighted(nn.Module):
    """The class weights of its loss are a buffer."""
    def __init__(self):
        super().__init__()
        self.net = Without()
        self.loss = nn.CrossEntropyLoss(weight=torch.ones(3))
'''
SPACE: dict[str, Any] = {}
exec(NETS, SPACE)
Saved = Callable[[nn.Module, torch.optim.Optimizer], dict[str, Any]]
Groups = Callable[[nn.Module], Parameters]


def train(net: Any, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(16, 6, generator=generator)
        labels = torch.randint(0, 3, (16,), generator=generator)
        optimizer.zero_grad()
        hidden = net.norm(net.first(images).relu())
        head = net.out if hasattr(net, "out") else net.head
        loss = cross_entropy(head(hidden), labels)
        if hasattr(net, "aux"):
            loss = loss + cross_entropy(net.aux(hidden.detach()), labels)
        loss.backward()
        optimizer.step()


def two_runs(name: str, groups: Groups) -> tuple[tuple[nn.Module, Any], tuple[nn.Module, Any]]:
    """The net and the optimizer with the auxiliary head, and those without it."""
    torch.manual_seed(0)
    nets = SPACE["With"](), SPACE["Without"]()
    own = nets[1].state_dict()
    nets[1].load_state_dict({key: nets[0].state_dict()[key] for key in own})
    runs = [(net, OPTIMIZERS[name](groups(net))) for net in nets]
    for net, optimizer in runs:
        train(net, optimizer, range(BEFORE))
    return runs[0], runs[1]


def plain(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {
        "epoch": 3,
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "ema": {f"module.{key}": it.clone() for key, it in net.state_dict().items()},
    }


def lightning(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {
        "pytorch-lightning_version": "2.4.0",
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 3}}}},
        "state_dict": net.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [{"base_lrs": [0.01], "last_epoch": 3}],
        "callbacks": {"best": {"score": torch.tensor(0.5)}},
    }


def mmengine(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {
        "meta": {"epoch": 3, "cfg": "model = dict()"},
        "state_dict": net.state_dict(),
        "message_hub": {"runtime_info": {"iter": 7}},
        "optimizer": optimizer.state_dict(),
        "param_schedulers": [{"last_step": 3}],
    }


def parts(run: dict[str, Any]) -> tuple[Any, Any]:
    weights = run.get("model", run.get("state_dict"))
    return weights, run.get("optimizer") or run["optimizer_states"][0]


def same_values(one: object, other: object) -> bool:
    """Whether two values are equal bit for bit, whatever is in them."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return [*one] == [*other] and all(same_values(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_values, one, other))
    return one == other


@pytest.fixture
def nets(ckpt: Run, folder: Path) -> Run:
    (folder / "net.py").write_text(NETS)
    return ckpt


CASES: list[tuple[str, Groups, Saved]] = [
    ("adamw", in_groups, lightning),
    ("momentum", with_names, plain),
    *((name, all_alike, plain) for name in OPTIMIZERS),
    ("adam", with_names, lightning),
    ("adadelta", in_groups, mmengine),
]


@pytest.mark.parametrize(
    ("name", "groups", "saved"),
    CASES[:2] if SHORT else CASES,
    ids=lambda it: it if isinstance(it, str) else it.__name__,
)
@pytest.mark.parametrize("words", [(), ("--check", "net.py:Without")], ids=["alone", "checked"])
def test_dropped_parameters_leave_the_optimizer_too(
    name: str, groups: Groups, saved: Saved, words: tuple[str, ...], nets: Run, folder: Path
) -> None:
    (old, optimizer), (other, expected) = two_runs(name, groups)
    legacy = name == "momentum"
    torch.save(
        saved(old, optimizer), folder / "run.ckpt", _use_new_zipfile_serialization=not legacy
    )
    ran = nets("rename", "run.ckpt", "--drop", "^aux", *words, "-o", "new.ckpt")
    assert (ran.code, ran.err) == (0, ""), ran
    assert "state of 4 parameters dropped" in ran.out
    run = torch.load(folder / "new.ckpt")
    assert same_values(run, saved(other, expected)), "the file of the run without the head"
    new = SPACE["Without"]()
    weights, state = parts(run)
    new.load_state_dict(weights, strict=True)
    resumed = OPTIMIZERS[name](groups(new))
    resumed.load_state_dict(state)
    for net, its in ((new, resumed), (other, expected)):
        train(net, its, range(BEFORE, BEFORE + AFTER))
    assert same_values(dict(new.state_dict()), dict(other.state_dict()))


def test_drop_on_the_way_to_a_class_with_another_order(nets: Run, folder: Path) -> None:
    (old, optimizer), (other, expected) = two_runs("adamw", in_groups)
    torch.save(lightning(old, optimizer), folder / "run.ckpt")
    words = ("rename", "run.ckpt", "--drop", "^aux", "--to", "net.py:Refactored")
    words += ("--rule", "^head->out")
    assert nets(*words, "-o", "new.ckpt").code == 0
    weights, state = parts(torch.load(folder / "new.ckpt"))
    new = SPACE["Refactored"]()
    new.load_state_dict(weights, strict=True)
    resumed = OPTIMIZERS["adamw"](in_groups(new))
    resumed.load_state_dict(state)
    for net, its in ((new, resumed), (other, expected)):
        train(net, its, range(BEFORE, BEFORE + AFTER))
    found = {key.replace("out.", "head."): it for key, it in new.state_dict().items()}
    assert all(torch.equal(found[key], it) for key, it in other.state_dict().items())


@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
def test_state_by_name_is_dropped_too(flat: bool, nets: Run, folder: Path) -> None:
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_optimizer_state_dict,
    )

    form = StateDictOptions(flatten_optimizer_state_dict=flat)

    def by_name(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        state = get_optimizer_state_dict(net, optimizer, options=form)
        return {"model": net.state_dict(), "optimizer": state}

    (old, optimizer), (other, expected) = two_runs("adamw", in_groups)
    torch.save(by_name(old, optimizer), folder / "run.pt")
    assert nets("rename", "run.pt", "--drop", "^aux", "-o", "new.pt").code == 0
    assert same_values(torch.load(folder / "new.pt"), by_name(other, expected))


def weighted(folder: Path) -> tuple[nn.Module, Any]:
    """A file of Lightning whose loss has a buffer of the shape of a bias."""
    _, (net, optimizer) = two_runs("adamw", all_alike)
    whole = SPACE["Weighted"]()
    whole.net.load_state_dict(net.state_dict())
    torch.save({**lightning(whole, optimizer)}, folder / "run.ckpt")
    return net, optimizer


def test_dropped_buffer_leaves_the_optimizer_as_it_is(nets: Run, folder: Path) -> None:
    net, optimizer = weighted(folder)
    words = ("rename", "run.ckpt", "--strip", "net.", "--drop", "^loss", "-o", "new.ckpt")
    ran = nets(*words)
    assert ran.code == 3
    assert "optimizer_states.0 has 6 parameters, the model has 7" in ran.err
    assert "--check NEW_DEF" in ran.err
    assert not (folder / "new.ckpt").exists()
    assert nets(*words, "--dry-run").code == 3
    assert nets(*words, "--check", "net.py:Without").code == 0
    assert same_values(torch.load(folder / "new.ckpt"), lightning(net, optimizer))
    assert nets(*words, "--drop-optimizer", "--force").code == 0
    without = {**lightning(net, optimizer), "optimizer_states": []}
    assert same_values(torch.load(folder / "new.ckpt"), without)
    assert nets(*words[:-1], "new.safetensors").code == 0, "which holds no optimizer"


def test_group_that_loses_all_its_parameters_is_refused(nets: Run, folder: Path) -> None:
    def apart(net: Any) -> Parameters:
        aux = [*net.aux.parameters()]
        return [{"params": aux}, {"params": [p for k, p in net.named_parameters() if k[0] != "a"]}]

    torch.manual_seed(0)
    net = SPACE["With"]()
    optimizer = OPTIMIZERS["adam"](apart(net))
    train(net, optimizer, range(2))
    torch.save(plain(net, optimizer), folder / "run.pt")
    words = ("rename", "run.pt", "--drop", "^aux", "-o", "new.pt")
    ran = nets(*words, "--check", "net.py:Without")
    assert ran.code == 3, ran
    assert not (folder / "new.pt").exists()


def test_lists_of_nothing_but_keys_lose_what_is_dropped(nets: Run, folder: Path) -> None:
    """Such as DeepSpeed's `param_shapes`, and the parameters that a trainer freezes."""

    def with_lists(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        keys = [key for key, _ in net.named_parameters()]
        shapes = {key: it.shape for key, it in net.named_parameters()}
        own = {key: key for key in keys}
        return {**plain(net, optimizer), "param_shapes": [shapes], "frozen": keys, "own": own}

    (old, optimizer), (other, expected) = two_runs("adam", all_alike)
    torch.save(with_lists(old, optimizer), folder / "run.pt")
    assert nets("rename", "run.pt", "--drop", "^aux", "-o", "new.pt").code == 0
    assert same_values(torch.load(folder / "new.pt"), with_lists(other, expected))


def test_version_is_dropped_from_with_its_optimizer(nets: Run, folder: Path) -> None:
    (old, optimizer), (other, expected) = two_runs("adam", all_alike)
    torch.save(lightning(old, optimizer), folder / "run.pt")
    assert nets("register", "run.pt").code == 0
    assert nets("rename", "run:v1", "--drop", "^aux").code == 0
    assert nets("export", "run:v2", "-o", "new.pt").code == 0
    assert same_values(torch.load(folder / "new.pt"), lightning(other, expected))


def test_drop_in_place_keeps_the_rest_of_the_file(nets: Run, folder: Path) -> None:
    (old, optimizer), (other, expected) = two_runs("adam", all_alike)
    torch.save(plain(old, optimizer), folder / "run.pt")
    assert nets("rename", "run.pt", "--drop", "^aux", "--in-place").code == 0
    assert same_values(torch.load(folder / "run.pt"), plain(other, expected))


class Config:
    """A class that is unknown to ckpt."""


def test_drop_beside_an_object_of_an_unknown_class_is_refused(nets: Run, folder: Path) -> None:
    (old, optimizer), (other, expected) = two_runs("adam", all_alike)
    torch.save({**plain(old, optimizer), "config": Config()}, folder / "run.pt")
    words = ("rename", "run.pt", "--drop", "^aux", "-o", "new.pt")
    ran = nets(*words)
    assert ran.code == 3
    assert "--drop-opaque" in ran.err
    assert not (folder / "new.pt").exists()
    assert nets(*words, "--drop-opaque").code == 0
    assert same_values(torch.load(folder / "new.pt"), plain(other, expected))


def test_command_that_a_diff_proposes_keeps_the_optimizer(nets: Run, folder: Path) -> None:
    (old, optimizer), (other, expected) = two_runs("adam", with_names)
    torch.save(lightning(old, optimizer), folder / "run.ckpt")
    said = nets("diff", "run.ckpt", "net.py:Without").out
    proposed = shlex.split(said.partition("To make it fit:  ckpt ")[2])
    assert proposed[:2] == ["rename", "run.ckpt"], said
    assert nets(*proposed, "-o", "new.ckpt").code == 0
    assert same_values(torch.load(folder / "new.ckpt"), lightning(other, expected))


def test_optimizer_in_a_file_of_its_own_loses_what_is_dropped(nets: Run, folder: Path) -> None:
    """The folder of transformers' Trainer, whose safetensors file has sorted keys."""
    (old, optimizer), (other, expected) = two_runs("adamw", in_groups)
    (folder / "run").mkdir()
    save_file(old.state_dict(), folder / "run" / "model.safetensors", metadata={"format": "pt"})
    torch.save(optimizer.state_dict(), folder / "run" / "optimizer.pt")
    words = ("rename", "run", "--drop", "^aux", "--check", "net.py:Without", "-o", "new")
    ran = nets(*words)
    assert ran.code == 0, ran
    assert "--from OLD_DEF" in ran.err
    assert not (folder / "new" / "optimizer.pt").exists()
    ran = nets(*words[:-1], "again", "--from", "net.py:With")
    assert (ran.code, ran.err) == (0, ""), ran
    assert same_values(torch.load(folder / "again" / "optimizer.pt"), expected.state_dict())
    found = load_file(folder / "again" / "model.safetensors")
    assert all(torch.equal(found[key], it) for key, it in other.state_dict().items())


def test_drop_has_no_undo(nets: Run, folder: Path) -> None:
    (old, optimizer), _ = two_runs("adam", all_alike)
    torch.save(lightning(old, optimizer), folder / "run.ckpt")
    words = ("rename", "run.ckpt", "--drop", "^aux", "--save-rules", "r.toml", "-o", "new.ckpt")
    assert nets(*words).code == 0
    ran = nets("rename", "new.ckpt", "--undo", "--rules", "r.toml", "-o", "back.ckpt")
    assert ran.code == 3
    assert "was dropped; the plan has no inverse" in ran.err


def test_second_name_of_a_tied_parameter_has_no_state_to_lose(nets: Run, folder: Path) -> None:
    """torch's optimizers have a tied parameter once, under its first name."""
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    net[2].weight = net[0].weight
    optimizer = OPTIMIZERS["adam"](net.parameters())
    net(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    torch.save(lightning(net, optimizer), folder / "run.ckpt")
    ran = nets("rename", "run.ckpt", "--drop", r"^2\.weight", "-o", "new.ckpt")
    assert (ran.code, ran.err) == (0, ""), ran
    new = torch.load(folder / "new.ckpt")
    assert same_values(new["optimizer_states"], [optimizer.state_dict()])
    assert [*new["state_dict"]] == ["0.weight", "0.bias", "1.weight", "1.bias", "2.bias"]
    ran = nets("rename", "run.ckpt", "--drop", r"^2\.", "-o", "newer.ckpt")
    assert "state of 1 parameter dropped" in ran.out
    assert [*torch.load(folder / "newer.ckpt")["optimizer_states"][0]["state"]] == [0, 1, 2, 3]
