"""What is beside a state_dict, what of it follows a rename, and keys without a letter."""

from typing import Any

import pytest
import torch

from ckpt.errors import FormatError
from ckpt.formats.torch_state import TorchState
from tests.formats.support import contents, expected, loaded, opened, renamed, saved, written

ONE, TWO = torch.ones(1), torch.ones(2)
MODEL = {"fc.w": TWO, "fc.b": ONE}
BESIDE = {
    "model": MODEL,
    "ema": {"module.fc.w": TWO, "module.fc.b": ONE, "n_averaged": torch.tensor(3)},
    "names": ["fc.w"],
    "shapes": {"fc.b": "1", "fc.w": "2"},
    "other": {"x.w": ONE},
    "epoch": 3,
}


def state_of(value: object, inside: str | None = None) -> TorchState:
    state: TorchState = opened(saved(value), inside).state  # type: ignore[attr-defined]
    return state


def test_copies_and_lists_of_names_follow_a_rename_or_are_left_behind() -> None:
    one, all_ = state_of(BESIDE, "model"), state_of(BESIDE, "model::*")
    for keys, paths in (
        ({"fc.w"}, {"ema", "names", "shapes"}),
        ({"fc.b"}, {"ema", "shapes"}),
        ({"x.w", "n_averaged"}, set()),
    ):
        assert set(one.left_behind(keys)) == set(all_.also_named(keys)) == paths
        assert one.also_named(keys) == all_.left_behind(keys) == []
    new = renamed(saved(BESIDE), {"fc.w": "head.w"}, "model::*")
    found = loaded(new)
    assert list(found["model"]) == ["head.w", "fc.b"]
    assert list(found["ema"]) == ["module.head.w", "module.fc.b", "n_averaged"]
    assert found["names"] == ["head.w"]
    assert found["shapes"] == {"fc.b": "1", "head.w": "2"}
    new = renamed(saved(BESIDE), {"fc.w": "head.w"}, "model")
    assert list(loaded(new)["ema"]) == list(BESIDE["ema"])  # type: ignore[call-overload]
    assert loaded(new)["names"] == ["fc.w"]


@pytest.mark.parametrize(
    ("value", "more"),
    [
        (MODEL, False),
        ({"model": MODEL}, True),
        (MODEL | {"_extra_state": 7}, True),
        ([MODEL], False),
    ],
    ids=["alone", "in a mapping", "with a value", "in a list"],
)
def test_file_holds_more_than_the_tensors_of_a_mapping(value: object, more: bool) -> None:
    assert state_of(value).holds_more is more


def test_others_are_told_by_their_digests() -> None:
    value = MODEL | {"a": 1, "b": [1], "c": 1, "held": [ONE]}
    state = state_of(value)
    assert list(state.others) == ["a", "b", "c", "held"]
    digests = state.digests
    assert list(digests) == ["a", "b", "c"]
    assert digests["a"] == digests["c"] != digests["b"]
    assert state_of(MODEL).digests == {}


def test_rest_without_what_a_rename_changes_is_untouched() -> None:
    value = {**BESIDE, "model": MODEL | {"fc._extra_state": 7, "note": "kept"}}
    assert state_of(value, "model").untouched == {
        "model": {"note": "kept"},
        "epoch": 3,
    }


def test_nodes_that_lose_keys_are_those_that_name_them() -> None:
    for inside, paths in (("model::*", ["ema", "model", "shapes"]), ("model", ["model"])):
        state = state_of(BESIDE, inside)
        root: Any = {"model": state.chosen.mapping, **state.beside, **state.lists}
        instead = state.without({"fc.b"}, {})
        assert sorted(path for path, node in root.items() if id(node) in instead) == paths
        for path in paths:
            old, new = root[path], instead[id(root[path])]
            gone = "module.fc.b" if path == "ema" else "fc.b"
            assert new.items == [item for item in old.items if item[0] != gone]  # type: ignore[attr-defined]


def test_key_without_a_letter_may_stay_and_is_not_made() -> None:
    data = saved({"": ONE, "a": TWO})
    assert contents(opened(renamed(data, {"a": "b"}))) == expected({"": ONE, "b": TWO})
    assert contents(opened(renamed(data, {"": "x"}))) == expected({"x": ONE, "a": TWO})
    with pytest.raises(FormatError):
        renamed(saved(MODEL), {"fc.w": ""})


def test_rename_without_changes_keeps_the_file() -> None:
    data = saved(BESIDE, pickle_protocol=4)
    for new_keys in ({}, {"fc.w": "fc.w"}, {"none": "x"}):
        assert renamed(data, new_keys, "model::*") == data


def test_numbers_of_the_root_module_change_in_copies_that_follow() -> None:
    states: Any = {name: torch.nn.BatchNorm1d(2).state_dict() for name in ("model", "ema")}
    data = saved(states)
    for inside, copied in (("model", 2), ("model::*", 7)):
        checkpoint: Any = opened(data, inside)
        numbered = checkpoint.numbered({"version": 7, "layout": 300, "none": None})
        assert numbered.rest["_metadata"] == {"": {"version": 7, "layout": 300}}
        new = loaded(written(numbered.renamed({}), checkpoint))
        assert new["model"]._metadata[""] == {"version": 7, "layout": 300}
        assert new["ema"]._metadata[""]["version"] == copied
        assert expected(new["ema"]) == expected(states["ema"])
