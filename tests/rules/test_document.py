"""Rules as a document: they read back as they were, and a wrong field is named."""

from typing import Any

import pytest

from ckpt.errors import PlanError, RuleError
from ckpt.rules.at_once import AtOnce, parse_swap
from ckpt.rules.choice import drop, keep
from ckpt.rules.document import read_rules, rules_document
from ckpt.rules.key_map import key_map
from ckpt.rules.plan import plan_tensors
from ckpt.rules.planned import Rule
from ckpt.rules.prefixes import Add, Strip, Unwrap
from ckpt.rules.substitution import parse_rule
from ckpt.tensors import TensorEntry

RULES: list[Rule] = [
    parse_rule("a->b"),
    parse_rule("a.b->b", literal=True),
    parse_rule("a->b", word=True),
    parse_rule("a.->b", literal=True, word=True),
    parse_swap("a<->b"),
    parse_swap("a<->b", word=True),
    AtOnce((parse_rule("a->b"), parse_rule("b->c"))),
    AtOnce(tuple(parse_rule(text, literal=True, word=True) for text in ("a->b", "b->c"))),
    key_map({"a.b": "c", "d": "e"}, name="the map"),
    drop("a$"),
    keep("^a"),
    Strip("module."),
    Add("encoder."),
    Unwrap(),
]  # fmt: skip

OPERATIONS: list[dict[str, Any]] = [
    {"split": "w", "into": ["q", "k"]},
    {"split": "w", "into": ["q", "k"], "dim": 1, "sizes": [2, 4]},
    {"concat": ["^w", "^v"], "into": "x"},
    {"concat": ["^w", "^v"], "into": "x", "dim": 1},
    {"stack": r"h\.(\d)", "into": "h"},
    {"unstack": "w", "into": "h.{i}", "dim": 1},
    {"duplicate": "w", "into": ["a", "b"]},
    {"tie": "w", "into": ["a", "b"]},
    {"transpose": "w"},
    {"transpose": "w", "dims": [1, 0]},
    {"permute": "w", "dims": [1, 0]},
    {"reshape": "w", "shape": [-1]},
    {"squeeze": "w", "dim": 1},
    {"unsqueeze": "w", "dim": 2},
    {"cast": "w", "dtype": "float16"},
    {"slice": "w", "dim": 1, "start": 1, "stop": -1},
    {"slice": "w"},
    {"pad": "w", "size": 8, "value": 0},
    {"pad": "w", "dim": 1, "size": 8, "value": "mean"},
    {"resize": "w", "from": [2, 1], "to": [3, 2], "mode": "bilinear"},
    {
        **{"resize": "w", "from": [1, 1], "to": [3, 2], "mode": "bicubic"},
        **{"prefix": 1, "antialias": True},
    },
    {"fill": "b", "beside": "w", "value": 1.5},
    {"fill": "b", "beside": "w", "value": 1, "shape": [2], "dtype": "int64"},
]


def test_rules_read_back_as_they_were() -> None:
    again = read_rules(rules_document(RULES), name="rules")
    assert again == RULES
    assert [rule.text for rule in again] == [rule.text for rule in RULES]
    assert rules_document(again) == rules_document(RULES)


@pytest.mark.parametrize("table", OPERATIONS)
def test_operations_read_back_as_they_were(table: dict[str, Any]) -> None:
    (rule,) = read_rules([table], name="rules")
    assert rules_document([rule]) == [table]
    shuffled = dict(reversed(table.items()))
    (rule,) = read_rules([shuffled], name="rules")
    (written,) = rules_document([rule])
    assert written == table
    assert next(iter(written)) == next(iter(table))  # the verb comes first
    assert rule.text == f"{next(iter(table))} '{_first(next(iter(table.values())))}'"


def _first(wanted: str | list[str]) -> str:
    return wanted if isinstance(wanted, str) else wanted[0]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("a->b", "not a table"),
        ({}, "has only nothing, expected one verb"),
        ({"dim": 1, "into": "a"}, "has only dim, into, expected one verb"),
        ({"rename": "a->b", "drop": "c"}, "has 'rename' and 'drop', expected one verb"),
        ({"rename": "a->b", "wordd": True}, "rename has no 'wordd'"),
        ({"rename": "a->b", "z": 1, "b": 2}, "rename has no 'b'"),
        ({"rename": ""}, "rename is '', expected a non-empty string"),
        ({"rename": 3}, "rename is 3, expected a non-empty string"),
        ({"rename": "a"}, "has no arrow"),
        ({"rename": "a->b", "word": 1}, "word is 1, expected true or false"),
        ({"rename": "a->b", "literal": "no"}, "literal is 'no', expected true or false"),
        ({"at_once": []}, "at_once is [], expected a list of 1 or more strings"),
        ({"at_once": "a->b"}, "expected a list of 1 or more strings"),
        ({"at_once": ["a->b", ""]}, "expected a list of non-empty strings"),
        ({"at_once": ["a->b", 3]}, "expected a list of non-empty strings"),
        ({"map": {}}, "expected an object of old key to new key"),
        ({"map": [1]}, "not a map"),
        ({"map": {"a": 1}}, "'a' is mapped to 1"),
        ({"map": {"": "b"}}, "'' is mapped to 'b'"),
        ({"map": {"a": ""}}, "'a' is mapped to ''"),
        ({"unwrap": False}, "unwrap is False, expected true"),
        ({"split": "w"}, "into is None, expected a list of 1 or more strings"),
        ({"split": "w", "into": ["a"], "sizes": [1.5]}, "expected a list of whole numbers"),
        ({"split": "w", "into": ["a"], "sizes": 3}, "expected a list of whole numbers"),
        ({"split": "w", "into": ["a"], "sizes": [True]}, "expected a list of whole numbers"),
        ({"split": "w", "into": ["a"], "dim": True}, "dim is True, expected a whole number"),
        ({"concat": ["a"], "into": "b"}, "expected a list of 2 or more strings"),
        ({"unstack": "a", "into": "b"}, "into is 'b', expected a name with {i} for the index"),
        ({"transpose": "a", "dims": [1]}, "dims is [1], expected a list of two numbers"),
        ({"transpose": "a", "dims": [0, 1, 2]}, "expected a list of two numbers"),
        ({"permute": "a"}, "dims is None, expected a list of whole numbers"),
        ({"reshape": "a"}, "shape is None, expected a list of whole numbers"),
        ({"cast": "a"}, "dtype is None, expected a non-empty string"),
        ({"fill": "a", "beside": "b"}, "value is None, expected a number"),
        ({"fill": "a", "beside": "b", "value": True}, "value is True, expected a number"),
        ({"fill": "a", "beside": "b", "value": 1, "dtype": "f32"}, "a dtype like float32 or int64"),
    ],
)  # fmt: skip
def test_wrong_table_is_refused_with_its_place(table: object, says: str) -> None:
    with pytest.raises(RuleError) as caught:
        read_rules([{"rename": "a->b"}, table], name="rules.toml")
    assert says in str(caught.value)
    assert str(caught.value).startswith("rules.toml: rule 2: ")
    assert str(caught.value).count("rules.toml") == 1


@pytest.mark.parametrize("document", [None, [], {}, {"rules": []}, "a->b"])
def test_document_that_is_no_list_is_refused(document: object) -> None:
    with pytest.raises(RuleError, match=r"rules\.toml: not a list of rules"):
        read_rules(document, name="rules.toml")


def test_ten_thousand_rules_are_read_and_no_more() -> None:
    assert len(read_rules([{"unwrap": True}] * 10_000, name="rules")) == 10_000
    with pytest.raises(RuleError, match="10,001 rules, the limit is 10,000"):
        read_rules([{"unwrap": True}] * 10_001, name="rules")


@pytest.mark.parametrize(
    ("table", "shapes"),
    [
        ({"split": "w", "into": ["q", "k"]}, {"q": (2, 6), "k": (2, 6)}),
        ({"unstack": "w", "into": "h.{i}"}, {f"h.{i}": (6,) for i in range(4)}),
        ({"transpose": "w"}, {"w": (6, 4)}),
        ({"unsqueeze": "w"}, {"w": (1, 4, 6)}),
        ({"squeeze": "w"}, None),
    ],
)
def test_dimension_that_is_not_said_is_the_first(
    table: dict[str, Any], shapes: dict[str, tuple[int, ...]] | None
) -> None:
    entries = [TensorEntry("w", "float32", (4, 6))]
    rules = read_rules([table], name="rules")
    if shapes is None:
        with pytest.raises(PlanError):
            plan_tensors(entries, rules)
        return
    made = plan_tensors(entries, rules).tensors
    assert {each.key: each.made_of.shape for each in made} == shapes
    assert {each.made_of.dtype for each in made} == {"float32"}
