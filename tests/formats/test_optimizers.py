"""Optimizers in a pickle: their parameters, in the order that torch gives them."""

import pickle
import zipfile
from io import BytesIO
from typing import Any

import pytest
import torch

from ckpt.formats.optimizers import (
    HeldOptimizer,
    OptimizerState,
    held_optimizers,
    optimizers_of,
    reordering,
    with_groups,
    with_parameters,
)
from ckpt.formats.pickle.edit import rename_texts
from ckpt.formats.pickle.find import Contents, find
from ckpt.formats.pickle.nodes import DictNode
from ckpt.formats.pickle.reader import ParsedPickle, read_pickle
from tests.formats.support import saved


def state() -> dict[str, Any]:
    """Two groups, whose parameters have names as well."""
    return {
        "state": {0: {"step": 5}, 1: {"step": 6}, 2: {"step": 7}},
        "param_groups": [
            {"lr": 0.1, "params": [0, 1], "param_names": ["a", "b"]},
            {"lr": 0.2, "params": [2], "param_names": ["c"]},
        ],
    }


def parsed(data: bytes) -> tuple[ParsedPickle, Contents]:
    read = read_pickle(data, name="it", opcode_limit=10**5)
    return read, find(read.root, name="it", step_limit=10**5)


def found(value: object) -> tuple[OptimizerState, ...]:
    return optimizers_of(parsed(pickle.dumps({"optim": value}, 2))[1])


def plain(node: object, instead: dict[int, object]) -> Any:
    node = instead.get(id(node), node)
    if isinstance(node, DictNode):
        return {key: plain(value, instead) for key, value in node.items}
    return [plain(it, instead) for it in node] if isinstance(node, list) else node


def test_optimizer_is_read() -> None:
    (one,) = found(state())
    assert (one.name, one.groups, one.joint) == ("optim", ((0, 1), (2,)), False)
    assert [[str(it) for it in names] for names in one.names] == [["a", "b"], ["c"]]


def changed(group: int, **fields: Any) -> dict[str, Any]:
    value = state()
    value["param_groups"][group] |= fields
    return value


@pytest.mark.parametrize(
    "value",
    [
        changed(0, params=[-1, 1], param_names=["a", "b"]),
        changed(0, params=[2, 1]),
        changed(0, params=["0", "1"]),
        changed(1, params=2),
        {"state": {}, "param_groups": [{"params": []}]},
        {"state": {}, "param_groups": []},
        {"state": [], "param_groups": [{"params": [0]}]},
        {"state": {}, "param_groups": {"params": [0]}},
        {"state": {}, "param_groups": [[0]]},
    ],
    ids=str,
)
def test_optimizer_of_another_form_is_not_numbered(value: dict[str, Any]) -> None:
    assert found(value) == ()


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"], None, "ab"])
def test_names_that_are_not_of_each_parameter_are_left(names: object) -> None:
    (one,) = found(changed(0, param_names=names))
    assert (one.groups, one.names) == (((0, 1), (2,)), ())


def test_shapes_are_those_on_which_all_moments_agree() -> None:
    moments = {
        0: {"exp_avg": torch.zeros(2, 3), "exp_avg_sq": torch.zeros(2, 3), "step": torch.ones(())},
        1: {"momentum_buffer": torch.zeros(4), "sum": torch.zeros(5)},
        2: {"step": torch.ones(1), "exp_avg": None},
    }
    with zipfile.ZipFile(BytesIO(saved({"optim": {**state(), "state": moments}}))) as archive:
        _, contents = parsed(archive.read("archive/data.pkl"))
    (one,) = optimizers_of(contents)
    assert one.shapes == {0: (2, 3)}
    (joint,) = found({**state(), "state": {0: {"prev_flat_grad": None}}})
    assert joint.joint


def test_new_order_has_the_names_of_its_parameters() -> None:
    data = pickle.dumps({"optim": state()}, 2)
    read, contents = parsed(data)
    (one,) = optimizers_of(contents)
    order = [[1, 0], [2]]
    edits = reordering(data, "it", {one.path: order})
    new = pickle.loads(rename_texts(data, read, one.renamed(order, {"a": "z", "c": "y"}), edits))  # noqa: S301 - made here
    first, second = new["optim"]["param_groups"]
    assert first == {"lr": 0.1, "params": [1, 0], "param_names": ["b", "z"]}
    assert second == {"lr": 0.2, "params": [2], "param_names": ["y"]}
    assert new["optim"]["state"] == state()["state"]


@pytest.mark.parametrize("names", [["a", "b"], ["a"], ["a", "b", "c"]])
def test_parameters_that_stay_are_numbered_from_zero(names: list[str]) -> None:
    value = changed(0, param_names=names)
    value["state"]["all"] = "kept"
    _, contents = parsed(pickle.dumps({"optim": value}, 2))
    ((_, node),) = contents.optimizers
    new = plain(node, with_groups(node, [[1], [2]]))
    assert new["state"] == {0: {"step": 6}, 1: {"step": 7}, "all": "kept"}
    of_two = ["b"] if len(names) == 2 else names
    assert new["param_groups"] == [
        {"lr": 0.1, "params": [0], "param_names": of_two},
        {"lr": 0.2, "params": [1], "param_names": ["c"]},
    ]


def held(value: object, *, flat: bool = False) -> HeldOptimizer | None:
    read, _ = parsed(pickle.dumps(value, 2))
    assert isinstance(read.root, DictNode)
    one = held_optimizers(
        [] if flat else [("optim", read.root)], {"optim": read.root} if flat else {}
    )
    return one[0] if one else None


FLAT = {"state.a.w.step": 5, "param_groups.a.w.lr": 0.1, "param_groups.b.lr": 0.2}


def test_held_optimizer_has_what_is_set_for_each_group() -> None:
    one = held(state())
    assert one is not None
    assert (one.groups, one.names) == (((0, 1), (2,)), (("a", "b"), ("c",)))
    assert one.options == ({"lr": 0.1}, {"lr": 0.2})
    assert one.state == {0: {"step": 5}, 1: {"step": 6}, 2: {"step": 7}}
    assert (one.flat, one.is_numbered, one.is_joint) == (False, True, False)


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"], None])
def test_held_optimizer_has_all_names_or_none(names: object) -> None:
    one = held(changed(0, param_names=names))
    assert one is not None
    assert (one.groups, one.names) == (((0, 1), (2,)), ())


def test_flat_optimizer_has_a_group_for_each_parameter() -> None:
    one = held(FLAT, flat=True)
    assert one is not None
    assert (one.groups, one.names, one.flat) == ((("a.w",), ("b",)), (), True)
    assert (one.options, one.state) == (({"lr": 0.1}, {"lr": 0.2}), {"a.w": {"step": 5}})
    assert (one.is_numbered, one.is_joint) == (False, False)


@pytest.mark.parametrize(
    ("value", "flat"),
    [
        (changed(0, params=[0, 2]), False),
        (changed(0, params=[0, "b"]), False),
        (changed(0, params=None), False),
        ({**state(), "param_groups": [[0, 1]]}, False),
        ({**state(), "param_groups": []}, False),
        ({**state(), "param_groups": [*state()["param_groups"], [3]]}, False),
        ({**state(), "state": []}, False),
        ({"state.a.step": 5}, True),
        ({**FLAT, "epoch": 3}, True),
        ({**FLAT, "state.step": 3}, True),
        ({**FLAT, 1: 3}, True),
    ],
    ids=str,
)
def test_optimizer_of_another_form_is_not_held(value: object, flat: bool) -> None:
    assert held(value, flat=flat) is None


def test_new_parameters_have_their_numbers_and_names() -> None:
    value = state()
    value["state"]["all"] = "kept"
    one = held(value)
    assert one is not None
    called = {"x": 0, "y": 1, "z": 2}
    instead = with_parameters(one, [["y"], ["x", "z"]], {"y": {"step": 9}}, called)
    new = plain(one.node, instead)
    assert new["state"] == {1: {"step": 9}, "all": "kept"}
    assert new["param_groups"] == [
        {"lr": 0.1, "params": [1], "param_names": ["y"]},
        {"lr": 0.2, "params": [0, 2], "param_names": ["x", "z"]},
    ]


def test_new_parameters_of_a_flat_optimizer_have_keys_of_their_own() -> None:
    one = held(FLAT, flat=True)
    assert one is not None
    called = {"x": "net.x", "y": "net.y"}
    new = plain(one.node, with_parameters(one, [["x"], ["y"]], {"y": {"step": 9}}, called))
    assert new == {
        "state.net.y.step": 9,
        "param_groups.net.x.lr": 0.1,
        "param_groups.net.y.lr": 0.2,
    }
