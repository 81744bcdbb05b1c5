"""The rule files of `examples/rules`: real conversions, checked key by key and shape by shape.

The true mappings are in `tests/data/pairs`.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from ckpt.ops.rename.rule_files import read_rule_file
from ckpt.rules.derived.inverse import inverse
from ckpt.rules.document import read_rules, rules_document
from ckpt.rules.expressions import Expression, Filled, Source, sources_of
from ckpt.rules.plan import Plan, plan_tensors
from ckpt.tensors import TensorEntry

RULES = sorted((Path(__file__).parents[2] / "examples" / "rules").glob("*.toml"))
PAIRS = Path(__file__).parents[1] / "data" / "pairs"
every_example = pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)


def pair_of(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((PAIRS / f"{path.stem}.json").read_text())
    return document


def entries(listed: list[Any]) -> list[TensorEntry]:
    """Keys and shapes; the shape is not known of every key that is dropped."""
    return [
        TensorEntry(key, "float32", (1,) if shape is None else tuple(shape))
        for key, shape in listed
    ]


def planned(path: Path) -> Plan:
    return plan_tensors(entries(pair_of(path)["source"]), read_rule_file(path).rules)


def test_every_rule_file_has_its_pair() -> None:
    assert len(RULES) == 15
    assert {path.stem for path in RULES} <= {path.stem for path in PAIRS.glob("*.json")}


@every_example
def test_keys_and_shapes_are_those_of_the_target(path: Path) -> None:
    pair, plan = pair_of(path), planned(path)
    made = {each.key: list(each.made_of.shape) for each in plan.tensors}
    assert made == dict(pair["target"])


@every_example
def test_every_key_comes_from_where_it_should(path: Path) -> None:
    pair, plan = pair_of(path), planned(path)
    wanted: dict[str, list[str]] = {}
    for old, new, *_ in pair["pairs"]:
        wanted.setdefault(new, []).append(old)
    for each in plan.tensors:
        assert list(sources_of(each.made_of)) == wanted.get(each.key, []), each.key
    assert [each.key for each in plan.dropped] == pair["dropped"]
    added = {each.key for each in plan.tensors if isinstance(each.made_of, Filled)}
    assert added == set(pair["added"])


@every_example
def test_operations_are_those_of_the_converter(path: Path) -> None:
    pair, plan = pair_of(path), planned(path)
    made = {each.key: each.made_of for each in plan.tensors}
    operated = set()
    for operation in pair["ops"]:
        news = operation["new"] if isinstance(operation["new"], list) else [operation["new"]]
        operated |= set(news)
        for number, new in enumerate(news):
            assert described(made[new]) == expected(operation, number), new
    plain = {key for key in made if key not in operated} - set(pair["added"])
    copies = {key for key in plain if not isinstance(made[key], Source)}
    assert len(copies) == (1 if "duplicate" in pair["kind"] else 0)


def described(made: Expression) -> tuple[Any, ...]:
    name = type(made).__name__
    if name == "Narrowed":
        return name, made.dim, made.start, made.length  # type: ignore[union-attr]
    if name == "Permuted":
        return name, made.dims  # type: ignore[union-attr]
    return name, made.dim  # type: ignore[union-attr]


def expected(operation: dict[str, Any], number: int) -> tuple[Any, ...]:
    match operation["op"]:
        case "split":
            sizes = operation["sizes"]
            return "Narrowed", operation["dim"], sum(sizes[:number]), sizes[number]
        case "concat":
            return "Joined", operation["dim"]
        case "transpose":
            return "Permuted", (1, 0)
    raise ValueError(operation["op"])


@every_example
def test_what_has_an_inverse_gives_the_source_again(path: Path) -> None:
    plan = planned(path)
    if plan.dropped:
        return
    sources = entries(pair_of(path)["source"])
    back = inverse([Source(e.key, e.dtype, e.shape) for e in sources], plan.tensors)
    assert [(each.key, each.made_of.shape) for each in back] == [(e.key, e.shape) for e in sources]


@every_example
def test_document_of_the_rules_is_the_same_rules(path: Path) -> None:
    rules = read_rule_file(path).rules
    document = rules_document(rules)
    assert rules_document(read_rules(document, name="again")) == document
    assert [rule.text for rule in read_rules(document, name="again")] == [r.text for r in rules]


def test_few_rules_do_it() -> None:
    """Each of a group counts."""
    counts = {
        path.stem: sum(len(each.get("at_once", "1")) for each in document)
        for path in RULES
        for document in [rules_document(read_rule_file(path).rules)]
    }
    assert max(counts.values()) <= 20
    assert sum(counts.values()) <= 110
