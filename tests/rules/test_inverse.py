"""A plan, then its inverse, is the identity on every key, dtype, shape and element."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckpt.errors import PlanError
from ckpt.rules.derived.inverse import inverse
from ckpt.rules.document import read_rules
from ckpt.rules.expressions import Source
from ckpt.rules.plan import plan_tensors
from ckpt.tensors import TensorEntry
from tests.rules.test_expressions import values

WHOLE = torch.arange(48.0).reshape(4, 6, 2)


def undone(rules: list[dict[str, Any]], tensors: dict[str, torch.Tensor]) -> None:
    """Apply the rules, then their inverse, and compare all elements."""
    dtypes = {key: str(each.dtype).removeprefix("torch.") for key, each in tensors.items()}
    entries = [TensorEntry(key, dtypes[key], tuple(each.shape)) for key, each in tensors.items()]
    planned = plan_tensors(entries, read_rules(rules, name="rules")).tensors
    there = {each.key: values(each.made_of, tensors) for each in planned}
    back = inverse([Source(each.key, each.dtype, each.shape) for each in entries], planned)
    assert [each.key for each in back] == list(tensors)
    for each in back:
        found = values(each.made_of, there)
        assert torch.equal(found, tensors[each.key])
        assert found.dtype == tensors[each.key].dtype
        assert each.made_of.shape == tuple(found.shape)


@pytest.mark.parametrize(
    "rules",
    [
        [{"rename": "w->x"}],
        [{"permute": "w", "dims": [2, 0, 1]}],
        [{"transpose": "w", "dims": [0, -1]}, {"reshape": "w", "shape": [-1]}],
        [{"split": "w", "into": ["a", "b", "c"], "dim": 1}],
        [{"split": "w", "into": ["c", "b", "a"], "dim": 1, "sizes": [1, 0, 5]}],
        [{"unstack": "w", "into": "e.{i}", "dim": 1}],
        [{"unstack": "w", "into": "e.{i}"}, {"stack": r"e\.(\d+)", "into": "x", "dim": 2}],
        [{"split": "w", "into": ["a", "b"]}, {"split": "a", "into": ["c", "d"], "dim": 1},
         {"transpose": "c"}, {"cast": "b", "dtype": "float64"}],
        [{"split": "w", "into": ["a", "b"]}, {"concat": ["b", "a"], "into": "x", "dim": 1}],
        [{"duplicate": "w", "into": ["a", "b"]}, {"drop": "^a$"}],
        [{"tie": "w", "into": ["a", "b"]}, {"cast": "a", "dtype": "int8"}],
        [{"fill": "extra", "beside": "w", "value": 0}],
        [{"cast": "w", "dtype": "float32"}],
        [{"pad": "w", "size": 9, "value": 0.5}],
        [{"pad": "w", "dim": -1, "size": 5, "value": "mean"}, {"transpose": "w"}],
        [{"slice": "w", "start": -4}],
    ],
)  # fmt: skip
def test_plan_then_its_inverse_is_the_identity(rules: list[dict[str, Any]]) -> None:
    undone(rules, {"w": WHOLE})
    undone(rules, {"n": WHOLE[0], "w": WHOLE})


def test_several_tensors_become_one_and_come_back() -> None:
    tensors = {f"h.{i}.w": WHOLE[:, i] for i in range(3)}
    undone([{"stack": r"h\.(\d+)", "into": "h", "dim": 1}], tensors)
    parts = {"q": WHOLE[:1], "k": WHOLE[1:], "v": WHOLE[:0]}
    undone([{"concat": ["k", "v", "q"], "into": "x"}], parts)


@given(st.permutations(range(4)), st.lists(st.integers(0, 3), min_size=1, max_size=3))
def test_parts_in_any_order_make_up_the_whole(order: list[int], dims: list[int]) -> None:
    letters = "abcd"
    rules: list[dict[str, Any]] = [
        {"split": "w", "into": list(letters)},
        *({"transpose": letters[dim], "dims": [1, 2]} for dim in dims),
        {"at_once": [f"^{old}$->{letters[new]}2" for old, new in zip(letters, order, strict=True)]},
    ]
    undone(rules, {"w": WHOLE})


EXACT = {
    "float16": ["float32", "float64"], "bfloat16": ["float32", "float64"],
    "float32": ["float64"], "int8": ["int16", "int32", "int64"], "int16": ["int32", "int64"],
    "int32": ["int64"], "uint8": ["int16", "int32", "int64"], "bool": ["uint8"],
}  # fmt: skip
DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32"]


@pytest.mark.parametrize("old", DTYPES)
@pytest.mark.parametrize("new", [*DTYPES, "float64"])
def test_cast_is_undone_if_it_loses_nothing(old: str, new: str) -> None:
    cast = {"w": (WHOLE % 2).to(getattr(torch, old))}
    if old == new or new in EXACT.get(old, ()):
        undone([{"cast": "w", "dtype": new}], cast)
    else:
        with pytest.raises(PlanError, match="was cast or resized, which rounds, or dropped"):
            undone([{"cast": "w", "dtype": new}], cast)


def test_part_that_is_missing_is_said() -> None:
    rules = [{"split": "w", "into": ["a", "b", "c", "d"]}, {"drop": "b"}]
    with pytest.raises(
        PlanError, match=r"^w: is only partly in the result; the plan has no inverse"
    ):
        undone(rules, {"w": WHOLE})
    with pytest.raises(PlanError, match=r"^w: is only partly in the result"):
        undone([{"slice": "w", "start": 1}], {"w": WHOLE})
    with pytest.raises(PlanError, match=r"^w: was cast or resized, which rounds, or dropped"):
        undone([{"drop": "w"}], {"w": WHOLE, "x": WHOLE})
