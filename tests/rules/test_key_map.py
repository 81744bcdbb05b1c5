"""Key maps: what is listed, and what belongs to it."""

import pytest

from ckpt.errors import UnmatchedRuleError
from ckpt.rules.key_map import key_map
from tests.rules.support import plan_renames

QUANTISED = [
    "a.q.weight",
    "a.q.weight_scale_inv",
    "a.q.weight_zero_point",
    "a.q.weight.absmax",
    "a.q.weight_other",
    "a.k.weight_scale",
]


def landed(keys: list[str], pairs: dict[str, str]) -> list[str]:
    return [each.new for each in plan_renames(keys, [key_map(pairs, name="m")]).changes]


def test_companions_of_a_quantised_weight_follow_it() -> None:
    assert landed(QUANTISED, {"a.q.weight": "b.query.weight"}) == [
        "b.query.weight",
        "b.query.weight_scale_inv",
        "b.query.weight_zero_point",
        "b.query.weight.absmax",
        "a.q.weight_other",
        "a.k.weight_scale",
    ]


def test_companion_that_is_listed_itself_goes_where_it_is_told() -> None:
    pairs = {"a.q.weight": "b.w", "a.q.weight_scale_inv": "b.s"}
    assert landed(QUANTISED[:2], pairs) == ["b.w", "b.s"]


def test_companion_alone_is_no_match_of_its_weight() -> None:
    assert landed(["a.w_scale", "a.b"], {"a": "c"}) == ["c.w_scale", "c.b"]
    with pytest.raises(UnmatchedRuleError, match="is not one of the 2 keys"):
        landed(["a.w", "a.b"], {"a.w_scale": "c"})
