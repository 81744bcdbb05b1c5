"""Operations: which tensors they find, what they name, and what they refuse."""

from typing import Any

import pytest

from ckpt.errors import PlanError, UnmatchedRuleError
from ckpt.rules.document import read_rules
from ckpt.rules.expressions import Copied, Source, sources_of
from ckpt.rules.plan import Plan, plan_tensors
from ckpt.tensors import TensorEntry


def planned(shapes: dict[str, tuple[int, ...]], *tables: dict[str, Any]) -> Plan:
    entries = [TensorEntry(key, "float32", shape) for key, shape in shapes.items()]
    return plan_tensors(entries, read_rules(list(tables), name="rules"))


def made(shapes: dict[str, tuple[int, ...]], *tables: dict[str, Any]) -> dict[str, list[str]]:
    """New key to the old keys that it is made of."""
    tensors = planned(shapes, *tables).tensors
    return {each.key: list(sources_of(each.made_of)) for each in tensors}


EXPERTS = {f"e.{i}.w": (2, 3) for i in (10, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9)}


def test_stacked_in_the_order_of_their_numbers_in_the_place_of_the_first() -> None:
    shapes = {"a": (1,), "e.1.w": (2,), "b": (1,), "e.0.w": (2,), "e.2.w": (2,), "c": (1,)}
    found = made(shapes, {"stack": r"e\.(\d+)", "into": "e"})
    assert found == {"a": ["a"], "e.w": ["e.0.w", "e.1.w", "e.2.w"], "b": ["b"], "c": ["c"]}
    assert list(found) == ["a", "e.w", "b", "c"]
    (whole,) = planned(EXPERTS, {"stack": r"e\.(\d+)", "into": "e", "dim": 1}).tensors
    assert list(sources_of(whole.made_of)) == [f"e.{i}.w" for i in range(11)]
    assert whole.made_of.shape == (2, 11, 3)
    assert whole.rules == (1,)


def test_joined_by_name_in_the_order_of_the_rules() -> None:
    shapes = {"n": (1,), "b.k": (1, 2), "a.q": (2, 2), "b.q": (3, 2), "a.k": (4, 2), "m": (1,)}
    found = made(shapes, {"concat": ["q$", "k$"], "into": "qk"})
    assert found == {"n": ["n"], "b.qk": ["b.q", "b.k"], "a.qk": ["a.q", "a.k"], "m": ["m"]}
    assert list(found) == ["n", "b.qk", "a.qk", "m"]
    # The first pattern that finds a tensor has it.
    found = made({"kq": (1,), "q": (1,)}, {"concat": ["^q$", "^.*q$"], "into": "x"})
    assert found == {"x": ["q", "kq"]}


def test_rules_that_had_a_part_are_all_named() -> None:
    plan = planned(
        {"a.q": (1,), "a.k": (1,), "z": (1,)},
        {"rename": "q->query"},
        {"rename": "k->key"},
        {"concat": ["query", "key"], "into": "x"},
        {"rename": "z->y"},
    )
    assert {each.key: each.rules for each in plan.tensors} == {"a.x": (1, 2, 3), "y": (4,)}
    assert [plan.touched(number) for number in (1, 2, 3, 4)] == [1, 1, 1, 1]
    assert [change.new for change in plan.changes] == ["y"]
    assert [each.key for each in plan.made] == ["a.x"]
    assert not plan.is_rename


def test_split_and_unstack_leave_the_others_and_keep_the_place() -> None:
    shapes = {"a": (1,), "w": (4, 6), "z": (1,)}
    assert list(made(shapes, {"split": "w", "into": ["q", "k"]})) == ["a", "q", "k", "z"]
    found = made(shapes, {"unstack": "w", "into": "w.{i}.x", "dim": -2})
    assert list(found) == ["a", *(f"w.{i}.x" for i in range(4)), "z"]


@pytest.mark.long
def test_unstacked_up_to_100_000_parts() -> None:
    assert len(planned({"w": (100_000, 0)}, {"unstack": "w", "into": "w.{i}"}).tensors) == 100_000
    with pytest.raises(PlanError, match="100,001 parts, the limit is 100,000"):
        planned({"w": (100_001, 0)}, {"unstack": "w", "into": "w.{i}"})


def test_filled_beside_each_that_is_found() -> None:
    tables = ({"fill": "s", "beside": "w$", "value": 2}, {"fill": "t", "beside": "n", "value": 0,
              "shape": [5], "dtype": "int8"})  # fmt: skip
    tensors = planned({"a.w": (2, 3), "n": (1,)}, *tables).tensors
    shown = [(each.key, each.made_of.dtype, each.made_of.shape) for each in tensors]
    assert shown == [
        ("a.w", "float32", (2, 3)), ("a.s", "float32", (2, 3)),
        ("n", "float32", (1,)), ("t", "int8", (5,)),
    ]  # fmt: skip
    assert tensors[1].rules == (1,)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_duplicates_have_bytes_of_their_own_but_for_the_first(count: int) -> None:
    names = [f"c{i}" for i in range(count)]
    copies = planned({"w": (2,)}, {"duplicate": "w", "into": names}).tensors
    assert [each.key for each in copies] == names
    assert [type(each.made_of) for each in copies] == [Source, *[Copied] * (count - 1)]
    tied = planned({"w": (2,)}, {"tie": "w", "into": names})
    assert [type(each.made_of) for each in tied.tensors] == [Source] * count
    assert tied.is_rename == (count == 1)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"split": "w", "into": ["a", "b", "c"]}, r"^split 'w': w: cannot split dimension 0 of "),
        ({"unstack": "w", "into": "x{i}", "dim": 2}, r"^unstack 'w': w: shape \[2, 3\] has no dim"),
        ({"stack": "w", "into": "x"}, "^stack 'w': the first group of 'w' is not a number"),
        ({"stack": "(w)", "into": "x"}, r"the first group of '\(w\)' is not a number"),
        ({"stack": r"(\d)?w", "into": "x"}, "is not a number"),
        ({"stack": r"e\.(\d)", "into": "e"}, r"^stack 'e\\.\(\\d\)': e\.w lacks part 0"),
        ({"concat": ["w", "v"], "into": "x"}, "^concat 'w': x lacks part 2, 'v'"),
        ({"concat": ["v", "w"], "into": "x"}, "^concat 'v': x lacks part 1, 'v'"),
        ({"concat": [r"e\.\d\.w", "w"], "into": "x"},
         r"e\.1\.w and e\.2\.w are both part 1 of x"),
        ({"concat": ["^w", r"e\.\d\.w"], "into": "x"},
         r"e\.1\.w and e\.2\.w are both part 2 of x"),
        ({"concat": ["^w", r"e\.1\.w"], "into": "x", "dim": 2}, "^concat '.w': x: shape"),
        ({"permute": "^w", "dims": [0, 0]}, r"^permute '\^w': w: \[0, 0\] does not name each"),
        ({"fill": "x", "beside": "^w", "value": 0, "shape": [-1]}, "^fill 'x': w: .*not the shape"),
        ({"drop": ""}, "drop is ''"),
        ({"drop": "."}, "no tensor would be left"),
    ],
)  # fmt: skip
def test_operation_that_does_not_fit_says_which_and_why(table: dict[str, Any], says: str) -> None:
    with pytest.raises(Exception, match=says) as caught:
        planned({"w": (2, 3), "e.1.w": (2, 3), "e.2.w": (2, 3)}, table)
    assert caught.type.__module__ == "ckpt.errors"


@pytest.mark.parametrize(
    "table",
    [
        {"split": "zz", "into": ["a", "b"]}, {"unstack": "zz", "into": "a{i}"},
        {"stack": r"zz(\d)", "into": "a"}, {"concat": ["zz", "w"], "into": "a"},
        {"transpose": "zz"}, {"fill": "a", "beside": "zz", "value": 0}, {"drop": "zz"},
        {"keep": "zz"}, {"strip": "zz"}, {"unwrap": True},
    ],
)  # fmt: skip
def test_operation_that_finds_nothing_is_refused(table: dict[str, Any]) -> None:
    says = r"^rule 1, .*: '(zz.*|module\.)' matches none of the 2 keys$"
    with pytest.raises(UnmatchedRuleError, match=says):
        planned({"a": (2, 3), "b": (1,)}, table)


def test_two_tensors_of_one_number_are_refused() -> None:
    with pytest.raises(PlanError, match=r"e\.1\.w and e\.01\.w are both part 1 of"):
        planned({"e.0.w": (1,), "e.1.w": (1,), "e.01.w": (1,)},
                {"stack": r"e\.(\d+)", "into": "e"})  # fmt: skip


def test_swap_is_no_operation_on_others() -> None:
    plan = planned({"a.w": (1,), "b.w": (2,), "c": (3,)}, {"rename": "a<->b"})
    assert plan.is_rename
    assert [change.rules for change in plan.changes] == [(1,), (1,), ()]
    assert plan.new_keys == {"a.w": "b.w", "b.w": "a.w", "c": "c"}
