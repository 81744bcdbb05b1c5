"""The inference on 41 real conversions, whose true mappings are in `tests/data/pairs`."""

import json
import resource
from collections import Counter
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from ckpt.infer.engine import infer
from ckpt.infer.result import Confidence, Inference, InferredOperation
from ckpt.infer.rules.synthesis import MOST_READABLE, count_rules, proves, synthesise
from ckpt.tensors import TensorEntry
from tests.effort import long_but, thinned

FILES = sorted((Path(__file__).parents[1] / "data" / "pairs").glob("*.json"))
# Conversions that are inferred in part: keys right, keys wrong (guesses for ambiguous keys count
# too), operations right. A better inference changes or removes its line.
PARTLY = {
    "diffusers_sd3_from_sai": (127, 4, 24),
    "litgpt_gemma3_from_hf": (53, 0, 5),
    "litgpt_pythia_14m_from_hf": (64, 12, 0),
    "peft_lora_from_torchtune": (72, 12, 0),
    "torchvision_resnet50_from_keras_h5": (205, 8, 52),
    "wrap_lightning_like_resnet18": (122, 0, 0),
}
WHOLE = [path for path in FILES if path.stem not in PARTLY]
SLOW = [path for path in FILES if path.stem == "hf_mixtral_8x7b_v4_to_v5"]
QUICK = [path for path in FILES if path not in SLOW][::2]
every_pair = pytest.mark.parametrize("path", long_but(QUICK, FILES), ids=lambda path: path.stem)
every_whole_pair = pytest.mark.parametrize(
    "path", long_but(WHOLE[::2], WHOLE), ids=lambda path: path.stem
)


def entries(listed: list[Any]) -> list[TensorEntry]:
    return [
        TensorEntry(key, "float32", (1,) if shape is None else tuple(shape))
        for key, shape in listed
    ]


@cache
def inferred(path: Path) -> tuple[dict[str, Any], Inference]:
    pair: dict[str, Any] = json.loads(path.read_text())
    return pair, infer(entries(pair["source"]), entries(pair["target"]))


@every_whole_pair
def test_every_key_is_mapped_and_nothing_is_open(path: Path) -> None:
    pair, found = inferred(path)
    assert {match.target: match.source for match in found.matches} == renames(pair)
    assert list(found.dropped) == pair["dropped"]
    assert list(found.missing) == pair["added"]
    assert found.settled


@every_whole_pair
def test_operations_are_proposed(path: Path) -> None:
    pair, found = inferred(path)
    assert operations_of(found, pair) == true_operations(pair)


@pytest.mark.parametrize("name", PARTLY)
def test_partly_inferred_conversion_gets_no_worse(name: str) -> None:
    pair, found = inferred(FILES[0].with_name(f"{name}.json"))
    truth = renames(pair)
    right = Counter(truth.get(match.target) == match.source for match in found.matches)
    operations = len(operations_of(found, pair) & true_operations(pair))
    assert (right[True], right[False], operations) == PARTLY[name]


@every_pair
def test_nothing_wrong_is_certain_or_likely(path: Path) -> None:
    pair, found = inferred(path)
    truth = renames(pair)
    for match in found.matches:
        if match.confidence is not Confidence.AMBIGUOUS:
            assert truth.get(match.target) == match.source
    sure = [each for each in found.operations if each.confidence is not Confidence.AMBIGUOUS]
    assert {operation_of(each, pair) for each in sure} <= true_operations(pair)


@every_pair
def test_most_operations_are_found_both_ways(path: Path) -> None:
    """Row permutations, which no shape shows, are the exception; they are asked about."""
    pair, found = inferred(path)
    true = {each for each in true_operations(pair) if not each[0].startswith("permute_rows")}
    there = {operation_of(each, pair) for each in found.operations}
    assert len(true & there) >= 0.9 * len(true)
    back = infer(entries(pair["target"]), entries(pair["source"]))
    inverse = {(tuple(sorted(each.targets)), tuple(sorted(each.sources)))
               for each in back.operations}  # fmt: skip
    keys = {(tuple(sorted(olds)), tuple(sorted(news))) for _, olds, news in true}
    assert len(keys & inverse) >= 0.9 * len(keys)


def test_no_norm_is_filled_from_several_modules_unasked() -> None:
    """The norm of one branch may be mistaken for that of the next, if only some of it moves."""
    _, found = inferred(FILES[0].with_name("timm_mnasnet_100_from_torchvision.json"))
    sources: dict[str, set[str]] = {}
    for match in found.matches:
        if match.confidence is not Confidence.AMBIGUOUS:
            old, new = (key.rpartition(".")[0] for key in (match.source, match.target))
            sources.setdefault(new, set()).add(old)
    assert all(len(modules) == 1 for modules in sources.values())


def renames(pair: dict[str, Any]) -> dict[str, str]:
    """The source of each key that no operation makes."""
    operated = {new for each in pair["ops"] for new in listed(each["new"])}
    return {new: old for old, new, *_ in pair["pairs"] if new not in operated}


STACKED = ("stack", "stack_concat", "joined_other")  # however a converter goes about it


def operations_of(found: Inference, pair: dict[str, Any]) -> set[tuple[Any, ...]]:
    return {operation_of(each, pair) for each in found.operations}


def operation_of(each: InferredOperation, pair: dict[str, Any]) -> tuple[Any, ...]:
    if each.verb == "stack":
        return "stack", tuple(sorted(each.sources)), each.targets
    one = each.verb == "transpose" and 1 in dict(pair["source"])[each.sources[0]]
    return "reshape" if one else each.verb, each.sources, each.targets


def true_operations(pair: dict[str, Any]) -> set[tuple[Any, ...]]:
    return {
        ("stack", tuple(sorted(listed(each["old"]))), tuple(listed(each["new"])))
        if each["op"] in STACKED
        else (each["op"], tuple(listed(each["old"])), tuple(listed(each["new"])))
        for each in pair["ops"]
    }


def listed(one_or_more: Any) -> list[str]:
    return one_or_more if isinstance(one_or_more, list) else [one_or_more]


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


def test_few_rules_reproduce_each_mapping(record_property) -> None:
    counts = {}
    for path in thinned(WHOLE):
        pair, found = inferred(path)
        source, target = entries(pair["source"]), entries(pair["target"])
        rules = synthesise(source, target, found)
        assert proves(source, target, rules, found), path.stem
        counts[path.stem] = count_rules(rules)
        assert counts[path.stem] <= MOST_READABLE, path.stem
    average = sum(counts.values()) / len(counts)
    record_property("figure", f"rules for {len(counts)} real conversions: {average:.1f} on average")
    assert average <= 15


def llama(layers: int) -> tuple[list[TensorEntry], list[TensorEntry]]:
    names = {
        "self_attn.q_proj": "attention.query", "self_attn.k_proj": "attention.key",
        "self_attn.v_proj": "attention.value", "self_attn.o_proj": "attention.output",
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


@pytest.mark.parametrize("layers", long_but([112], [112, 1112]))
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
