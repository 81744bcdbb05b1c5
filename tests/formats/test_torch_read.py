"""How much of a pickle is searched and shown, and what follows a rename."""

import pickletools
from collections import OrderedDict
from typing import Any

import pytest
import torch

from ckpt.errors import FormatError
from ckpt.formats.torch_state import TorchState
from tests.formats import hostile
from tests.formats.hostile import get, put
from tests.formats.support import opened, saved, torch_file

TWO = torch.ones(2)


def state_of(value: object, inside: str | None = None) -> TorchState:
    state: TorchState = opened(saved(value), inside).state  # type: ignore[attr-defined]
    return state


@pytest.mark.parametrize(
    ("items", "nones", "says"),
    [(63, 12, "holds no tensors"), (64, 20, "data.pkl: its parts are shared too often")],
)
def test_search_takes_three_steps_for_each_opcode_and_a_thousand(
    items: int, nones: int, says: str
) -> None:
    """One for each node, and one for the end of each list."""
    shared = hostile.LIST + put(0) + hostile.MARK + hostile.NONE * items + hostile.APPENDS
    root = hostile.LIST + hostile.MARK + get(0) * 20 + hostile.NONE * nones + hostile.APPENDS
    pickle = hostile.PROTO2 + shared + hostile.POP + root + hostile.STOP
    steps = 1 + 20 * (items + 2) + nones + 2
    limit = 3 * len([*pickletools.genops(pickle)]) + 1000
    assert steps == limit + ("shared" in says)
    with pytest.raises(FormatError, match=says):
        opened(torch_file(pickle))


def test_thousand_values_beside_the_tensors_are_shown() -> None:
    rest = opened(saved({"model": {"w": TWO}, **{f"{n}": n for n in range(2000)}})).rest
    assert rest == {**{f"{n}": n for n in range(1000)}, "1000": "…"}


def test_versions_of_modules_are_shown_up_to_ten_nodes_for_each_and_for_all() -> None:
    """The mappings are some of them; a module has one version, seldom more."""
    state: Any = OrderedDict(w=TWO)
    for others, shown in (({}, 18), ({"a": {}}, 28)):
        state._metadata = {"": {f"{n}": n for n in range(50)}, **others}
        versions = opened(saved(state)).rest["_metadata"]
        assert versions[""] == {**{f"{n}": n for n in range(shown)}, f"{shown}": "…"}


@pytest.mark.parametrize(
    ("inside", "follows"), [(None, True), ("*", True), ("model::*", True), ("model", False)]
)
def test_others_follow_a_rename_unless_one_state_dict_is_named(
    inside: str | None, follows: bool
) -> None:
    state = state_of({"model": {"w": TWO}, "names": ["fc.w"]}, inside)
    assert state.follows is follows


def test_tensors_in_lists_are_told_by_their_place_without_numbers() -> None:
    """Those of an optimizer are not, which numbers its parameters too."""
    group = {"lr": 0.1, "params": [0]}
    one, two, three, four, five = (torch.ones(number) for number in range(5))
    value = {
        "model": {"w": TWO},
        "ema": [one, [two, {"x": three}]],
        "by number": {7: four, "plain": five},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [group]},
    }
    listed = state_of(value, "model").listed
    assert {path: [entry.key for entry in entries] for path, entries in listed.items()} == {
        "ema.*": ["ema.0"],
        "ema.*.*": ["ema.1.0"],
        "ema.*.*.x": ["ema.1.1.x"],
        "by number.*": ["by number.7"],
    }
