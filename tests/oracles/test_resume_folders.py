"""Training goes on from a folder of torch.distributed.checkpoint after operations and drops.

As in `test_resume_after_operations`, whose classes these are: torch's own functions load the folder
into the refactored class, and every weight ends equal, bit for bit.
"""

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
from tests.effort import SHORT, long_but
from tests.oracles.test_resume import AFTER, BEFORE
from tests.oracles.test_resume_after_drop import same_values
from tests.oracles.test_resume_after_operations import (
    ELEMENTWISE,
    NETS,
    REFUSED,
    RULES,
    SPACE,
    Groups,
    all_alike,
    first_part,
    in_groups,
    same_weights,
    train,
)
from tests.oracles.test_resume_distributed import in_two_processes

OPERATIONS = ("rename", "run::model", "--all", "--rules", "r.toml", "-o", "new")


@pytest.fixture
def nets(ckpt: Run, folder: Path) -> Iterator[Run]:
    (folder / "net.py").write_text(NETS)
    (folder / "r.toml").write_text(RULES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, that nothing is distributed here
        yield ckpt


def save(net: nn.Module, optimizer: Any, folder: Path, *, flat: bool = False) -> None:
    form = StateDictOptions(flatten_optimizer_state_dict=flat)
    model, state = get_state_dict(net, optimizer, options=form)
    ema = {f"module.{key}": 2 * it for key, it in model.items()}
    run = {"model": model, "ema": ema, "optimizer": state, "epoch": 3, "seen": torch.arange(4)}
    dcp.save(run, checkpoint_id=folder)


def loaded(
    net: nn.Module, make: Callable[..., Any], groups: Groups, folder: Path, *, flat: bool
) -> Any:
    """Load a net and its optimizer, which must be all there, from a folder."""
    optimizer = make(groups(net))
    form = StateDictOptions(flatten_optimizer_state_dict=flat)
    model, state = get_state_dict(net, optimizer, options=form)
    ema = {f"module.{key}": torch.zeros_like(it) for key, it in model.items()}
    run = {"model": model, "ema": ema, "optimizer": state, "epoch": 0, "seen": torch.zeros(4)}
    run["seen"] = torch.zeros(4, dtype=torch.int64)
    dcp.load(run, checkpoint_id=folder)
    assert run["epoch"] == 3
    assert torch.equal(run["seen"], torch.arange(4)), "all else is kept"
    assert all(torch.equal(ema[f"module.{key}"], 2 * it) for key, it in model.items())
    weights, values = run["model"], run["optimizer"]
    set_state_dict(net, optimizer, model_state_dict=weights, optim_state_dict=values, options=form)
    return optimizer


CASES: list[tuple[str, Groups]] = [
    ("adamw", in_groups),
    *((name, all_alike) for name in ELEMENTWISE),
]


@pytest.mark.parametrize(
    ("name", "groups"),
    CASES[:1] if SHORT else CASES,
    ids=lambda it: it if isinstance(it, str) else it.__name__,
)
@pytest.mark.parametrize("flat", long_but([True], [False, True]), ids=["nested", "flat"])
def test_state_in_a_folder_follows_its_elements(
    flat: bool, name: str, groups: Groups, nets: Run, folder: Path
) -> None:
    old, optimizer = first_part(name, groups)
    save(old, optimizer, folder / "run", flat=flat)
    ran = nets(*OPERATIONS, "--check", "net.py:New")
    assert (ran.code, ran.err) == (0, ""), ran
    assert "state of 17 parameters carried over to 17" in ran.out
    new = SPACE["New"]()
    resumed = loaded(new, ELEMENTWISE[name], groups, folder / "new", flat=flat)
    train(old, optimizer, range(BEFORE, BEFORE + AFTER))
    train(new, resumed, range(BEFORE, BEFORE + AFTER))
    assert same_weights(new, old)


def test_folder_after_operations_is_renamed_and_undone(nets: Run, folder: Path) -> None:
    """What ckpt has written it reads like a folder of torch."""
    old, optimizer = first_part("adam", all_alike)
    save(old, optimizer, folder / "run")
    assert nets(*OPERATIONS, "--save-rules", "s.toml").code == 0
    there = ("rename", "new::model", "--all", "--rule", "^v[.]=value.", "-o", "far")
    assert nets(*there).code == 0
    back = ("rename", "far::model", "--all", "--rule", "^value=v", "-o", "near")
    assert nets(*back).code == 0
    assert nets("diff", "new", "near", "--values", "--exit-code").code == 0
    undo = ("rename", "near::model", "--all", "--undo", "--rules", "s.toml", "-o", "again")
    assert nets(*undo).code == 0
    again = SPACE["Old"]()
    resumed = loaded(again, ELEMENTWISE["adam"], all_alike, folder / "again", flat=False)
    assert same_weights(again, old)
    assert same_values(resumed.state_dict(), optimizer.state_dict())


def test_version_of_a_folder_follows_operations(nets: Run, folder: Path) -> None:
    old, optimizer = first_part("adam", all_alike)
    save(old, optimizer, folder / "run")
    assert nets("register", "run::model", "--name", "run").code == 0
    words = ("rename", "run:v1", "--all", "--rules", "r.toml", "--check", "net.py:New")
    assert nets(*words, "--drop-optimizer").code == 2
    ran = nets(*words)
    assert ran.code == 0, ran
    assert nets("export", "run:v2", "-o", "new").code == 0
    new = SPACE["New"]()
    resumed = loaded(new, ELEMENTWISE["adam"], all_alike, folder / "new", flat=False)
    train(old, optimizer, range(BEFORE, BEFORE + AFTER))
    train(new, resumed, range(BEFORE, BEFORE + AFTER))
    assert same_weights(new, old)


@pytest.mark.parametrize(
    ("name", "flat"),
    [("steps", False), ("another state", True), ("a list", False), ("groups", True)],
)
def test_state_in_a_folder_that_cannot_follow_is_refused(
    name: str, flat: bool, nets: Run, folder: Path
) -> None:
    torch.manual_seed(0)
    net = SPACE["Old"]()
    make, why = REFUSED[name]
    optimizer = make(net)
    train(net, optimizer, range(2))
    save(net, optimizer, folder / "run", flat=flat)
    ran = nets(*OPERATIONS)
    assert ran.code == 3, ran
    if name == "a list":
        why = "before.0 of qkv.weight, of shape [18, 6], is not known to follow"
    assert "run::model: optimizer cannot follow: " in ran.err
    assert why.removeprefix("v.weight: ") in ran.err
    assert not (folder / "new").exists()
    ran = nets(*OPERATIONS, "--drop-optimizer")
    assert (ran.code, ran.err) == (0, "not written: optimizer\n"), ran


def test_drop_in_a_folder_takes_the_state_along(nets: Run, folder: Path) -> None:
    (folder / "less.py").write_text(NETS.replace("        self.patch = nn.Conv2d(2, 3, 1)\n", ""))
    old, optimizer = first_part("adamw", in_groups)
    save(old, optimizer, folder / "run")
    words = ("rename", "run", "--drop", "^patch", "--check", "less.py:Old", "-o", "new")
    ran = nets(*words)
    assert (ran.code, ran.err) == (0, ""), ran
    assert "state of 17 parameters carried over to 15" in ran.out
    space: dict[str, Any] = {}
    exec((folder / "less.py").read_text(), space)
    new = space["Old"]()
    resumed = loaded(new, ELEMENTWISE["adamw"], in_groups, folder / "new", flat=False)
    mine, theirs = dict(new.named_parameters()), dict(old.named_parameters())
    assert {*theirs} - {*mine} == {"patch.weight", "patch.bias"}
    for key, it in mine.items():
        assert torch.equal(it, theirs[key])
        assert same_values(resumed.state[it], optimizer.state[theirs[key]])
    size = sum(path.stat().st_size for path in (folder / "new").glob("*.distcp"))
    assert size < sum(path.stat().st_size for path in (folder / "run").glob("*.distcp"))


@pytest.mark.long
def test_sharded_run_goes_on_after_an_operation(nets: Run, folder: Path) -> None:
    rules = """
    [[rules]]
    concat = ['^encoder.first.weight', '^encoder.second.weight']
    into = 'both'
    [[rules]]
    rename = '^encoder.(first|second).bias->\\1'
    """
    (folder / "join.toml").write_text(rules)
    old = in_two_processes("Old", folder / "run", folder / "old.pt")
    ran = nets("rename", "run::model", "--all", "--rules", "join.toml", "-o", "new")
    assert (ran.code, ran.err) == (0, ""), ran
    new = in_two_processes("Joined", folder / "new", folder / "new.pt")
    expected = {
        "both": torch.cat([old["encoder.first.weight"], old["encoder.second.weight"]]),
        "first": old["encoder.first.bias"],
        "second": old["encoder.second.bias"],
        **{key: old[key] for key in old if key.startswith("head")},
    }
    assert all(torch.equal(new[key], it) for key, it in expected.items())


def test_damaged_source_of_an_operation_is_refused(nets: Run, folder: Path) -> None:
    """A new file with new checksums would hide it."""
    old, optimizer = first_part("adam", all_alike)
    save(old, optimizer, folder / "run")
    part = folder / "run" / "__0_0.distcp"
    data, weights = part.read_bytes(), old.state_dict()["qkv.weight"].numpy().tobytes()
    assert data.count(weights) == 1
    at = data.index(weights)
    part.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    ran = nets(*OPERATIONS)
    assert ran.code == 3, ran
    assert "is damaged: its CRC-32 is" in ran.err
    assert not (folder / "new").exists()
