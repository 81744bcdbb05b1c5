"""Training goes on from a renamed folder of torch.distributed.checkpoint; torch is the oracle.

As in `test_resume`: the refactored class, loaded from the renamed folder by torch's own functions,
trains on to the same weights, bit for bit.
"""

import os
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)

from tests.cli.support import Run
from tests.effort import PATIENCE, long_pairs
from tests.oracles.test_resume import (
    AFTER,
    BEFORE,
    NETS,
    OPTIMIZERS,
    Parameters,
    all_alike,
    classes,
    first_part,
    in_groups,
    new_key,
    same_weights,
    train,
)

Groups = Callable[[nn.Module], Parameters]


@pytest.fixture
def nets(ckpt: Run, folder: Path) -> Iterator[Run]:
    (folder / "net.py").write_text(NETS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, that nothing is distributed here
        yield ckpt


def save(net: nn.Module, optimizer: Any, folder: Path, *, flat: bool = False) -> None:
    form = StateDictOptions(flatten_optimizer_state_dict=flat)
    model, state = get_state_dict(net, optimizer, options=form)
    dcp.save({"model": model, "optimizer": state, "epoch": 3}, checkpoint_id=folder)


def loaded(folder: Path, name: str, groups: Groups, *, flat: bool = False) -> tuple[nn.Module, Any]:
    """The new class and its optimizer, from a folder."""
    net = classes()[1]()
    optimizer = OPTIMIZERS[name](groups(net))
    form = StateDictOptions(flatten_optimizer_state_dict=flat)
    model, state = get_state_dict(net, optimizer, options=form)
    whole = {"model": model, "optimizer": state}
    dcp.load(whole, checkpoint_id=folder)
    set_state_dict(
        net,
        optimizer,
        model_state_dict=whole["model"],
        optim_state_dict=whole["optimizer"],
        options=form,
    )
    return net, optimizer


WORDS = {
    "to": ("run", "--to", "net.py:New"),
    "all": ("run::model", "--to", "net.py:New", "--all"),
    "rule": ("run", "--rule", "encoder=trunk"),
}


@pytest.mark.parametrize(
    ("form", "way"),
    long_pairs([("nested", "to"), ("flat", "all"), ("nested", "rule")], ["nested", "flat"], WORDS),
)
@pytest.mark.parametrize(("name", "groups"), [("adamw", in_groups), ("momentum", all_alike)])
def test_folder_is_renamed_with_its_optimizer(
    name: str, groups: Groups, form: str, way: str, nets: Run, folder: Path
) -> None:
    words, flat = WORDS[way], form == "flat"
    old, optimizer = first_part(OPTIMIZERS[name], groups)
    save(old, optimizer, folder / "run", flat=flat)
    before = {path.name: path.read_bytes() for path in (folder / "run").iterdir()}
    ran = nets("rename", *words, "-o", "new")
    assert (ran.code, ran.err) == (0, ""), ran
    new, after = loaded(folder / "new", name, groups, flat=flat)
    train(old, optimizer, range(BEFORE, BEFORE + AFTER))
    train(new, after, range(BEFORE, BEFORE + AFTER))
    assert same_weights(new, old)
    assert {path.name: path.read_bytes() for path in (folder / "run").iterdir()} == before
    assert nets("rename", "new", "--to", "net.py:Old", "-o", "back").code == 0
    data = next(name for name in before if name.endswith(".distcp"))
    assert (folder / "back" / data).read_bytes() == before[data], "the lists of names, too"
    assert nets("diff", "run", "back", "--values").code == 0


def test_deeper_name_keeps_the_nesting_of_the_state(nets: Run, folder: Path) -> None:
    """A tool that reads the folder without a model finds the state where torch would have it."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    save(*first_part(OPTIMIZERS["adamw"], in_groups), folder / "run")
    words = ("rename", "run::model", "--all", "--rule", "encoder=deep.er.trunk")
    assert nets(*words, "-o", "new").code == 0
    dcp_to_torch_save(folder / "new", folder / "new.pt")
    state = torch.load(folder / "new.pt", weights_only=False)["optimizer"]
    assert {*state["state"]["deep.er.trunk.first.weight"]} == {
        *("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    }
    assert state["param_groups"][0]["params"][0] == "deep.er.trunk.first.weight"


def test_nested_state_of_a_parameter_follows(nets: Run, folder: Path) -> None:
    """Its keys have more dots after the parameter, as those of Shampoo."""
    old, optimizer = first_part(OPTIMIZERS["adamw"], in_groups)
    for parameter in old.parameters():
        optimizer.state[parameter]["factors"] = [torch.ones(2), torch.ones(3)]
    save(old, optimizer, folder / "run")
    assert nets("rename", "run", "--to", "net.py:New", "-o", "new").code == 0
    before, after = (
        dcp.FileSystemReader(folder / name).read_metadata().state_dict_metadata
        for name in ("run", "new")
    )
    assert "optimizer.state.encoder.first.weight.factors.1" in before
    assert {key.replace("encoder", "trunk") for key in before} == {*after}


def test_copy_follows_too(nets: Run, folder: Path) -> None:
    old, _ = first_part(OPTIMIZERS["adamw"], in_groups)
    run = {
        "model": old.state_dict(),
        "ema": {f"module.{k}": v for k, v in old.state_dict().items()},
    }
    dcp.save(run, checkpoint_id=folder / "run")
    ran = nets("rename", "run::model", "--rule", "encoder=trunk", "--all", "-o", "new")
    assert ran.code == 0, ran
    assert "also renamed in ema" in ran.out
    new = {key.replace("encoder", "trunk"): it for key, it in old.state_dict().items()}
    found = {"ema": {f"module.{key}": torch.zeros_like(it) for key, it in new.items()}}
    dcp.load(found, checkpoint_id=folder / "new")
    assert all(torch.equal(found["ema"][f"module.{key}"], it) for key, it in new.items())


def test_part_of_a_folder_says_what_keeps_the_old_names(nets: Run, folder: Path) -> None:
    save(*first_part(OPTIMIZERS["adamw"], in_groups), folder / "run", flat=True)
    ran = nets("rename", "run::model", "--to", "net.py:New", "-o", "new")
    assert ran.code == 0
    kept = "not renamed in optimizer.state, optimizer.param_groups, which have the old keys; --all"
    assert kept in ran.out


def test_state_that_would_lose_its_parameter_is_refused(nets: Run, folder: Path) -> None:
    save(*first_part(OPTIMIZERS["adamw"], in_groups), folder / "run")
    ran = nets("rename", "run", "--rule", "^model.encoder=model.trunk", "-o", "new")
    assert ran.code == 3
    assert "to take the optimizer along:  ckpt rename run::model --all" in ran.err
    assert not (folder / "new").exists()
    words = ("rename", "run", "--rule", "^model.encoder=model.trunk", "--dry-run")
    assert nets(*words).code == 3


def test_version_of_a_whole_folder_is_refused(nets: Run, folder: Path) -> None:
    save(*first_part(OPTIMIZERS["adamw"], in_groups), folder / "run")
    assert nets("register", "run").code == 0
    ran = nets("rename", "run:v1", "--to", "net.py:New")
    assert ran.code == 3
    assert "ckpt export run:v1 -o DIR  and rename DIR::model --all" in ran.err
    assert "To make it fit" not in nets("diff", "run:v1", "net.py:New").out


@pytest.mark.parametrize("ref", ["run", "run::model"])
def test_command_that_a_diff_proposes_keeps_the_optimizer(
    ref: str, nets: Run, folder: Path
) -> None:
    old, optimizer = first_part(OPTIMIZERS["adamw"], in_groups)
    save(old, optimizer, folder / "run")
    said = nets("diff", ref, "net.py:New").out
    proposed = shlex.split(said.partition("To make it fit:  ckpt ")[2])
    assert proposed[:2] == ["rename", ref], said
    assert nets(*proposed, "-o", "new").code == 0
    new, after = loaded(folder / "new", "adamw", in_groups)
    train(old, optimizer, range(BEFORE, BEFORE + AFTER))
    train(new, after, range(BEFORE, BEFORE + AFTER))
    assert same_weights(new, old)


def test_numbered_parameters_in_a_folder_are_refused(nets: Run, folder: Path) -> None:
    old, optimizer = first_part(OPTIMIZERS["adamw"], in_groups)
    run = {"model": old.state_dict(), "optimizer": optimizer.state_dict()}
    dcp.save(run, checkpoint_id=folder / "run")
    words = ("rename", "run::model", "--to", "net.py:New")
    ran = nets(*words, "-o", "new")
    assert ran.code == 3
    assert "optimizer numbers its parameters" in ran.err
    assert "-o NEW.pt" in ran.err
    assert not (folder / "new").exists()
    assert nets(*words, "-o", "new.pt").code == 0
    classes()[1]().load_state_dict(torch.load(folder / "new.pt"), strict=True)
    ran = nets("rename", "run::model", "--rule", "encoder=trunk", "-o", "new")
    assert (ran.code, ran.err) == (0, "optimizer keeps its order; --check DEF  compares it with "
                                      "the new class\n")  # fmt: skip
    ran = nets("rename", "run::model", "--rule", "first<->second", "-o", "swapped")
    assert (ran.code, "may have them in another order" in ran.err) == (3, True), ran


def test_optimizer_of_a_folder_is_dropped_by_name_alone(nets: Run, folder: Path) -> None:
    old, optimizer = first_part(OPTIMIZERS["adamw"], in_groups)
    save(old, optimizer, folder / "run")
    words = ("rename", "run", "--to", "net.py:New", "--drop-optimizer", "-o")
    for out in ("new", "new.pt"):
        ran = nets(*words, out)
        assert (ran.code, ran.err) == (0, "not written: optimizer\n"), ran
    net = classes()[1]()
    whole: dict[str, Any] = {"model": net.state_dict(), "epoch": 0}
    dcp.load(whole, checkpoint_id=folder / "new")
    net.load_state_dict(whole["model"])
    assert whole["epoch"] == 3
    assert same_weights(net, old)
    metadata = dcp.FileSystemReader(folder / "new").read_metadata()
    assert {key.partition(".")[0] for key in metadata.state_dict_metadata} == {"model", "epoch"}


@pytest.mark.parametrize("ref", ["run", "run::model"])
@pytest.mark.parametrize(
    "words",
    [("--drop", "head"), ("--rules", "r.toml"), ("--rules", "r.toml", "--dry-run")],
    ids=["drop", "operation", "dry"],
)
def test_rules_that_would_leave_the_optimizer_of_a_folder_behind_are_refused(
    words: tuple[str, ...], ref: str, nets: Run, folder: Path
) -> None:
    save(*first_part(OPTIMIZERS["adamw"], in_groups), folder / "run")
    (folder / "r.toml").write_text("[[rules]]\ntranspose = '^(model.)?head.weight$'\n")
    ran = nets("rename", ref, *words)
    assert ran.code == 3, ran
    assert "rules that make or drop tensors change the parameters of optimizer" in ran.err
    assert "to take optimizer along:  ckpt rename run::model --all" in ran.err
    assert "-o NEW.pt  writes the weights alone" in ran.err
    assert {*os.listdir(folder)} == {"run", "net.py", "r.toml"}
    asked = [word for word in words if word != "--dry-run"]
    assert nets("rename", "run::model", *asked, "-o", "new.pt").code == 0
    weights = torch.load(folder / "new.pt")
    assert ("head.weight" in weights) == ("--drop" not in words)


@pytest.mark.parametrize("inside", ["", "::optimizer"])
@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
def test_optimizer_in_a_folder_of_its_own(flat: bool, inside: str, nets: Run, folder: Path) -> None:
    """As accelerate saves a sharded run: one folder of weights, one of the optimizer."""
    old, optimizer = first_part(OPTIMIZERS["adamw"], in_groups)
    form = StateDictOptions(flatten_optimizer_state_dict=flat)
    model, state = get_state_dict(old, optimizer, options=form)
    dcp.save({"model": model}, checkpoint_id=folder / "weights")
    dcp.save({"optimizer": state}, checkpoint_id=folder / "optim")
    words = ("--rule", "encoder=trunk", "-o")
    assert nets("rename", "weights", *words, "new").code == 0
    ran = nets("rename", f"optim{inside}", *words, "newer")
    assert ran.code == 0, ran
    net = classes()[1]()
    after = OPTIMIZERS["adamw"](in_groups(net))
    model, state = get_state_dict(net, after, options=form)
    dcp.load({"model": model}, checkpoint_id=folder / "new")
    its = {"optimizer": state}
    dcp.load(its, checkpoint_id=folder / "newer")
    set_state_dict(
        net,
        after,
        model_state_dict=model,
        optim_state_dict=its["optimizer"],
        options=form,
    )
    train(old, optimizer, range(BEFORE, BEFORE + AFTER))
    train(net, after, range(BEFORE, BEFORE + AFTER))
    assert same_weights(net, old)


def test_version_of_a_folder_is_renamed_with_its_optimizer(nets: Run, folder: Path) -> None:
    old, optimizer = first_part(OPTIMIZERS["adamw"], in_groups)
    save(old, optimizer, folder / "run")
    assert nets("register", "run::model", "--name", "run").code == 0
    assert nets("rename", "run:v1", "--to", "net.py:New", "--all").code == 0
    assert nets("export", "run:v2", "-o", "new").code == 0
    new, after = loaded(folder / "new", "adamw", in_groups)
    train(old, optimizer, range(BEFORE, BEFORE + AFTER))
    train(new, after, range(BEFORE, BEFORE + AFTER))
    assert same_weights(new, old)


def in_two_processes(name: str, run: Path, out: Path) -> dict[str, torch.Tensor]:
    """The weights at the end of `train_sharded.py`."""
    script = Path(__file__).with_name("train_sharded.py")
    root = script.parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-W", "ignore", str(script), name, str(run)]
    rest = [str(out.with_suffix(".rendezvous")), str(out)]
    ranks = [subprocess.Popen([*words, str(rank), *rest], env=environment) for rank in range(2)]
    assert [process.wait(PATIENCE) for process in ranks] == [0, 0]
    weights: dict[str, torch.Tensor] = torch.load(out)
    return weights


@pytest.mark.long
def test_sharded_run_goes_on_in_two_processes(nets: Run, folder: Path) -> None:
    old = in_two_processes("Old", folder / "run", folder / "old.pt")
    ran = nets("rename", "run", "--to", "net.py:New", "-o", "new")
    assert (ran.code, ran.err) == (0, ""), ran
    new = in_two_processes("New", folder / "new", folder / "new.pt")
    # Each process has running averages of its own, of which torch saves one.
    trained = {key: it for key, it in old.items() if ".running_" not in key}
    assert all(torch.equal(new[new_key(key)], it) for key, it in trained.items())
