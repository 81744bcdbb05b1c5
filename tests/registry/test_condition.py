"""Conditions on versions; Python's own evaluation is the oracle of and, or, not and parentheses."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.errors import UsageError
from ckpt.registry.condition import expect_fields, parse_condition, values_text
from ckpt.registry.events import Event
from ckpt.registry.index import Index
from tests.registry.test_index import version

V1 = replace(version(1), metrics={"accuracy": 0.9, "val acc": 0.5}, message="and so on", keys=8)
V2 = replace(version(2), metrics={"accuracy": 0.95, "loss": 0.25}, size=2_400_000)
INDEX = Index().with_version(V1).with_version(V2)
INDEX = INDEX.with_model(INDEX.model(None).with_alias("prod", 1).with_tag("gold.a", 2))


def holds(text: str, index: Index = INDEX) -> list[bool | None]:
    """Whether it holds for v1 and for v2."""
    condition = parse_condition(text)
    expect_fields(condition, [V1, V2], index)
    return [condition.holds(each, index) for each in (V1, V2)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("accuracy>0.9", [False, True]),
        ("accuracy >= prod.accuracy", [True, True]),
        ("accuracy > prod.accuracy", [False, True]),
        ("prod.accuracy < accuracy", [False, True]),
        ("v2.accuracy = accuracy", [False, True]),
        ("accuracy = 95%", [False, True]),
        ("95 % <= accuracy", [False, True]),
        ("size >= 2.4MB", [False, True]),
        ("size > 2,399,999", [False, True]),
        ("size < 9B", [True, False]),
        ("keys < 1K", [True, True]),
        ("keys < 0.000000008B", [False, True]),
        ("size > prod.size", [False, True]),
        ("version >= v2", [False, True]),
        ("version == 1", [True, False]),
        ("val acc = 50%", [True, None]),
        ("metric.loss <= .25", [None, True]),
        ("loss < 1", [None, True]),
        ("not loss < 1", [None, False]),
        ("loss < 1 or accuracy > 0", [True, True]),
        ("loss < 1 and accuracy > 1", [False, False]),
        ("loss < 1 and accuracy > 0", [None, True]),
        ("loss < prod.loss", [None, None]),
        ("tag = gold.a", [False, True]),
        ("tag != gold.a", [True, False]),
        ("tag ~ ^gold", [False, True]),
        ("alias = prod", [True, False]),
        ("prod.alias = prod", [True, True]),
        ("made_by=register old.pt", [True, True]),
        ("message = 'and so on'", [True, False]),
        ("message ~ \"so (on|forth)$\"", [True, False]),
        ("message ~ ^$", [False, True]),
        ("model = mnist-cnn and created>2026-11", [True, True]),
        ("(accuracy > 0.92 or alias = prod) and not tag = gold.a", [True, False]),
    ],
)  # fmt: skip
def test_condition_holds(text: str, expected: list[bool | None]) -> None:
    assert holds(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a field or value is missing at the end"),
        ("accuracy", "no comparison after 'accuracy'"),
        ("accuracy >", "a field or value is missing at the end"),
        ("> 1", "a field or value is missing before '>'"),
        ("accuracy > 1 or", "a field or value is missing at the end"),
        ("(accuracy > 1", "a ) is missing"),
        ("accuracy > 1)", "unexpected ')'"),
        ("accuracy > 1 > 2", "unexpected '>'"),
        ("message = 'x", "a quote is not closed"),
        ("1 > 2", "'1' is not a field"),
        ("accuracy > high", "'high' is not a number"),
        ("accuracy > '1'x", "unexpected 'x'"),
        ("accuracy > 'x'", "'x' is not a number"),
        ("acuracy > 1", "no version has a field 'acuracy'"),
        ("accuracy > best.accuracy", "'best.accuracy' is not a metric, nor 'best' an alias"),
        ("accuracy > prod.speed", "no version has a field 'speed'"),
        ("accuracy > 1Q", "'1Q' is not a number"),
        ("accuracy ~ 9", "~ is for text"),
        ("tag > a", "= or !="),
        ("message ~ '('", "not a valid regular expression"),
        ("not " * 60 + "accuracy > 1", "nested deeper than 50"),
        ("(" * 5000 + "accuracy > 1", "nested deeper than 50"),
        ("__import__('os') = 1", "no comparison after '__import__'"),
    ],
)
def test_other_text_is_refused_with_the_reason(text: str, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        holds(text)
    assert says in str(refused.value)


def test_values_of_different_types_are_not_compared() -> None:
    odd = replace(V2, metrics={"val.message": 0.5, "message": 0.25})
    assert parse_condition("val.message > 0.1").holds(odd, INDEX)
    assert parse_condition("metric.message < 1").holds(odd, INDEX)
    for text in ("val.message = x", "keys > prod.message", "keys = prod.tag"):
        with pytest.raises(UsageError, match="cannot be compared"):
            parse_condition(text).holds(odd, INDEX)


def test_bad_pattern_is_stopped() -> None:
    slow = replace(V1, message="a" * 5000 + "b")
    with pytest.raises(UsageError, match="takes too long"):
        parse_condition("message ~ '^(a|aa|a+)+$'").holds(slow, INDEX)


def test_name_that_means_two_values_is_refused() -> None:
    both = replace(V2, metrics={**V2.metrics, "prod.accuracy": 0.1})
    with pytest.raises(UsageError, match="is a metric of mnist-cnn:v2 and a field of another"):
        parse_condition("prod.accuracy > 0").holds(both, INDEX)
    assert parse_condition("metric.prod.accuracy = 0.1").holds(both, INDEX)


def test_other_version_is_compared_with_its_newest_value() -> None:
    log = (Event(did="metric", at="t", manifest=V1.manifest, metrics={"accuracy": 0.99}),)
    index = INDEX.with_model(replace(INDEX.model(None), log=log))
    assert holds("accuracy >= prod.accuracy", index) == [False, False]
    condition = parse_condition("accuracy >= prod.accuracy and loss < 1")
    text = "accuracy is 0.9, prod.accuracy is 0.99, loss is missing"
    assert values_text(condition, V1, index) == text


def expression(draw: random.Random, depth: int) -> str:
    match draw.choice(["and", "or", "not", "()", "x"] if depth else ["x"]):
        case "not":
            return f"not {expression(draw, depth - 1)}"
        case "()":
            return f"({expression(draw, depth - 1)})"
        case "x":
            sign = draw.choice([">", ">=", "<", "<=", "==", "!="])
            return f"{draw.choice('abc')} {sign} {draw.choice(['a', 'b', '0.5', '1'])}"
        case word:
            return f"{expression(draw, depth - 1)} {word} {expression(draw, depth - 1)}"


@given(st.integers(0, 2**32))
def test_combination_means_what_it_means_in_python(seed: int) -> None:
    draw = random.Random(seed)
    text = expression(draw, 5)
    values = {name: draw.choice([0.5, 1.0, 2.0]) for name in "abc"}
    found = parse_condition(text).holds(replace(V1, metrics=values), INDEX)
    assert found == eval(text, {}, values), text
