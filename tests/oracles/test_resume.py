"""Training goes on after a rename as if nothing had been renamed; torch is the oracle.

Train some steps, refactor the class, rename the file `--to` the new class, train on: every weight
equals bit by bit that of a run that kept the old class.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import cross_entropy, relu

from tests.cli.support import Run
from tests.effort import SHORT

NETS = '''
from safetensors.torch import load_file, save_file
from torch import nn

class Old(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleDict({"first": nn.Linear(6, 6), "second": nn.Linear(6, 6)})
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 3)

class New(nn.Module):
    """The same network: renamed, and its parameters in another order."""
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.norm = nn.BatchNorm1d(6)
        self.trunk = nn.ModuleDict({"second": nn.Linear(6, 6), "first": nn.Linear(6, 6)})
'''
NEW_KEYS = {"encoder": "trunk", "norm": "norm", "head": "head"}
BEFORE, AFTER = 5, 5  # steps

Parameters = Iterable[Any]
Make = Callable[[Parameters], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "momentum": lambda it: torch.optim.SGD(it, 0.1, momentum=0.9),
    "adam": lambda it: torch.optim.Adam(it, 0.01),
    "adamw": lambda it: torch.optim.AdamW(it, 0.01, amsgrad=True),
    "adadelta": lambda it: torch.optim.Adadelta(it, 1.0),
    "adafactor": lambda it: torch.optim.Adafactor(it, 0.05),
    "rmsprop": lambda it: torch.optim.RMSprop(it, 0.01, momentum=0.9, centered=True),
}


def classes() -> tuple[type[nn.Module], type[nn.Module]]:
    space: dict[str, Any] = {}
    exec(NETS, space)
    return space["Old"], space["New"]


def forward(net: Any, images: torch.Tensor) -> torch.Tensor:
    layers = net.encoder if hasattr(net, "encoder") else net.trunk
    hidden = net.norm(relu(layers["first"](images)))
    out: torch.Tensor = net.head(relu(layers["second"](hidden)))
    return out


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(16, 6, generator=generator)
        labels = torch.randint(0, 3, (16,), generator=generator)
        optimizer.zero_grad()
        cross_entropy(forward(net, images), labels).backward()
        optimizer.step()


def all_alike(net: nn.Module) -> Parameters:
    return net.parameters()


def with_names(net: nn.Module) -> Parameters:
    return net.named_parameters()


def in_groups(net: nn.Module) -> Parameters:
    """Weights decay, others do not, as nearly everybody has it."""
    weights = [it for it in net.parameters() if it.ndim > 1]
    others = [it for it in net.parameters() if it.ndim < 2]
    return [{"params": weights, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]


def in_named_groups(net: nn.Module) -> Parameters:
    """Groups whose shapes do not tell the layers apart; their names do."""
    named = dict(net.named_parameters())
    slow = [key for key in named if "second" in key]
    return [
        {"params": [(key, named[key]) for key in slow], "lr": 0.003},
        {"params": [(key, it) for key, it in named.items() if key not in slow]},
    ]


def plain(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {"epoch": 3, "model": net.state_dict(), "optimizer": optimizer.state_dict()}


def lightning(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {
        "pytorch-lightning_version": "2.4.0",
        "state_dict": net.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "callbacks": {"best": {"score": torch.tensor(0.5)}},
    }


def parts(checkpoint: dict[str, Any]) -> tuple[Any, Any]:
    if "model" in checkpoint:
        return checkpoint["model"], checkpoint["optimizer"]
    return checkpoint["state_dict"], checkpoint["optimizer_states"][0]


def first_part(make: Make, groups: Callable[[nn.Module], Parameters]) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    net = classes()[0]()
    optimizer = make(groups(net))
    train(net, optimizer, range(BEFORE))
    return net, optimizer


def resumed(path: Path, make: Make, groups: Callable[[nn.Module], Parameters]) -> nn.Module:
    """The new class, trained on from a file."""
    weights, state = parts(torch.load(path))
    net = classes()[1]()
    net.load_state_dict(weights, strict=True)
    optimizer = make(groups(net))
    optimizer.load_state_dict(state)
    train(net, optimizer, range(BEFORE, BEFORE + AFTER))
    return net


def same_weights(new: nn.Module, old: nn.Module) -> bool:
    found = new.state_dict()
    return all(torch.equal(found[new_key(key)], it) for key, it in old.state_dict().items())


def new_key(key: str) -> str:
    module, _, rest = key.partition(".")
    return f"{NEW_KEYS[module]}.{rest}"


CASES = [
    *((name, all_alike, plain) for name in OPTIMIZERS),
    *((name, in_groups, plain) for name in ("momentum", "adamw")),
    ("adam", with_names, plain),
    ("adam", in_named_groups, plain),
    ("adamw", in_groups, lightning),
]


@pytest.fixture
def nets(ckpt: Run, folder: Path) -> Run:
    (folder / "net.py").write_text(NETS)
    return ckpt


@pytest.mark.parametrize(
    ("name", "groups", "saved"),
    CASES[1::3] if SHORT else CASES,
    ids=lambda it: it if isinstance(it, str) else it.__name__,
)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_training_goes_on_as_if_nothing_was_renamed(
    name: str,
    groups: Callable[[nn.Module], Parameters],
    saved: Callable[..., dict[str, Any]],
    legacy: bool,
    nets: Run,
    folder: Path,
) -> None:
    make = OPTIMIZERS[name]
    old, optimizer = first_part(make, groups)
    checkpoint = saved(old, optimizer)
    torch.save(checkpoint, folder / "run.pt", _use_new_zipfile_serialization=not legacy)
    ran = nets("rename", "run.pt", "--to", "net.py:New", "-o", "new.pt", "--save-rules", "r.toml")
    assert ran.code == 0, ran
    assert "state of 8 parameters moved to the new order" in ran.out
    train(old, optimizer, range(BEFORE, BEFORE + AFTER))
    assert same_weights(resumed(folder / "new.pt", make, groups), old)
    to_old = ("--to", "net.py:Old")
    for words in (("--undo", "--rules", "r.toml"), to_old, ("--from", "net.py:New", *to_old)):
        assert nets("rename", "new.pt", *words, "-o", "back.pt", "--force").code == 0
        assert (folder / "back.pt").read_bytes() == (folder / "run.pt").read_bytes()


def test_version_is_renamed_with_its_optimizer_and_back(nets: Run, folder: Path) -> None:
    old, optimizer = first_part(OPTIMIZERS["adam"], all_alike)
    torch.save(plain(old, optimizer), folder / "run.pt")
    assert nets("register", "run.pt").code == 0
    assert nets("rename", "run:v1", "--to", "net.py:New").code == 0
    assert nets("export", "run:v2", "-o", "new.pt").code == 0
    train(old, optimizer, range(BEFORE, BEFORE + AFTER))
    assert same_weights(resumed(folder / "new.pt", OPTIMIZERS["adam"], all_alike), old)
    assert nets("rename", "run:v2", "--undo", "-o", "back.pt").code == 0
    assert str(torch.load(folder / "back.pt")) == str(torch.load(folder / "run.pt"))


def unknown_groups(net: nn.Module) -> Parameters:
    """The second layer first; nothing in the file says so."""
    named = dict(net.named_parameters())
    slow = [it for key, it in named.items() if "second" in key]
    return [{"params": slow}, {"params": [it for k, it in named.items() if "second" not in k]}]


def test_optimizer_that_cannot_follow_is_refused_or_dropped(nets: Run, folder: Path) -> None:
    torch.save(plain(*first_part(OPTIMIZERS["adam"], unknown_groups)), folder / "run.pt")
    words = ("rename", "run.pt", "--to", "net.py:New", "-o", "new.pt")
    ran = nets(*words)
    assert ran.code == 3
    assert "the groups of optimizer may hold its parameters in several ways" in ran.err
    assert "--drop-optimizer" in ran.err
    assert not (folder / "new.pt").exists()
    ran = nets(*words, "--drop-optimizer")
    assert ran.code == 0, ran
    assert "not written: optimizer" in ran.err
    made = torch.load(folder / "new.pt")
    assert {*made} == {"epoch", "model"}
    classes()[1]().load_state_dict(made["model"], strict=True)


def expect_old_class_is_asked_for(
    nets: Run, folder: Path, old: nn.Module, optimizer: torch.optim.Optimizer, why: str
) -> None:
    """The order of `run.pt` is not known, and with the old class the run goes on as it would."""
    words = ("rename", "run.pt", "--to", "net.py:New", "-o", "new.pt")
    ran = nets(*words)
    assert ran.code == 3
    assert why in ran.err
    assert "--from OLD_DEF" in ran.err
    assert nets(*words, "--from", "net.py:Old").code == 0
    train(old, optimizer, range(BEFORE, BEFORE + AFTER))
    assert same_weights(resumed(folder / "new.pt", OPTIMIZERS["adam"], all_alike), old)


def test_order_of_a_file_that_was_sorted_is_taken_from_the_old_class(
    nets: Run, folder: Path
) -> None:
    old, optimizer = first_part(OPTIMIZERS["adam"], all_alike)
    state = OrderedDict(sorted(old.state_dict().items(), reverse=True))
    state._metadata = old.state_dict()._metadata  # type: ignore[attr-defined]
    torch.save({"model": state, "optimizer": optimizer.state_dict()}, folder / "run.pt")
    same = ("--rule", "encoder=encode", "--rule", "encode=encoder", "--check", "net.py:Old")
    assert nets("rename", "run.pt", *same).code == 3, "not even the same class is sure"
    why = "the keys of the file do not have the order of its class"
    expect_old_class_is_asked_for(nets, folder, old, optimizer, why)


@pytest.mark.parametrize("through", [False, True], ids=["sorted", "safetensors"])
def test_sorted_keys_without_versions_of_modules_do_not_tell_the_order(
    through: bool, nets: Run, folder: Path
) -> None:
    old, optimizer = first_part(OPTIMIZERS["adam"], all_alike)
    state = dict(sorted(old.state_dict().items()))
    if through:
        save_file(state, folder / "run.safetensors")
        state = load_file(folder / "run.safetensors")
        assert [*state] != sorted(state), "the keys of each dtype are sorted"
    torch.save({"model": state, "optimizer": optimizer.state_dict()}, folder / "run.pt")
    why = "the keys of the file are sorted"
    expect_old_class_is_asked_for(nets, folder, old, optimizer, why)


def test_optimizer_in_the_right_order_stays_as_it_is(nets: Run, folder: Path) -> None:
    torch.save(plain(*first_part(OPTIMIZERS["adam"], unknown_groups)), folder / "run.pt")
    ran = nets("rename", "run.pt", "--rule", "encoder=encode", "--rule", "encode=encoder",
               "--check", "net.py:Old", "-o", "new.pt")  # fmt: skip
    assert ran.code == 0, ran
    assert "moved" not in ran.out


REMARK = "optimizer keeps its order; --check DEF  compares it with the new class\n"
RULE = ("rename", "run.pt", "--rule", "encoder=trunk")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (RULE, REMARK),
        ((*RULE, "--dry-run"), REMARK),
        ((*RULE, "-q"), ""),
        ((*RULE, "--check", "net.py:Renamed"), ""),
        ((*RULE, "--drop-optimizer"), "not written: optimizer\n"),
        (("rename", "run.pt", "--add", "net."), ""),
    ],
    ids=["rule", "dry", "quiet", "check", "drop", "prefix"],
)
def test_rename_without_a_definition_says_that_the_order_was_not_compared(
    words: tuple[str, ...],
    said: str,
    nets: Run,
    folder: Path,
) -> None:
    (folder / "net.py").write_text(
        NETS + NETS.replace("encoder", "trunk").replace("Old", "Renamed")
    )
    torch.save(plain(*first_part(OPTIMIZERS["adam"], all_alike)), folder / "run.pt")
    ran = nets(*words)
    assert (ran.code, ran.err) == (0, said)


def test_rename_into_a_container_without_optimizers_says_nothing_of_their_order(
    nets: Run, folder: Path
) -> None:
    torch.save(plain(*first_part(OPTIMIZERS["adam"], all_alike)), folder / "run.pt")
    assert nets(*RULE, "-o", "new.safetensors").err == ""


def test_optimizer_of_another_network_in_the_file_is_left_alone(nets: Run, folder: Path) -> None:
    old, optimizer = first_part(OPTIMIZERS["adam"], all_alike)
    critic = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    other = torch.optim.Adam(critic.parameters())
    critic(torch.ones(1, 3)).sum().backward()
    other.step()
    run = {"model": old.state_dict(), "critic": critic.state_dict(),
           "critic_optimizer": other.state_dict(), "optimizer": optimizer.state_dict()}  # fmt: skip
    torch.save(run, folder / "run.pt")
    ran = nets("rename", "run.pt::model", "--to", "net.py:New", "-o", "new.pt")
    assert ran.code == 0, ran
    assert str(torch.load(folder / "new.pt")["critic_optimizer"]) == str(other.state_dict())
    train(old, optimizer, range(BEFORE, BEFORE + AFTER))
    assert same_weights(resumed(folder / "new.pt", OPTIMIZERS["adam"], all_alike), old)


def shadow(net: nn.Module) -> dict[str, Any]:
    """As torch_ema saves its averages."""
    return {"decay": 0.9, "shadow_params": [it.detach() / 2 for it in net.parameters()]}


def masters(net: nn.Module) -> list[Any]:
    """As apex saves the weights in full precision, by groups."""
    groups: Any = in_groups(net)
    return [[it.detach().double() for it in group["params"]] for group in groups]


def by_number(net: nn.Module) -> dict[int, Any]:
    return {number: {"slow": it.detach()} for number, it in enumerate(net.parameters())}


@pytest.mark.parametrize(
    ("more", "path"),
    [(shadow, "more.shadow_params.*"), (masters, "more.*.*"), (by_number, "more.*.slow")],
)
@pytest.mark.parametrize("drop", [(), ("--drop-optimizer",)], ids=["optimizer", "without"])
def test_tensors_by_the_places_of_parameters_are_not_handed_on_in_the_old_order(
    drop: tuple[str, ...], more: Callable[[nn.Module], Any], path: str, nets: Run, folder: Path
) -> None:
    """Where the layers have one shape, whoever reads them back would not notice."""
    old, optimizer = first_part(OPTIMIZERS["adam"], all_alike)
    torch.save({**plain(old, optimizer), "more": more(old)}, folder / "run.pt")
    words = ("rename", "run.pt", "--to", "net.py:New", *drop)
    for out in ((), ("-o", "new.pt"), ("--dry-run",)):
        ran = nets(*words, *out)
        assert ran.code == 3, ran
        assert f"run.pt: {path} holds tensors by the places of the parameters" in ran.err
    assert nets(*words, "-o", "weights.safetensors").code == 0
    assert nets("rename", "run.pt", "--drop", "^head", *drop, "-o", "new.pt").code == 3
    ran = nets("rename", "run.pt", "--rule", "encoder=trunk", *drop, "-o", "new.pt")
    assert ran.code == 0, "the order stays, as far as the rules tell"
    assert (f"{path} keep" in ran.err) != bool(drop)
    (folder / "same.py").write_text(NETS.replace("self.encoder", "self.trunk"))
    words = ("rename", "run.pt", "--to", "same.py:Old", *drop, "-o", "same.pt")
    assert nets(*words).code == 0


def test_operation_on_an_average_needs_no_optimizer(nets: Run, folder: Path) -> None:
    old, optimizer = first_part(OPTIMIZERS["adam"], all_alike)
    torch.save({**plain(old, optimizer), "ema": old.state_dict()}, folder / "run.pt")
    (folder / "r.toml").write_text('[[rules]]\ntranspose = "head.weight"\n')
    assert nets("rename", "run.pt::ema", "--rules", "r.toml", "-o", "ema.pt").code == 0


@pytest.mark.parametrize(
    "words",
    [("--to", "net.py:New"), ("--rule", "encoder->trunk", "--check", "net.py:New")],
    ids=["to", "rule"],
)
@pytest.mark.parametrize("groups", [all_alike, in_groups], ids=lambda it: it.__name__)
@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
def test_state_by_name_follows_and_training_goes_on(
    flat: bool,
    groups: Callable[[nn.Module], Parameters],
    words: tuple[str, ...],
    nets: Run,
    folder: Path,
) -> None:
    """The form of FSDP and of `torch.distributed.checkpoint`."""
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )

    make = OPTIMIZERS["adamw"]
    old, optimizer = first_part(make, groups)
    form = StateDictOptions(flatten_optimizer_state_dict=flat)
    by_name = get_optimizer_state_dict(old, optimizer, options=form)
    assert ("state.head.weight.exp_avg" if flat else "state") in by_name
    torch.save({"model": old.state_dict(), "optimizer": by_name}, folder / "run.pt")
    ran = nets("rename", "run.pt", *words, "-o", "new.pt")
    assert (ran.code, ran.err) == (0, ""), ran
    assert "also renamed in optimizer" in ran.out
    run = torch.load(folder / "new.pt")
    new = classes()[1]()
    new.load_state_dict(run["model"], strict=True)
    after = make(groups(new))
    set_optimizer_state_dict(new, after, run["optimizer"], options=form)
    train(old, optimizer, range(BEFORE, BEFORE + AFTER))
    train(new, after, range(BEFORE, BEFORE + AFTER))
    assert same_weights(new, old)


def trainer_folder(folder: Path, weights: str, optimizer_name: str) -> tuple[nn.Module, Any]:
    """What transformers' Trainer and accelerate save."""
    old, optimizer = first_part(OPTIMIZERS["adamw"], in_groups)
    folder.mkdir()
    if weights.endswith(".safetensors"):
        save_file(old.state_dict(), folder / weights, metadata={"format": "pt"})
    else:
        torch.save(old.state_dict(), folder / weights)
    torch.save(optimizer.state_dict(), folder / optimizer_name)
    torch.save({"last_epoch": 1}, folder / "scheduler.pt")
    (folder / "trainer_state.json").write_text("{}")
    return old, optimizer


FOLDERS = [("model.safetensors", "optimizer.pt"), ("pytorch_model.bin", "optimizer.bin")]


@pytest.mark.parametrize(("weights", "name"), FOLDERS)
@pytest.mark.parametrize("goal", ["--to", "--check"])
def test_optimizer_in_a_file_of_its_own_follows_into_a_new_folder(
    goal: str, weights: str, name: str, nets: Run, folder: Path
) -> None:
    old, optimizer = trainer_folder(folder / "run", weights, name)
    rule = ("--rule", "encoder=trunk") if goal == "--check" else ()
    words = ("rename", "run", *rule, goal, "net.py:New", "--from", "net.py:Old")
    ran = nets(*words, "-o", "new")
    assert (ran.code, ran.err) == (0, ""), ran
    assert f"{name} in the order of the new class" in ran.out
    assert {*os.listdir(folder / "new")} == {*os.listdir(folder / "run")}
    same = (folder / "run" / "scheduler.pt").read_bytes()
    assert (folder / "new" / "scheduler.pt").read_bytes() == same
    found = folder / "new" / weights
    state = load_file(found) if found.suffix == ".safetensors" else torch.load(found)
    new = classes()[1]()
    new.load_state_dict(state, strict=True)
    after = OPTIMIZERS["adamw"](in_groups(new))
    after.load_state_dict(torch.load(folder / "new" / name))
    train(old, optimizer, range(BEFORE, BEFORE + AFTER))
    train(new, after, range(BEFORE, BEFORE + AFTER))
    assert same_weights(new, old)
    back = ("--to", "net.py:Old", "--from", "net.py:New")
    assert nets("rename", "new", *back, "-o", "back").code == 0
    expect_same_state(folder / "back" / name, folder / "run" / name)


def expect_same_state(one: Path, other: Path) -> None:
    """The state of two optimizers as torch loads it for one class."""
    found = []
    for path in (one, other):
        optimizer = OPTIMIZERS["adamw"](in_groups(classes()[0]()))
        optimizer.load_state_dict(torch.load(path))
        found.append(str(optimizer.state_dict()))
    assert found[0] == found[1]


@pytest.mark.parametrize(("weights", "name"), FOLDERS)
def test_optimizer_in_a_file_of_its_own_is_not_handed_on_in_its_old_order(
    weights: str, name: str, nets: Run, folder: Path
) -> None:
    trainer_folder(folder / "run", weights, name)
    ran = nets("rename", "run", "--rule", "encoder=trunk", "-o", "new")
    assert ran.code == 0, ran
    assert {*os.listdir(folder / "new")} == {weights, "trainer_state.json"}
    assert f"not written (the new file cannot hold it): {name}, scheduler.pt" in ran.out
    wrapped = nets("rename", f"run/{weights}", "--add", "net.", "--in-place")
    assert (wrapped.code, wrapped.err) == (0, ""), "the class is the same"
    remark = f"{name} stays as it is; the new class may not have its order of parameters\n"
    before = (folder / "run" / name).read_bytes()
    ran = nets("rename", f"run/{weights}", "--strip", "net.", "--to", "net.py:New", "--in-place")
    assert (ran.code, ran.err) == (0, remark)
    assert (folder / "run" / name).read_bytes() == before
    new = OPTIMIZERS["adamw"](in_groups(classes()[1]()))
    new.load_state_dict(torch.load(folder / "run" / name))
    head = new.param_groups[0]["params"][0]
    assert new.state[head]["exp_avg"].shape != head.shape, "torch does not notice: the remark must"


def test_optimizer_in_a_file_of_its_own_that_cannot_follow_is_not_written(
    nets: Run, folder: Path
) -> None:
    trainer_folder(folder / "run", "model.safetensors", "optimizer.pt")
    ran = nets("rename", "run", "--to", "net.py:New", "-o", "new")
    assert ran.code == 0, ran
    assert {*os.listdir(folder / "new")} == {"model.safetensors", "trainer_state.json"}
    why = "no optimizer is written: cannot tell which parameter the optimizer's state belongs to: "
    assert why + "safetensors files do not keep the order of their class" in ran.err
    assert "--from OLD_DEF" in ran.err
    torch.save({}, folder / "run" / "optimizer.pt")
    words = ("rename", "run", "--to", "net.py:New", "--from", "net.py:Old")
    ran = nets(*words, "-o", "again")
    assert ran.code == 0, ran
    assert "no optimizer is written: " in ran.err
    assert {*os.listdir(folder / "again")} == {"model.safetensors", "trainer_state.json"}
    ran = nets(*words, "-o", "weights.safetensors")
    assert (ran.code, "optimizer is written" in ran.err) == (0, False)
