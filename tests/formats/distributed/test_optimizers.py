"""What names the parameters of a folder beside the weights: optimizers and copies.

torch saves the folders and loads the renamed ones.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

from ckpt.errors import PlanError
from ckpt.formats import open_checkpoint
from ckpt.formats.distributed.folder import DistributedCheckpoint
from ckpt.formats.distributed.followers import named_by, optimizers_of
from ckpt.formats.distributed.optimizers import folder_optimizers
from ckpt.formats.paths import open_path
from tests.formats.distributed.test_folder import renamed, save, state
from tests.zoo import flat as flattened

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

Open = Callable[..., DistributedCheckpoint]
# To a name that sorts later, so long that the files grow, and to a shorter one that sorts earlier.
NEW = {"0.weight": f"body.{'first' * 50}.weight", "1.bias": "0.b"}


def run(*, flat: bool) -> dict[str, Any]:
    """What a training script saves by torch's functions, which name the parameters."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    groups: Any = [{"params": net[0].parameters()}, {"params": net[1].parameters(), "lr": 0.5}]
    optimizer = torch.optim.Adam(groups)
    net(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    model, of_optimizer = get_state_dict(net, optimizer, options=options)
    ema = {f"module.{key}": 2 * tensor for key, tensor in model.items()}
    return {"model": model, "ema": ema, "optim": of_optimizer, "step": 3}


@pytest.fixture(scope="module", params=[False, True], ids=["nested", "flat"])
def flat(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def folder(flat: bool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(run(flat=flat), tmp_path_factory.mktemp("run") / "step3", thread_count=5)


@pytest.fixture
def opened() -> Iterator[Open]:
    """Open a folder, whose files stay open until the test ends."""
    with ExitStack() as stack:

        def open_folder(folder: Path, inside: str | None = None) -> DistributedCheckpoint:
            source = stack.enter_context(open_path(folder))
            checkpoint = open_checkpoint(source, inside=inside)
            assert isinstance(checkpoint, DistributedCheckpoint)
            return checkpoint

        yield open_folder


def loaded(folder: Path) -> Any:
    """The nested state_dict, by torch's own reader."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp_to_torch_save(folder, folder.with_suffix(".pt"))
    return torch.load(folder.with_suffix(".pt"), weights_only=True)


def with_names(value: Any, new: dict[str, str]) -> Any:
    """Nested values in which names of parameters, and what is made of them, are new."""
    if isinstance(value, dict):
        return {with_names(key, new): with_names(each, new) for key, each in value.items()}
    if isinstance(value, list):
        return [with_names(each, new) for each in value]
    if isinstance(value, str):
        for old, after in new.items():
            value = f".{value}.".replace(f".{old}.", f".{after}.")[1:-1]
    return value


def expect_same(found: Any, wanted: Any) -> None:
    tensors = flattened(wanted)
    assert {key: it.tolist() for key, it in flattened(found).items()} == {
        key: it.tolist() for key, it in tensors.items()
    }
    assert without_tensors(found) == without_tensors(wanted)


def without_tensors(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_tensors(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_tensors(each) for each in value]
    return None if isinstance(value, torch.Tensor) else value


def test_optimizer_and_copies_follow_a_rename(folder: Path, flat: bool, tmp_path: Path) -> None:
    out = renamed(folder, NEW, tmp_path / "out", inside="model::*")
    expect_same(loaded(out), with_names(run(flat=flat), NEW))


def test_names_have_places_of_their_own() -> None:
    prefixes = ("optim.", "")
    assert optimizers_of(["optim.param_groups.0.lr", "param_groups.0.lr", "optim.x"]) == prefixes
    assert optimizers_of(["my_param_groups.0.lr", "model.w", "odd."]) == ()
    assert [it.key for it in named_by("optim.state.fc.w.step", ["optim."])] == ["fc.w"]
    assert named_by("optim.state.step", ["optim."]) == named_by("optim.state..w", ["optim."]) == []
    (follower,) = named_by("optim.state.w.step", ["optim."])
    assert follower.path(["optim", "state.w.a.w"], "x") == ["optim", "state.x.a.w"]


def test_nothing_follows_that_is_not_asked_for(folder: Path, flat: bool, tmp_path: Path) -> None:
    out = renamed(folder, NEW, tmp_path / "out", inside="model")
    whole = run(flat=flat)
    expect_same(loaded(out), {**whole, "model": with_names(whole["model"], NEW)})


@pytest.mark.parametrize("new", ["a.weight", "0.a"])
def test_rules_that_would_part_a_parameter_from_its_state_are_refused(
    folder: Path, new: str, tmp_path: Path
) -> None:
    """Whether the new name sorts later or earlier."""
    step = "optim.state.0.weight.step"
    expected = f"the rules would name {step} {step}, but its parameter {new}"
    with pytest.raises(PlanError) as refused:
        renamed(folder, {"model.0.weight": f"model.{new}"}, tmp_path / "out")
    assert expected in str(refused.value)
    assert str(refused.value.hint).endswith(f"ckpt rename {folder}::model --all")


def test_rules_that_rename_a_parameter_and_its_state_alike_are_taken(
    opened: Open, folder: Path, flat: bool, tmp_path: Path
) -> None:
    keys = [entry.key for entry in opened(folder).entries if "0.weight" in entry.key]
    out = renamed(folder, {it: it.replace("0.weight", "a.b") for it in keys}, tmp_path / "out")
    expect_same(loaded(out), with_names(run(flat=flat), {"0.weight": "a.b"}))


def test_parameter_that_leaves_the_weights_leaves_its_state_behind(
    folder: Path, flat: bool, tmp_path: Path
) -> None:
    out = renamed(folder, {"model.0.weight": "old.weight"}, tmp_path / "out")
    whole = run(flat=flat)
    old = whole["model"].pop("0.weight")
    expect_same(loaded(out), {**whole, "old": {"weight": old}})


def test_optimizer_without_its_weights_names_its_parameters(
    opened: Open, flat: bool, tmp_path: Path
) -> None:
    old = save({"optim": run(flat=flat)["optim"]}, tmp_path / "old")
    keys = [entry.key for entry in opened(old).entries if "0.weight" in entry.key]
    assert len(keys) == 3
    out = renamed(old, {it: it.replace("0.weight", "a.b") for it in keys}, tmp_path / "new")
    new = with_names(run(flat=flat)["optim"], {"0.weight": "a.b"})
    expect_same(loaded(out), {"optim": new})


def test_places_that_name_a_key_are_told(opened: Open, folder: Path, flat: bool) -> None:
    places = ["optim.state", *(["optim.param_groups"] if flat else []), "ema"]
    alone, whole = opened(folder, "model"), opened(folder, "model::*")
    assert list(alone.left_behind({"0.weight"})) == places
    assert list(whole.also_named({"0.weight"})) == places
    for checkpoint in (alone, whole, opened(folder)):
        assert checkpoint.left_behind({"other"}) == checkpoint.also_named({"other"}) == ()
    assert alone.also_named({"0.weight"}) == whole.left_behind({"0.weight"}) == ()
    assert opened(folder, "optim").left_behind({"state.0.weight.step"}) == ()
    assert opened(folder).also_named({"model.0.weight"}) == ()


def test_lists_of_names_are_not_untouched_if_they_follow(
    opened: Open, folder: Path, flat: bool
) -> None:
    lists = set() if flat else {f"optim.param_groups.{number}.params" for number in (0, 1)}
    for inside in (None, "model::*", "optim"):
        checkpoint = opened(folder, inside)
        assert checkpoint.rest.keys() - checkpoint.untouched({}).keys() == lists, inside
    alone = opened(folder, "model")
    assert alone.untouched({}) == alone.rest


def test_optimizer_is_of_the_weights_that_have_its_parameters(opened: Open, folder: Path) -> None:
    checkpoint = opened(folder)
    assert (checkpoint.optimizers, checkpoint.trained) == (("optim.",), "model.")
    assert checkpoint.numbered == ()
    own = checkpoint.of_optimizer("optim.")
    assert own == [
        key for key in (*checkpoint.tensors, *checkpoint.rest) if key.startswith("optim.")
    ]


def test_numbers_of_parameters_are_told_and_kept(opened: Open, tmp_path: Path) -> None:
    old = save(state(), tmp_path / "old")
    checkpoint = opened(old, "model::*")
    assert (checkpoint.numbered, checkpoint.trained) == (("optim.",), None)
    assert checkpoint.also_named({"0.weight"}) == ()
    with pytest.raises(ValueError, match=r"optim\.param_groups does not name its parameters"):
        folder_optimizers(checkpoint)


def test_state_of_a_parameter_in_no_group_is_refused(opened: Open, tmp_path: Path) -> None:
    state = {"w": {"step": torch.ones(1)}, "x": {"step": torch.ones(1)}}
    value = {"optim": {"state": state, "param_groups": [{"params": ["w"], "lr": 0.1}]}}
    says = r"^optim\.state\.x\.step is not of a parameter that optim\.param_groups names$"
    with pytest.raises(ValueError, match=says):
        folder_optimizers(opened(save(value, tmp_path / "a")))


def test_optimizer_is_read_as_torch_has_it(opened: Open, folder: Path, flat: bool) -> None:
    found = folder_optimizers(opened(folder))
    held, saved = found.held["optim."], run(flat=False)["optim"]
    groups = [group["params"] for group in saved["param_groups"]]
    assert list(held.state) == list(saved["state"])
    assert (held.path, held.flat, held.names) == ("optim", flat, ())
    wanted = [[name] for group in groups for name in group] if flat else groups
    assert [list(group) for group in held.groups] == wanted
    assert [options["lr"] for options in held.options] == (
        [0.001] * 2 + [0.5] * 2 if flat else [0.001, 0.5]
    )
    assert all("params" not in options for options in held.options)
    for name, fields in held.state.items():
        entries = {of: found.entries[id(node)] for of, node in fields.items()}
        assert {of: it.shape for of, it in entries.items()} == {
            of: tuple(tensor.shape) for of, tensor in saved["state"][name].items()
        }
        assert all(it.key == f"optim.state.{name}.{of}" for of, it in entries.items())
