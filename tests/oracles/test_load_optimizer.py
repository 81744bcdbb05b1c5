"""Training goes on after a refactoring, with `ckpt.migrating` and `ckpt.load_optimizer` alone.

Train some steps, refactor the class, load both in Python, train on: every weight equals bit by bit
that of a run that kept the old class.
"""

import copy
import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

import ckpt
from ckpt.errors import CkptError, FitError, PlanError, UsageError
from ckpt.ops.rename.rule_files import read_rule_file
from ckpt.rules.substitution import parse_rule
from tests.effort import SHORT
from tests.migrate.classes import class_in
from tests.oracles.test_resume import AFTER, BEFORE, with_names
from tests.oracles.test_resume_after_drop import lightning, same_values
from tests.oracles.test_resume_after_operations import (
    CASES,
    ELEMENTWISE,
    NETS,
    REFUSED,
    RULES,
    Groups,
    adafactor,
    all_alike,
    first_part,
    in_groups,
    muon,
    same_weights,
    train,
    two_equal_groups,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::ckpt.migrate.hook.MigratedWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*"),
]


@pytest.fixture(scope="module")
def new_class(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The new class, beside which is the migration from the old one."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "r.toml").write_text(RULES)
    made = class_in(folder / "net.py", NETS, "New")
    class_in(folder / "old" / "net.py", NETS, "Old")
    rules = read_rule_file(folder / "r.toml").rules
    refs = (f"{folder / 'net.py'}:New", f"{folder / 'old' / 'net.py'}:Old")
    ckpt.new_migration(*refs, rules, message="new layers", prove=False)
    return ckpt.migrating(made)


def again(state: Any) -> Any:
    """As it comes from a file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def expect_same_run(old: nn.Module, optimizer: Any, new: nn.Module, resumed: Any) -> None:
    """Both train on, and end with the same weights."""
    assert len(resumed.state) == len(list(new.parameters()))
    train(old, optimizer, range(BEFORE, BEFORE + AFTER))
    train(new, resumed, range(BEFORE, BEFORE + AFTER))
    assert same_weights(new, old)


def plain(net: nn.Module, optimizer: Any) -> dict[str, Any]:
    average = {f"module.{key}": it * 2 for key, it in net.state_dict().items()}
    state = {"optimizer": optimizer.state_dict(), "model": net.state_dict()}
    return {"epoch": 3, "losses": [torch.ones(1)], "ema": average, **state}


@pytest.mark.parametrize(
    ("name", "groups"),
    [(name, groups) for name, groups, _ in (CASES[:2] if SHORT else CASES)],
    ids=lambda it: it if isinstance(it, str) else it.__name__,
)
@pytest.mark.parametrize("saved", [plain, lightning], ids=lambda it: it.__name__)
def test_training_goes_on(name: str, groups: Groups, saved: Any, new_class: Any) -> None:
    old, optimizer = first_part(name, groups)
    run = again(saved(old, optimizer))
    before = copy.deepcopy(run)
    new = new_class()
    new.load_state_dict(run.get("model") or run["state_dict"])
    resumed = ELEMENTWISE[name](groups(new))
    ckpt.load_optimizer(resumed, run, new)
    expect_same_run(old, optimizer, new, resumed)
    states = ("optimizer", "optimizer_states")
    assert same_values({k: run[k] for k in run if k not in states},
                       {k: before[k] for k in run if k not in states})  # fmt: skip


def test_state_alone_follows_the_weights_saved_with_it(new_class: Any) -> None:
    old, optimizer = first_part("adamw", in_groups)
    state, weights = again(optimizer.state_dict()), again(old.state_dict())
    new = new_class()
    new.load_state_dict(weights)
    resumed = ELEMENTWISE["adamw"](in_groups(new))
    with pytest.raises(UsageError, match="does not tell which form of the class"):
        ckpt.load_optimizer(resumed, state, new)
    ckpt.load_optimizer(resumed, state, new, weights=weights)
    expect_same_run(old, optimizer, new, resumed)


@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
def test_state_by_name_follows(flat: bool, new_class: Any) -> None:
    form = StateDictOptions(flatten_optimizer_state_dict=flat)
    old, optimizer = first_part("adamw", in_groups)
    by_name = get_optimizer_state_dict(old, optimizer, options=form)
    new = new_class()
    new.load_state_dict(old.state_dict())
    resumed = ELEMENTWISE["adamw"](in_groups(new))
    ckpt.load_optimizer(resumed, again({"app": {"model": old.state_dict(), "optim": by_name}}), new)
    expect_same_run(old, optimizer, new, resumed)


class Whole(nn.Module):
    """A larger model, of which only a part has migrations."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.net = net
        self.last = nn.Linear(2, 2)


def test_class_within_a_larger_model_follows(new_class: Any) -> None:
    old, _ = first_part("adam", all_alike)
    whole = Whole(old)
    optimizer = ELEMENTWISE["adam"](whole.parameters())
    train(old, optimizer, range(BEFORE))
    whole.last.weight.grad = torch.ones(2, 2)
    optimizer.step()
    run = again(plain(whole, optimizer))
    new = Whole(new_class())
    new.load_state_dict(run["model"])
    resumed = ELEMENTWISE["adam"](new.parameters())
    ckpt.load_optimizer(resumed, run, new)
    mine, theirs = resumed.state[new.last.weight], optimizer.state[whole.last.weight]
    assert same_values(dict(mine), dict(theirs))
    assert new.first.weight not in resumed.state, "it has had no step"
    train(old, optimizer, range(BEFORE, BEFORE + AFTER))
    train(new.net, resumed, range(BEFORE, BEFORE + AFTER))
    assert same_weights(new.net, old)


def test_optimizer_of_some_parameters_follows(new_class: Any) -> None:
    def some(net: nn.Module) -> Any:
        return [it for key, it in net.named_parameters() if not key.startswith(("patch", "norm"))]

    old, optimizer = first_part("adam", some)
    new = new_class()
    new.load_state_dict(old.state_dict())
    resumed = ELEMENTWISE["adam"](some(new))
    ckpt.load_optimizer(resumed, again(plain(old, optimizer)), new)
    train(old, optimizer, range(BEFORE, BEFORE + AFTER))
    train(new, resumed, range(BEFORE, BEFORE + AFTER))
    assert same_weights(new, old)


def test_what_fits_already_is_loaded_as_torch_does(new_class: Any) -> None:
    torch.manual_seed(0)
    new = new_class()
    optimizer = ELEMENTWISE["adamw"](in_groups(new))
    train(new, optimizer, range(BEFORE))
    resumed = ELEMENTWISE["adamw"](in_groups(new))
    ckpt.load_optimizer(resumed, again(plain(new, optimizer)), new)
    assert same_values(resumed.state_dict(), optimizer.state_dict())


def test_another_order_of_parameters_needs_no_migration(tmp_path: Path) -> None:
    """The keys are the same; only the numbers of torch's optimizers differ."""
    text = "from torch import nn\n\nclass Net(nn.Module):\n    def __init__(self):\n"
    text += "        super().__init__()\n"
    lines = [f"        self.{name} = nn.Linear(3, 3)\n" for name in "ab"]
    first = class_in(tmp_path / "one" / "net.py", text + "".join(lines))()
    other = class_in(tmp_path / "two" / "net.py", text + "".join(reversed(lines)))()
    optimizer = torch.optim.Adam(first.parameters())
    first.a(torch.ones(3)).sum().backward()
    first.b(torch.ones(3)).square().sum().backward()
    optimizer.step()
    other.load_state_dict(first.state_dict())
    resumed = torch.optim.Adam(other.parameters())
    ckpt.load_optimizer(resumed, again(plain(first, optimizer)), other)
    for name, parameter in first.named_parameters():
        mine = resumed.state[other.get_parameter(name)]
        assert same_values(dict(mine), dict(optimizer.state[parameter]))


@pytest.mark.parametrize("make", [adafactor, muon], ids=lambda it: it.__name__)
def test_optimizer_of_whole_matrices_follows_a_rename(make: Any, tmp_path: Path) -> None:
    renamed = NETS.replace("self.up =", "self.rise =")
    new = class_in(tmp_path / "net.py", renamed, "Old")()
    class_in(tmp_path / "old" / "net.py", NETS, "Old")
    refs = [f"{tmp_path / place}:Old" for place in ("net.py", "old/net.py")]
    ckpt.new_migration(refs[0], refs[1], [parse_rule("^up->rise")], message="rise", prove=False)
    old, _ = first_part("adam", all_alike)
    optimizer, resumed = make(old), make(new)
    train(old, optimizer, range(BEFORE))
    ckpt.load_optimizer(resumed, again(plain(old, optimizer)), new)
    for name, parameter in old.named_parameters():
        mine = resumed.state[new.get_parameter(name.replace("up.", "rise."))]
        assert same_values(dict(mine), dict(optimizer.state[parameter]))


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of one process."""
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("full", [True, False], ids=["full", "sharded"])
def test_state_follows_into_sharded_parameters(full: bool, new_class: Any, alone: None) -> None:
    from torch.distributed.fsdp import fully_shard

    old, optimizer = first_part("adamw", all_alike)
    wanted, expected = new_class(), None
    wanted.load_state_dict(old.state_dict())
    expected = ELEMENTWISE["adamw"](wanted.parameters())
    run = plain(old, optimizer)
    ckpt.load_optimizer(expected, again(run), wanted)
    if not full:
        sharded = copy.deepcopy(old)
        fully_shard(sharded)
        theirs = ELEMENTWISE["adamw"](sharded.parameters())
        ckpt.load_optimizer(theirs, run, sharded)
        run["optimizer"] = get_optimizer_state_dict(sharded, theirs)
    new = new_class()
    fully_shard(new)
    resumed = ELEMENTWISE["adamw"](new.parameters())
    ckpt.load_optimizer(resumed, run, new)
    for name, parameter in new.named_parameters():
        mine, other = resumed.state[parameter], expected.state[wanted.get_parameter(name)]
        assert mine["exp_avg"].device_mesh == parameter.device_mesh
        whole = {key: it.full_tensor() if hasattr(it, "full_tensor") else it
                 for key, it in mine.items()}  # fmt: skip
        assert same_values(whole, dict(other))


@pytest.mark.parametrize("name", REFUSED)
def test_state_that_cannot_follow_is_refused_by_name(name: str, new_class: Any) -> None:
    torch.manual_seed(0)
    net = first_part("adam", all_alike)[0]
    make, why = REFUSED[name]
    optimizer = make(net)
    train(net, optimizer, range(2))
    new = new_class()
    resumed = torch.optim.Adam(new.parameters())
    before = copy.deepcopy(resumed.state_dict())
    with pytest.raises(PlanError) as refused:
        ckpt.load_optimizer(resumed, plain(net, optimizer), new)
    assert why.removeprefix("optimizer cannot follow: ") in str(refused.value)
    assert same_values(resumed.state_dict(), before)


def other_groups(run: Any, new: Any) -> Any:
    return ELEMENTWISE["adam"](new.parameters())


def fewer_parameters(run: Any, new: Any) -> Any:
    del run["optimizer"]["param_groups"][0]["params"][0]
    return ELEMENTWISE["adam"](in_groups(new))


def sorted_keys(run: Any, new: Any) -> Any:
    run["model"] = {key: run["model"][key] for key in sorted(run["model"])}
    run["ema"] = {}
    return ELEMENTWISE["adam"](in_groups(new))


def another_model(run: Any, new: Any) -> Any:
    del run["model"]["head.bias"], run["ema"]["module.head.bias"]
    return ELEMENTWISE["adam"](in_groups(new))


def frozen_now(run: Any, new: Any) -> Any:
    weights, others = in_groups(new)
    return ELEMENTWISE["adam"]([weights, {**others, "params": others["params"][1:]}])


def not_of_the_model(run: Any, new: Any) -> Any:
    return ELEMENTWISE["adam"]([*new.parameters(), nn.Parameter(torch.ones(1))])


def two_optimizers(run: Any, new: Any) -> Any:
    run["other"] = run["optimizer"]
    return ELEMENTWISE["adam"](in_groups(new))


@pytest.mark.parametrize(
    ("change", "kind", "why"),
    [
        (other_groups, FitError, "are in groups with other options"),
        (fewer_parameters, PlanError, "optimizer has 16 parameters, the model has 17"),
        (sorted_keys, PlanError, "the keys of the file are sorted"),
        (another_model, FitError, "does not fit New, and none of its migrations leads there"),
        (frozen_now, FitError, "has out.bias, which the optimizer does not train"),
        (not_of_the_model, FitError, "nothing for parameter 17"),
        (two_optimizers, UsageError, "found 2: optimizer, other"),
    ],
    ids=lambda it: it.__name__ if callable(it) and not isinstance(it, type) else "",
)
def test_what_is_not_known_is_refused(
    change: Callable[[Any, Any], Any], kind: type[CkptError], why: str, new_class: Any
) -> None:
    old, optimizer = first_part("adam", in_groups)
    run, new = again(plain(old, optimizer)), new_class()
    resumed = change(run, new)
    with pytest.raises(kind, match=why.replace("[", r"\[")):
        ckpt.load_optimizer(resumed, run, new)
    assert not resumed.state


def test_parts_of_groups_with_equal_options_are_joined(new_class: Any) -> None:
    old, optimizer = first_part("adam", two_equal_groups)
    new = new_class()
    new.load_state_dict(old.state_dict())
    resumed = partial(torch.optim.Adam, lr=0.01)(with_names(new))
    ckpt.load_optimizer(resumed, again(plain(old, optimizer)), new)
    expect_same_run(old, optimizer, new, resumed)
