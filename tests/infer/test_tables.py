"""Real conversions whose tables were not looked at before the method was measured on them.

`tests/data/saved`: what transformers 5 saves is in the names of version 4. Small models, saved by
`save_pretrained`, with numbers that occur once, so that the values tell which tensor became which.
`tests/data/converted`: the renames of published converters, with the models' own keys and shapes.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from ckpt.errors import RuleError
from ckpt.infer.engine import infer
from ckpt.infer.questions import doubtful_operations, questions_of
from ckpt.infer.result import Confidence, Inference
from ckpt.infer.rules.synthesis import MOST_READABLE, count_rules, proves, synthesise
from ckpt.rules.planned import Rule
from ckpt.tensors import TensorEntry
from tests.effort import long_but
from tests.infer.calls import MOST_CALLS, counted_calls

DATA = Path(__file__).parents[1] / "data"
FILES = {name: sorted((DATA / name).glob("*.json")) for name in ("saved", "converted")}
every_model = pytest.mark.parametrize(
    "path", [path for paths in FILES.values() for path in paths], ids=lambda path: path.stem
)


def entries(listed: list[Any]) -> list[TensorEntry]:
    return [
        TensorEntry(key, "float32", (1,) if shape is None else tuple(shape))
        for key, shape in listed
    ]


def inferred(path: Path) -> tuple[dict[str, Any], Inference]:
    pair: dict[str, Any] = json.loads(path.read_text())
    return pair, infer(entries(pair["source"]), entries(pair["target"]))


def listed(one_or_more: Any) -> list[str]:
    return one_or_more if isinstance(one_or_more, list) else [one_or_more]


@every_model
def test_nothing_that_is_sure_is_wrong(path: Path) -> None:
    pair, found = inferred(path)
    truth = {(old, new) for old, new in pair["pairs"]}
    operations = {
        (each["op"], (*listed(each["old"]),), (*listed(each["new"]),)) for each in pair["ops"]
    }
    for match in found.matches:
        if match.confidence is not Confidence.AMBIGUOUS:
            assert (match.source, match.target) in truth
    for one in found.operations:
        if one.confidence is not Confidence.AMBIGUOUS:
            assert (one.verb, one.sources, one.targets) in operations


@pytest.mark.parametrize("name", FILES)
def test_most_models_are_whole(name: str, record_property: Any) -> None:
    whole, keys, asked, made, true = 0, 0, 0, 0, 0
    for path in FILES[name]:
        pair, found = inferred(path)
        whole += found.settled and [*found.dropped] == pair["dropped"] and (
            {*found.missing} == {*pair["added"]}
        )  # fmt: skip
        keys += len(pair["target"])
        asked += sum(1 for _ in found.ambiguous())
        true += len(pair["ops"])
        made += sum(
            ({*one.sources}, {*one.targets})
            in [({*listed(each["old"])}, {*listed(each["new"])}) for each in pair["ops"]]
            for one in found.operations
        )
    figure = f"{whole} of {len(FILES[name])} {name} models whole, {asked} of {keys:,} keys asked"
    record_property("figure", f"{figure}, {made} of {true} operations")
    assert whole >= 0.6 * len(FILES[name])
    assert made >= 0.9 * true
    assert asked <= 0.05 * keys


@pytest.mark.parametrize(
    "path", long_but(FILES["converted"][3::16], FILES["converted"]), ids=lambda path: path.stem
)
def test_rules_of_a_converter_are_readable_and_quick(path: Path) -> None:
    pair, found = inferred(path)
    source, target = entries(pair["source"]), entries(pair["target"])
    with counted_calls() as calls:
        rules = synthesise(source, target, found)
    assert proves(source, target, rules, found)
    assert count_rules(rules) <= MOST_READABLE
    assert calls[0] <= MOST_CALLS


@pytest.mark.long
def test_a_rename_is_asked_about_in_at_most_two_questions() -> None:
    renames = [path for path in (DATA / "pairs").glob("*.json")
               if json.loads(path.read_text())["kind"] == "rename"]  # fmt: skip
    assert renames
    for path in (*renames, *(path for paths in FILES.values() for path in paths)):
        pair, found = inferred(path)
        asked = questions_of(found, entries(pair["source"]), entries(pair["target"]), untried)
        assert len(asked) + len(doubtful_operations(found)) <= 2, path.stem


def untried(rule: Rule) -> Inference:
    raise RuleError(f"'{rule.text}' is not tried")
