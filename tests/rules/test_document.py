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
        ("a->b", "no table"),
        ({}, "has only nothing, one verb was expected"),
        ({"dim": 1, "into": "a"}, "has only dim, into, one verb was expected"),
        ({"rename": "a->b", "drop": "c"}, "has 'rename' and 'drop', one verb was expected"),
        ({"rename": "a->b", "wordd": True}, "rename has no 'wordd'"),
        ({"rename": "a->b", "z": 1, "b": 2}, "rename has no 'b'"),
        ({"rename": ""}, "rename is '', a text was expected"),
        ({"rename": 3}, "rename is 3, a text was expected"),
        ({"rename": "a"}, "has no arrow"),
        ({"rename": "a->b", "word": 1}, "word is 1, true or false was expected"),
        ({"rename": "a->b", "literal": "no"}, "literal is 'no', true or false was expected"),
        ({"at_once": []}, "at_once is [], a list of 1 texts or more was expected"),
        ({"at_once": "a->b"}, "a list of 1 texts or more was expected"),
        ({"at_once": ["a->b", ""]}, "a list of texts was expected"),
        ({"at_once": ["a->b", 3]}, "a list of texts was expected"),
        ({"map": {}}, "not empty"),
        ({"map": [1]}, "a map is an object"),
        ({"map": {"a": 1}}, "'a' is mapped to 1"),
        ({"map": {"": "b"}}, "'' is mapped to 'b'"),
        ({"map": {"a": ""}}, "'a' is mapped to ''"),
        ({"unwrap": False}, "unwrap is False, true was expected"),
        ({"split": "w"}, "into is None, a list of 1 texts or more was expected"),
        ({"split": "w", "into": ["a"], "sizes": [1.5]}, "a list of whole numbers was expected"),
        ({"split": "w", "into": ["a"], "sizes": 3}, "a list of whole numbers was expected"),
        ({"split": "w", "into": ["a"], "sizes": [True]}, "a list of whole numbers was expected"),
        ({"split": "w", "into": ["a"], "dim": True}, "dim is True, a whole number was expected"),
        ({"concat": ["a"], "into": "b"}, "a list of 2 texts or more was expected"),
        ({"unstack": "a", "into": "b"}, "into is 'b', a name with {i} for the index was expected"),
        ({"transpose": "a", "dims": [1]}, "dims is [1], a list of two numbers was expected"),
        ({"transpose": "a", "dims": [0, 1, 2]}, "a list of two numbers was expected"),
        ({"permute": "a"}, "dims is None, a list of whole numbers was expected"),
        ({"reshape": "a"}, "shape is None, a list of whole numbers was expected"),
        ({"cast": "a"}, "dtype is None, a text was expected"),
        ({"fill": "a", "beside": "b"}, "value is None, a number was expected"),
        ({"fill": "a", "beside": "b", "value": True}, "value is True, a number was expected"),
        ({"fill": "a", "beside": "b", "value": 1, "dtype": "f32"}, "one like float32 or int64"),
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
    with pytest.raises(RuleError, match=r"rules\.toml: no list of rules"):
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
