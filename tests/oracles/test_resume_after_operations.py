"""Training goes on after operations as if the parameters had always been the new ones.

Train some steps, refactor the class (split, join, transpose, stack, reorder), let `ckpt` make the
new file, train on: every weight equals bit by bit that of a run that kept the old class. Both
classes put their parameters together to the same matrices and run the same arithmetic on these,
so that nothing but the state of the optimizer can differ.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.nn.functional import batch_norm, cross_entropy, linear

from tests.cli.support import Run
from tests.effort import SHORT
from tests.oracles.test_resume import AFTER, BEFORE, OPTIMIZERS, Parameters, with_names
from tests.oracles.test_resume_after_drop import lightning, plain, same_values

NETS = """
import torch
from torch import nn

class Expert(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(6, 6))

class Old(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(6, 18)
        self.up = nn.Linear(6, 4)
        self.gate = nn.Linear(6, 4)
        self.norm = nn.BatchNorm1d(6)
        self.proj = nn.Linear(6, 6)
        self.experts = nn.ModuleList([Expert() for _ in range(3)])
        self.patch = nn.Conv2d(2, 3, 1)
        self.head = nn.Linear(8, 3)

class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 6, 6))

class New(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(8, 3)
        self.v = nn.Linear(6, 6)
        self.q = nn.Linear(6, 6)
        self.experts = Experts()
        self.k = nn.Linear(6, 6)
        self.upgate = nn.Linear(6, 8)
        self.patch = nn.Linear(2, 3)
        self.norm = nn.BatchNorm1d(6)
        self.proj = nn.Linear(6, 6)
"""
RULES = r"""
[[rules]]
split = '^qkv'
into = ['q', 'k', 'v']
[[rules]]
concat = ['^up', '^gate']
into = 'upgate'
[[rules]]
transpose = '^proj\.weight'
[[rules]]
stack = '^experts\.(\d+)\.w'
into = 'experts.w'
[[rules]]
reshape = '^patch\.weight'
shape = [3, -1]
[[rules]]
rename = '^head->out'
"""
SPACE: dict[str, Any] = {}
exec(NETS, SPACE)
ELEMENTWISE: dict[str, Callable[[Parameters], torch.optim.Optimizer]] = {
    **{name: OPTIMIZERS[name] for name in ("momentum", "adam", "adamw", "adadelta", "rmsprop")},
    "adagrad": lambda it: torch.optim.Adagrad(it, 0.05),
    "adamax": lambda it: torch.optim.Adamax(it, 0.01),
    "asgd": lambda it: torch.optim.ASGD(it, 0.01),
    "nadam": lambda it: torch.optim.NAdam(it, 0.01),
    "radam": lambda it: torch.optim.RAdam(it, 0.01),
    "rprop": lambda it: torch.optim.Rprop(it, 0.01),
}
Groups = Callable[[nn.Module], Parameters]
Saved = Callable[[nn.Module, torch.optim.Optimizer], dict[str, Any]]


def matrices(net: Any) -> dict[str, torch.Tensor]:
    """The parameters in the form of the old class."""
    old = hasattr(net, "qkv")
    fused = [net.qkv] if old else [net.q, net.k, net.v]
    gated = [net.up, net.gate] if old else [net.upgate]
    head = net.head if old else net.out
    found = {
        "qkv.weight": torch.cat([it.weight for it in fused]),
        "qkv.bias": torch.cat([it.bias for it in fused]),
        "gated.weight": torch.cat([it.weight for it in gated]),
        "gated.bias": torch.cat([it.bias for it in gated]),
        "proj.weight": net.proj.weight if old else net.proj.weight.t().contiguous(),
        "experts": torch.stack([it.w for it in net.experts]) if old else net.experts.w,
        "patch.weight": net.patch.weight.reshape(3, 2),
    }
    rest = {"proj.bias": net.proj.bias, "patch.bias": net.patch.bias, "norm": net.norm.weight}
    shift = {"norm.bias": net.norm.bias, "head.weight": head.weight, "head.bias": head.bias}
    return found | rest | shift


def loss(net: Any, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    it = matrices(net)
    mean, variance = net.norm.running_mean, net.norm.running_var
    hidden = batch_norm(images, mean, variance, it["norm"], it["norm.bias"], net.training)
    q, k, v = linear(hidden, it["qkv.weight"], it["qkv.bias"]).chunk(3, -1)
    hidden = linear(q * k.sigmoid() + v, it["proj.weight"], it["proj.bias"])
    hidden = torch.einsum("bi,eio->bo", hidden, it["experts"])
    patches = linear(hidden.reshape(-1, 3, 2), it["patch.weight"], it["patch.bias"]).sum(1)
    gated = linear(hidden, it["gated.weight"], it["gated.bias"])
    out = linear(gated, it["head.weight"], it["head.bias"]) + patches
    return cross_entropy(out, labels)


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(16, 6, generator=generator)
        labels = torch.randint(0, 3, (16,), generator=generator)
        optimizer.zero_grad()
        loss(net, images, labels).backward()
        optimizer.step()


def same_weights(new: nn.Module, old: nn.Module) -> bool:
    one, other = matrices(new), matrices(old)
    return all(torch.equal(one[name], it) for name, it in other.items())


def all_alike(net: nn.Module) -> Parameters:
    return net.parameters()


def in_groups(net: nn.Module) -> Parameters:
    """Weights decay, others do not; a stack of matrices has more dimensions than one."""
    weights = [it for it in net.parameters() if it.ndim > 1]
    others = [it for it in net.parameters() if it.ndim < 2]
    return [{"params": weights, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]


def first_part(name: str, groups: Groups) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    net = SPACE["Old"]()
    optimizer = ELEMENTWISE[name](groups(net))
    train(net, optimizer, range(BEFORE))
    return net, optimizer


def goes_on(run: dict[str, Any], name: str, groups: Groups, old: nn.Module, optimizer: Any) -> None:
    """Both runs train on, the new class from the file, and end with the same weights."""
    new = SPACE["New"]()
    new.load_state_dict(run.get("model", run.get("state_dict")), strict=True)
    resumed = ELEMENTWISE[name](groups(new))
    resumed.load_state_dict(run.get("optimizer") or run["optimizer_states"][0])
    assert len(resumed.state) == len(list(new.parameters()))
    train(old, optimizer, range(BEFORE, BEFORE + AFTER))
    train(new, resumed, range(BEFORE, BEFORE + AFTER))
    assert same_weights(new, old)


@pytest.fixture
def nets(ckpt: Run, folder: Path) -> Run:
    (folder / "net.py").write_text(NETS)
    (folder / "r.toml").write_text(RULES)
    return ckpt


CASES: list[tuple[str, Groups, Saved]] = [
    ("adamw", in_groups, lightning),
    ("momentum", with_names, plain),
    *((name, all_alike, plain) for name in ELEMENTWISE),
    ("adam", with_names, lightning),
]


@pytest.mark.parametrize(
    ("name", "groups", "saved"),
    CASES[:2] if SHORT else CASES,
    ids=lambda it: it if isinstance(it, str) else it.__name__,
)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_state_follows_its_elements_and_training_goes_on(
    name: str, groups: Groups, saved: Saved, legacy: bool, nets: Run, folder: Path
) -> None:
    old, optimizer = first_part(name, groups)
    torch.save(saved(old, optimizer), folder / "run.pt", _use_new_zipfile_serialization=not legacy)
    ran = nets("rename", "run.pt", "--rules", "r.toml", "--check", "net.py:New", "-o", "new.pt")
    assert (ran.code, ran.err) == (0, ""), ran
    assert "fits net.py:New under" in ran.out
    assert "state of 17 parameters carried over to 17" in ran.out
    run = torch.load(folder / "new.pt")
    assert {*run} == {*saved(old, optimizer)}, "all else is kept"
    if saved is plain:
        weights = {f"module.{key}": it for key, it in run["model"].items()}
        assert same_values(dict(run["ema"]), weights), "an average gets the same operations"
    goes_on(run, name, groups, old, optimizer)


def test_result_is_renamed_again_by_the_order_of_its_keys(nets: Run, folder: Path) -> None:
    """Its numbers tell the parameters, as those of all files of ckpt: sorted, by its keys."""
    (folder / "again.py").write_text(
        NETS.replace("self.v =", "self.value =").replace("self.k =", "self.key =")
    )
    old, optimizer = first_part("adamw", in_groups)
    torch.save(plain(old, optimizer), folder / "run.pt")
    words = ("rename", "run.pt", "--rules", "r.toml", "--check", "net.py:New", "-o", "new.pt")
    assert nets(*words).code == 0
    there = ("--rule", "^v=value", "--rule", "^k=key", "--check", "again.py:New", "-o", "far.pt")
    assert nets("rename", "new.pt", *there).code == 0
    back = ("--rule", "^value=v", "--rule", "^key=k", "--check", "net.py:New", "-o", "back.pt")
    assert nets("rename", "far.pt", *back).code == 0
    goes_on(torch.load(folder / "back.pt"), "adamw", in_groups, old, optimizer)


def test_undo_gives_the_old_parameters_back(nets: Run, folder: Path) -> None:
    old, optimizer = first_part("adam", all_alike)
    torch.save(plain(old, optimizer), folder / "run.pt")
    words = ("rename", "run.pt", "--rules", "r.toml", "--check", "net.py:New", "-o", "new.pt")
    assert nets(*words, "--save-rules", "s.toml").code == 0
    words = ("rename", "new.pt", "--undo", "--rules", "s.toml", "-o", "back.pt")
    ran = nets(*words)
    assert (ran.code, ran.err) == (
        3,
        "error: new.pt::*: cannot tell which parameter the optimizer's state belongs to: the rules "
        "do not tell their order in the old class\n"
        "hint:  --check OLD_DEF  names the class from before the rename, which tells its "
        "parameters\n"
        "       --drop-optimizer  writes the file without its optimizer\n",
    )
    assert nets(*words, "--check", "net.py:Old").code == 0
    run = torch.load(folder / "back.pt")
    again = SPACE["Old"]()
    again.load_state_dict(run["model"], strict=True)
    resumed = ELEMENTWISE["adam"](again.parameters())
    resumed.load_state_dict(run["optimizer"])
    assert same_values(resumed.state_dict(), optimizer.state_dict())


def test_version_and_file_in_place_follow_too(nets: Run, folder: Path) -> None:
    old, optimizer = first_part("adam", all_alike)
    torch.save(lightning(old, optimizer), folder / "run.pt")
    assert nets("register", "run.pt").code == 0
    rules = ("--rules", "r.toml", "--check", "net.py:New")
    assert nets("rename", "run:v1", *rules).code == 0
    assert nets("export", "run:v2", "-o", "new.pt").code == 0
    assert nets("rename", "run.pt", *rules, "--in-place").code == 0
    assert str(torch.load(folder / "new.pt")) == str(torch.load(folder / "run.pt"))
    goes_on(torch.load(folder / "new.pt"), "adam", all_alike, old, optimizer)


@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
def test_state_by_name_follows_its_elements(flat: bool, nets: Run, folder: Path) -> None:
    """The form of FSDP and of `torch.distributed.checkpoint`."""
    form = StateDictOptions(flatten_optimizer_state_dict=flat)
    old, optimizer = first_part("adamw", in_groups)
    by_name = get_optimizer_state_dict(old, optimizer, options=form)
    torch.save({"model": old.state_dict(), "optimizer": by_name}, folder / "run.pt")
    ran = nets("rename", "run.pt", "--rules", "r.toml", "--check", "net.py:New", "-o", "new.pt")
    assert (ran.code, ran.err) == (0, ""), ran
    run = torch.load(folder / "new.pt")
    new = SPACE["New"]()
    new.load_state_dict(run["model"], strict=True)
    resumed = ELEMENTWISE["adamw"](in_groups(new))
    set_optimizer_state_dict(new, resumed, run["optimizer"], options=form)
    train(old, optimizer, range(BEFORE, BEFORE + AFTER))
    train(new, resumed, range(BEFORE, BEFORE + AFTER))
    assert same_weights(new, old)


@pytest.mark.parametrize(
    ("weights", "name"),
    [("model.safetensors", "optimizer.pt"), ("pytorch_model.bin", "optimizer.bin")],
)
def test_optimizer_in_a_file_of_its_own_follows_its_elements(
    weights: str, name: str, nets: Run, folder: Path
) -> None:
    """As transformers' Trainer and accelerate save it beside the weights."""
    old, optimizer = first_part("adamw", in_groups)
    run, new_run = folder / "run", folder / "new"
    run.mkdir()
    if weights.endswith(".safetensors"):
        save_file(old.state_dict(), run / weights)
    else:
        torch.save(old.state_dict(), run / weights)
    torch.save(optimizer.state_dict(), run / name)
    torch.save({"last_epoch": 1}, run / "scheduler.pt")
    words = ("rename", "run", "--rules", "r.toml", "--check", "net.py:New", "-o", "new")
    ran = nets(*words, "--from", "net.py:Old")
    assert (ran.code, ran.err) == (0, ""), ran
    assert f"{name} with the parameters of the new class" in ran.out
    assert {it.name for it in new_run.iterdir()} == {it.name for it in run.iterdir()}
    found = new_run / weights
    model = load_file(found) if found.suffix == ".safetensors" else torch.load(found)
    goes_on(
        {"model": model, "optimizer": torch.load(new_run / name)},
        "adamw",
        in_groups,
        old,
        optimizer,
    )


def test_optimizer_in_a_file_of_its_own_that_cannot_follow_is_not_written(
    nets: Run, folder: Path
) -> None:
    torch.manual_seed(0)
    net = SPACE["Old"]()
    optimizer = adafactor(net)
    train(net, optimizer, range(2))
    (folder / "run").mkdir()
    save_file(net.state_dict(), folder / "run" / "model.safetensors")
    torch.save(optimizer.state_dict(), folder / "run" / "optimizer.pt")
    words = ("rename", "run", "--rules", "r.toml", "--check", "net.py:New", "-o", "new")
    ran = nets(*words, "--from", "net.py:Old")
    assert ran.code == 0, ran
    why = "the optimizer cannot follow: v.weight: with the option beta2_decay"
    assert f"no optimizer is written: {why}" in ran.err
    assert {it.name for it in (folder / "new").iterdir()} == {"model.safetensors"}


def two_rates(net: nn.Module) -> Parameters:
    """The parts of what is joined, `up` and `gate`, are in groups with other options."""
    named = dict(net.named_parameters())
    slow = [(key, it) for key, it in named.items() if key.startswith("up")]
    fast = [(key, it) for key, it in named.items() if not key.startswith("up")]
    return [{"params": slow, "lr": 0.001}, {"params": fast}]


def two_equal_groups(net: nn.Module) -> Parameters:
    return [{**group, "lr": 0.01} for group in two_rates(net)]  # type: ignore[call-overload]


def test_parts_of_groups_with_equal_options_are_joined(nets: Run, folder: Path) -> None:
    old, optimizer = first_part("adam", two_equal_groups)
    torch.save(plain(old, optimizer), folder / "run.pt")
    words = ("rename", "run.pt", "--rules", "r.toml", "--check", "net.py:New", "-o", "new.pt")
    assert nets(*words, "--from", "net.py:Old").code == 0
    sizes = [len(group["params"]) for group in torch.load("new.pt")["optimizer"]["param_groups"]]
    assert sizes == [2, 15]


def adafactor(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adafactor(net.parameters(), 0.05)


def muon(net: nn.Module) -> torch.optim.Optimizer:
    matrices = [(key, it) for key, it in net.named_parameters() if it.ndim == 2]
    return torch.optim.Muon(matrices, 0.01)


def unequal_steps(net: Any) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam(net.parameters())
    train(net, optimizer, range(1))
    optimizer.state[net.up.weight]["step"] += 1
    return optimizer


def without_one(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam([it for k, it in net.named_parameters() if k != "up.weight"])


def own_state(net: Any) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam(net.parameters())
    train(net, optimizer, range(1))
    optimizer.state[net.qkv.weight]["rows"] = torch.ones(18)
    return optimizer


def list_of_tensors(net: Any) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam(net.parameters())
    train(net, optimizer, range(1))
    optimizer.state[net.qkv.weight]["before"] = [torch.ones(18, 6)]
    return optimizer


def shared_steps(net: Any) -> torch.optim.Optimizer:
    """Each step of the optimizer then counts as many steps as there are parameters."""
    optimizer = torch.optim.Adam(net.parameters())
    train(net, optimizer, range(1))
    one = torch.tensor(1.0)
    for state in optimizer.state.values():
        state["step"] = one
    return optimizer


REFUSED: dict[str, tuple[Callable[[Any], torch.optim.Optimizer], str]] = {
    "adafactor": (adafactor, "optimizer cannot follow: v.weight: with the option beta2_decay"),
    "muon": (muon, "optimizer cannot follow: v.weight: with the option "),
    "steps": (unequal_steps, "upgate.weight: step of gate.weight is not that of up.weight"),
    "frozen": (without_one, "optimizer has 16 parameters, the model has 17"),
    "another state": (own_state, "v.weight: rows of qkv.weight, of shape [18], is not known"),
    "shared steps": (shared_steps, "v.weight: step is a tensor of several parameters"),
    "a list": (list_of_tensors, "v.weight: before of qkv.weight, not one value, is not known to"),
    "groups": (
        lambda net: torch.optim.Adam(two_rates(net), 0.01),
        "upgate.weight is made of parameters of groups with other options",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_state_that_cannot_follow_is_refused_by_name(name: str, nets: Run, folder: Path) -> None:
    torch.manual_seed(0)
    net = SPACE["Old"]()
    make, why = REFUSED[name]
    optimizer = make(net)
    train(net, optimizer, range(2))
    torch.save(plain(net, optimizer), folder / "run.pt")
    words = ("rename", "run.pt", "--rules", "r.toml", "--check", "net.py:New", "-o", "new.pt")
    ran = nets(*words, "--from", "net.py:Old")
    assert ran.code == 3, ran
    assert why in ran.err
    assert "--drop-optimizer" in ran.err
    assert not (folder / "new.pt").exists()
    assert nets(*words, "--from", "net.py:Old", "--dry-run").code == 3
    assert nets(*words, "--from", "net.py:Old", "--drop-optimizer").code == 0
    assert {*torch.load(folder / "new.pt")} == {"epoch", "model", "ema"}


@pytest.mark.parametrize("make", [adafactor, muon], ids=lambda it: it.__name__)
def test_optimizer_of_whole_matrices_follows_where_these_are_only_renamed(
    make: Callable[[Any], torch.optim.Optimizer], nets: Run, folder: Path
) -> None:
    """The operation is on a buffer."""
    (folder / "again.py").write_text(NETS.replace("self.up =", "self.rise ="))
    rules = "[[rules]]\nrename = '^up->rise'\n[[rules]]\nreshape = 'running_mean'\nshape = [6]\n"
    (folder / "u.toml").write_text(rules)
    torch.manual_seed(0)
    net = SPACE["Old"]()
    optimizer = make(net)
    train(net, optimizer, range(BEFORE))
    torch.save(plain(net, optimizer), folder / "run.pt")
    words = ("rename", "run.pt", "--rules", "u.toml", "--check", "again.py:Old", "-o", "new.pt")
    ran = nets(*words)
    assert ran.code == 0, ran
    state = torch.load(folder / "new.pt")["optimizer"]
    names = [group.pop("param_names", ["rise.weight"]) for group in state["param_groups"]]
    assert "rise.weight" in names[0]
    assert "up.weight" not in names[0]
    before = optimizer.state_dict()
    for group in before["param_groups"]:
        group.pop("param_names", None)
    assert same_values(state, before)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("pad = '^head.bias'\nsize = 4\nvalue = 0", "head.bias gets new elements"),
        ("cast = '^head'\ndtype = 'float64'", "head.weight is cast"),
        ("duplicate = '^norm.bias'\ninto = ['norm.bias', 'more']", "more is a copy of another"),
    ],
    ids=["pad", "cast", "duplicate"],
)
def test_operation_on_values_is_refused(rule: str, why: str, nets: Run, folder: Path) -> None:
    torch.save(plain(*first_part("adam", all_alike)), folder / "run.pt")
    (folder / "v.toml").write_text(f"[[rules]]\n{rule}\n")
    ran = nets("rename", "run.pt", "--rules", "v.toml", "-o", "new.pt")
    assert ran.code == 3, ran
    assert f"optimizer cannot follow: {why}" in ran.err
    assert nets("rename", "run.pt", "--rules", "v.toml", "-o", "new.safetensors").code == 0


def test_new_parameter_starts_without_state(nets: Run, folder: Path) -> None:
    """As torch's optimizers begin with every parameter: the first step makes its state."""
    (folder / "more.py").write_text(
        NETS + "\nclass More(New):\n    def __init__(self):\n        super().__init__()\n"
        "        self.scale = nn.Parameter(torch.ones(6))\n"
    )
    old, optimizer = first_part("adam", all_alike)
    torch.save(lightning(old, optimizer), folder / "run.pt")
    fill = "[[rules]]\nfill = 'scale'\nbeside = '^norm.weight'\nvalue = 1\nshape = [6]\n"
    (folder / "fill.toml").write_text(RULES + fill)
    words = ("rename", "run.pt", "--rules", "fill.toml", "-o", "new.pt")
    ran = nets(*words)
    assert ran.code == 3
    assert "scale is new, and without --check NEW_DEF may be a buffer" in ran.err
    ran = nets(*words, "--check", "more.py:More")
    assert ran.code == 0, ran
    assert "state of 17 parameters carried over to 17, 1 without state" in ran.out
    space: dict[str, Any] = {}
    exec((folder / "more.py").read_text(), space)
    new = space["More"]()
    run = torch.load(folder / "new.pt")
    new.load_state_dict(run["state_dict"], strict=True)
    resumed = torch.optim.Adam(new.parameters(), 0.01)
    resumed.load_state_dict(run["optimizer_states"][0])
    named = {it: key for key, it in new.named_parameters()}
    assert {named[it] for it in named if it not in resumed.state} == {"scale"}
    train(old, optimizer, range(BEFORE, BEFORE + AFTER))
    train(new, resumed, range(BEFORE, BEFORE + AFTER))
    assert same_weights(new, old)


def test_partial_fit_leaves_the_new_head_without_state(nets: Run, folder: Path) -> None:
    """Another number of classes: the other parameters keep their state, the head starts again."""
    (folder / "ten.py").write_text(NETS.replace("nn.Linear(8, 3)", "nn.Linear(8, 10)"))
    old, optimizer = first_part("adam", all_alike)
    torch.save(lightning(old, optimizer), folder / "run.pt")
    words = ("rename", "run.pt", "--check", "ten.py:Old", "--allow-shape", "^head", "-o", "new.pt")
    ran = nets(*words, "--rule", "^up=up_", "--rule", "^up_=up")
    assert ran.code == 0, ran
    assert "state of 17 parameters carried over to 15, 2 without state" in ran.out
    run = torch.load(folder / "new.pt")
    space: dict[str, Any] = {}
    exec((folder / "ten.py").read_text(), space)
    new = space["Old"]()
    new.load_state_dict(run["state_dict"], strict=False)
    resumed = torch.optim.Adam(new.parameters(), 0.01)
    resumed.load_state_dict(run["optimizer_states"][0])
    mine = dict(new.named_parameters())
    for key, it in old.named_parameters():
        if key.startswith("head"):
            assert mine[key] not in resumed.state
        else:
            assert same_values(resumed.state[mine[key]], optimizer.state[it])


def test_list_of_names_that_cannot_follow_is_refused(nets: Run, folder: Path) -> None:
    old, optimizer = first_part("adam", all_alike)
    shapes = {key: it.shape for key, it in old.named_parameters()}
    torch.save({**plain(old, optimizer), "param_shapes": [shapes]}, folder / "run.pt")
    ran = nets("rename", "run.pt", "--rules", "r.toml", "-o", "new.pt")
    assert ran.code == 3
    assert "param_shapes.0 names qkv.weight, and cannot follow" in ran.err
    assert not (folder / "new.pt").exists()
    names = ["head.weight", "norm.bias", "patch.bias"]
    torch.save({**plain(old, optimizer), "frozen": names}, folder / "run.pt")
    assert nets("rename", "run.pt", "--rules", "r.toml", "-o", "new.pt").code == 0
    assert torch.load(folder / "new.pt")["frozen"] == ["out.weight", "norm.bias", "patch.bias"]
