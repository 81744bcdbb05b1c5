"""The inference on real conversions, whose true mappings lie beside the data of `CKPT_DATA`."""

import json
import os
import resource
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from ckpt.rules.infer import Confidence, Inference, infer
from ckpt.rules.infer.synthesis import count_rules, proves, synthesise
from ckpt.tensors import TensorEntry

PAIRS = Path(os.environ.get("CKPT_DATA", "/nowhere")).parent / "pairs"
FILES = sorted(PAIRS.glob("*.json")) if PAIRS.is_dir() else []
needs_pairs = pytest.mark.skipif(not FILES, reason="CKPT_DATA names no folder with pairs")
every_pair = pytest.mark.parametrize("path", FILES or [PAIRS], ids=lambda path: path.stem)


def entries(listed: list[Any]) -> list[TensorEntry]:
    return [
        TensorEntry(key, "float32", (1,) if shape is None else tuple(shape))
        for key, shape in listed
    ]


def inferred(path: Path) -> tuple[dict[str, Any], Inference]:
    pair: dict[str, Any] = json.loads(path.read_text())
    return pair, infer(entries(pair["source"]), entries(pair["target"]))


@needs_pairs
@every_pair
def test_every_key_is_mapped_and_nothing_is_open(path: Path) -> None:
    pair, found = inferred(path)
    operated = {new for each in pair["ops"] for new in listed(each["new"])}
    truth = {new: old for old, new, *_ in pair["pairs"] if new not in operated}
    assert {match.target: match.source for match in found.matches} == truth
    assert list(found.dropped) == pair["dropped"]
    assert list(found.missing) == pair["added"]
    assert found.settled


@needs_pairs
@every_pair
def test_operations_are_proposed(path: Path) -> None:
    pair, found = inferred(path)
    true = {
        (each["op"], tuple(listed(each["old"])), tuple(listed(each["new"]))) for each in pair["ops"]
    }
    assert {(each.verb, each.sources, each.targets) for each in found.operations} == true


def listed(one_or_more: Any) -> list[str]:
    return one_or_more if isinstance(one_or_more, list) else [one_or_more]


@needs_pairs
@every_pair
def test_nothing_wrong_is_sure_where_names_say_nothing(path: Path) -> None:
    """Every part of every target becomes a syllable of its own, whatever its digits."""
    pair = json.loads(path.read_text())
    blind = {
        part: f"p{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}{chr(97 + n // 676)}"
        for n, part in enumerate(dict.fromkeys(p for key, _ in pair["target"]
                                               for p in key.split(".") if not p.isdecimal()))
    }  # fmt: skip
    hidden = {
        key: ".".join(blind.get(part, part) for part in key.split(".")) for key, _ in pair["target"]
    }
    target = entries([[hidden[key], shape] for key, shape in pair["target"]])
    found = infer(entries(pair["source"]), target)
    truth: dict[str, set[str]] = {}
    for old, new, *_ in pair["pairs"]:
        truth.setdefault(hidden[new], set()).add(old)
    certain = [each for each in found.matches if each.confidence is Confidence.CERTAIN]
    assert all(each.source in truth.get(each.target, ()) for each in certain)


@needs_pairs
def test_few_rules_reproduce_each_mapping(record_property) -> None:
    counts = {}
    for path in FILES:
        pair, found = inferred(path)
        source, target = entries(pair["source"]), entries(pair["target"])
        rules = synthesise(source, target, found)
        assert proves(source, rules, found), path.stem
        counts[path.stem] = count_rules(rules)
    average = sum(counts.values()) / len(counts)
    record_property("figure", f"rules for {len(counts)} real conversions: {average:.1f} on average")
    assert average <= 15


def llama(layers: int) -> tuple[list[TensorEntry], list[TensorEntry]]:
    names = {
        "self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk",
        "self_attn.v_proj": "attention.wv", "self_attn.o_proj": "attention.wo",
        "mlp.gate_proj": "feed_forward.w1", "mlp.up_proj": "feed_forward.w3",
        "mlp.down_proj": "feed_forward.w2", "input_layernorm": "attention_norm",
        "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    source, target = [], []
    for i in range(layers):
        for old, new in names.items():
            shape = (64,) if "norm" in old else (64, 64)
            source.append(TensorEntry(f"model.layers.{i}.{old}.weight", "float32", shape))
            target.append(TensorEntry(f"layers.{i}.{new}.weight", "float32", shape))
    return source, target


@pytest.mark.parametrize("layers", [112, 1112])
def test_many_keys(layers: int, record_property) -> None:
    source, target = llama(layers)
    begin = perf_counter()
    found = infer(source, target)
    seconds = perf_counter() - begin
    assert [match.target for match in found.matches] == [entry.key for entry in target]
    assert found.settled
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    record_property(
        "figure", f"mapping of {len(source):,} keys: {seconds:.2f} s, process at most {peak:.0f} MB"
    )
