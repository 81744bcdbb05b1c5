"""A rename in memory gives the very tensors, and what the command writes for a file."""

import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import ckpt
from ckpt.errors import (
    CkptError,
    FitError,
    FormatError,
    KeyCollisionError,
    PlanError,
    UnmatchedRuleError,
    UsageError,
)
from tests.effort import examples
from tests.formats.support import expected
from tests.formats.test_laws import state_dicts
from tests.ops.rename.test_operations import CASES

State = dict[str, torch.Tensor]


class Old(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3)
        self.norm1 = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, 2)


class New(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.embed1 = nn.Conv2d(1, width, 3)
        self.norm1 = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, 2)


def of_file(state: Any, rules: Any) -> Any:
    """What torch loads of the file that the rename of a file writes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save(state, folder / "old.pt")
        ckpt.rename(folder / "old.pt", rules, out=folder / "new.pt")
        return torch.load(folder / "new.pt", weights_only=True)


def ties(state: State) -> list[int]:
    places = [tensor.untyped_storage().data_ptr() for tensor in state.values()]
    return [places.index(place) for place in places]


@given(state_dicts(), st.sampled_from([r"^->net.", r"(.*)->\1.weight", "a->b"]))
@settings(max_examples=examples(60))
def test_rename_gives_the_same_objects_in_the_order_of_the_file(state: State, rule: str) -> None:
    before = list(state.items())
    try:
        wanted = of_file(state, [rule])
    except CkptError as error:
        with pytest.raises(type(error)):
            ckpt.rename(state, [rule])
        return
    made = ckpt.rename(state, [rule])
    assert type(made) is dict
    assert list(made) == list(wanted)
    assert all(a is b for a, b in zip(made.values(), state.values(), strict=True))
    assert [key for key, _ in before] == list(state)


@pytest.mark.parametrize("case", [case for case in CASES if CASES[case][2]()])
def test_operation_gives_what_torch_gives(case: str) -> None:
    state, rules, wanted = CASES[case]
    made = ckpt.rename(state, rules)
    assert expected(made) == expected(wanted())
    assert list(made) == list(of_file(state, rules))


TIED: dict[str, tuple[dict[str, Any], list[int]]] = {
    "cast": ({"cast": "w", "dtype": "bfloat16"}, [0, 0, 2]),
    "split": ({"split": "w$", "into": ["x", "y"]}, [0, 0, 0, 0, 4, 4]),
    "duplicate": ({"duplicate": "c.w", "into": ["c.w", "d.w"]}, [0, 0, 2, 3]),
    "tie": ({"tie": "c.w", "into": ["c.w", "d.w"]}, [0, 0, 2, 2]),
    "merge": ({"tie": "a.w", "into": ["a.w", "b.w"]}, [0, 0, 2]),
}


@pytest.mark.parametrize("case", TIED)
def test_ties_are_those_of_the_file(case: str) -> None:
    rule, tied = TIED[case]
    weight = torch.arange(4.0)
    state = {"a.w": weight, "b.w": weight, "c.w": weight + 1}
    made, wanted = ckpt.rename(state, [rule]), of_file(state, [rule])
    assert expected(made) == expected(wanted)
    assert ties(made) == tied
    assert case == "split" or ties(wanted) == tied  # in a file, each part has its own bytes


def test_module_of_another_form_loads_strictly() -> None:
    old, new = Old(), New()
    old.norm1.num_batches_tracked.fill_(7)
    for to in (New, new, new.state_dict()):
        made = ckpt.rename(old.state_dict(), to=to)
        new.load_state_dict(made, strict=True)
        assert new.norm1.num_batches_tracked == 7
        assert torch.equal(new.embed1.weight, old.conv1.weight)
    assert type(made) is OrderedDict
    assert made._metadata == New().state_dict()._metadata  # type: ignore[attr-defined]
    assert next(iter(old.state_dict())) == "conv1.weight"


def test_class_with_arguments_and_function_are_definitions() -> None:
    state = Old(width=6).state_dict()
    for to in (New(6), lambda: New(6)):
        New(6).load_state_dict(ckpt.rename(state, to=to), strict=True)
    New(6).load_state_dict(ckpt.rename(state, to=New, arguments={"width": 6}), strict=True)
    with pytest.raises(FitError, match="would not fit"):
        ckpt.rename(state, ["conv->embed"], check=New)


def test_module_that_stands_for_its_class_is_not_changed() -> None:
    new = New()
    before = expected({key: it.clone() for key, it in new.state_dict().items()})
    ckpt.rename(Old().state_dict(), to=new)
    assert expected(new.state_dict()) == before
    assert not any(parameter.is_meta for parameter in new.parameters())


def test_parameters_stay_parameters() -> None:
    module = Old()
    made = ckpt.rename(module.state_dict(keep_vars=True), ["conv->embed"])
    assert made["embed1.weight"] is module.conv1.weight


def test_keys_without_a_tensor_follow_and_keep_their_place() -> None:
    state = {"epoch": 3, "a.w": torch.ones(2), "a._extra_state": {"n": 1}, "b.w": torch.ones(1)}
    assert list(ckpt.rename(state, ["^a->c"])) == ["epoch", "c.w", "c._extra_state", "b.w"]
    halves = {"split": "^a.w", "into": ["x", "y"]}
    assert list(ckpt.rename(state, [halves])) == list(of_file(state, [halves]))


def test_result_of_open_is_renamed(tmp_path: Path) -> None:
    torch.save(Old().state_dict(), tmp_path / "old.pt")
    with ckpt.open(tmp_path / "old.pt") as checkpoint:
        New().load_state_dict(ckpt.rename(checkpoint, to=New), strict=True)  # type: ignore[arg-type]


def test_rules_of_a_file_and_texts_and_dicts_are_understood(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text("[[rules]]\nrename = 'conv->embed'\n")
    keys = list(New().state_dict())
    map_of_keys = {"conv1.weight": "embed1.weight", "conv1.bias": "embed1.bias"}
    for rules in (tmp_path / "rules.toml", "conv->embed", map_of_keys, [{"rename": "conv->embed"}]):
        assert list(ckpt.rename(Old().state_dict(), rules)) == keys


STATE = {"conv1.weight": torch.ones(2), "conv2.weight": torch.zeros(2)}
REFUSED: dict[str, tuple[Any, Any, dict[str, Any], type[Exception], str]] = {
    "no match": (STATE, ["x->y"], {}, UnmatchedRuleError, "rule 1 'x->y' changes none"),
    "collision": (STATE, [r"conv\d->c"], {}, KeyCollisionError, "two keys would become 'c.weight'"),
    "no rule": (STATE, [], {}, UsageError, "no rules given"),
    "bad table": (STATE, [{"splt": "x"}], {}, UsageError, r"rules\[0\]: "),
    "inside": ({"model": STATE}, ["a->b"], {}, UsageError, r"the state_dict is in \['model'\]"),
    "number": ({**STATE, 3: torch.ones(1)}, ["conv->c"], {}, FormatError, "3"),
    "list": ({"a": [torch.ones(1)]}, ["a->b"], {}, FormatError, "'a.0' is not a key"),
    "file": (STATE, ["conv->c"], {"out": "new.pt"}, UsageError, "out: the rename of a state_dict"),
    "unequal tie": (
        STATE, [{"tie": "conv1.weight", "into": ["conv1.weight", "conv2.weight"]}], {}, PlanError,
        "conv2.weight is not equal to conv1.weight",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_renamed_is_refused_like_a_file(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, rules, options, kind, said = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=said):
        ckpt.rename(state, rules, **options)
    assert not list(tmp_path.iterdir())


def test_plan_is_made_and_not_applied() -> None:
    plan = ckpt.plan_rename(STATE, ["conv->c"])
    assert [change.new for change in plan.renamed] == ["c1.weight", "c2.weight"]
    with pytest.raises(UsageError, match="in memory, and apply writes"):
        ckpt.apply(plan, out="new.pt")
