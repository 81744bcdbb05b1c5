"""What transformers 5 saves is in the names of version 4: the inference finds its way back.

The tables are in `tests/data/saved`: small models, saved by `save_pretrained`, with numbers that
occur once, so that the values tell which tensor became which. None of them was looked at before
the method was measured on them.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from ckpt.infer.engine import infer
from ckpt.infer.result import Confidence, Inference
from ckpt.tensors import TensorEntry

FILES = sorted((Path(__file__).parents[1] / "data" / "saved").glob("*.json"))
every_model = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def entries(listed: list[Any]) -> list[TensorEntry]:
    return [TensorEntry(key, "float32", tuple(shape)) for key, shape in listed]


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


def test_most_models_are_whole(record_property: Any) -> None:
    whole, keys, asked, made, true = 0, 0, 0, 0, 0
    for path in FILES:
        pair, found = inferred(path)
        whole += found.settled and [*found.dropped] == pair["dropped"] and not found.missing
        keys += len(pair["target"])
        asked += sum(1 for _ in found.ambiguous())
        true += len(pair["ops"])
        made += sum(
            ({*one.sources}, {*one.targets})
            in [({*listed(each["old"])}, {*listed(each["new"])}) for each in pair["ops"]]
            for one in found.operations
        )
    figure = f"{whole} of {len(FILES)} saved models whole, {asked} of {keys:,} keys asked"
    record_property("figure", f"{figure}, {made} of {true} operations")
    assert whole >= 0.6 * len(FILES)
    assert made >= 0.9 * true
    assert asked <= 0.05 * keys
