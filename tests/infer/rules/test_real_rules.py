"""The rules of real conversions, made of their true mappings: few, exact, good for other depths."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ckpt.infer.result import Confidence, Inference, InferredOperation, Match
from ckpt.infer.rules.synthesis import MOST_READABLE, count_rules, proves, synthesise
from ckpt.rules.plan import plan_tensors
from ckpt.rules.planned import Rule
from ckpt.tensors import TensorEntry
from tests.effort import long_but
from tests.infer.calls import MOST_CALLS, counted_calls

FILES = sorted((Path(__file__).parents[2] / "data" / "pairs").glob("*.json"))
INFERRED = ("split", "concat", "transpose")

# Rules, at most: a better synthesis lowers its line.
MOST_RULES = {
    "diffusers_lora_from_kohya_sd15": 10,
    "diffusers_sd15_unet_from_ldm": 23,
    "diffusers_sd3_from_sai": 27,
    "hf_sam_vit_b_from_facebook": 22,
    "timm_mnasnet_100_from_torchvision": 14,
    "timm_mobilenetv2_100_from_torchvision": 38,
}


def entries(listed: list[Any]) -> list[TensorEntry]:
    return [
        TensorEntry(key, "float32", (1,) if shape is None else tuple(shape))
        for key, shape in listed
    ]


def truth_of(
    path: Path, kept: Callable[[str], bool] = lambda key: True
) -> tuple[list[TensorEntry], list[TensorEntry], Inference]:
    """The source, the target and the true mapping.

    Keys of operations that are never inferred are left out.

    Args:
        path: The pair.
        kept: Whether a key of the source belongs to it.
    """
    pair = json.loads(path.read_text())
    made, gone, operations = set[str](), set[str](), []
    for each in pair["ops"]:
        olds, news = listed(each["old"]), listed(each["new"])
        if each["op"] in INFERRED or len(olds) > 1:
            made.update(news)
            gone.update(olds)
        if each["op"] in INFERRED and all(map(kept, olds)):
            operations.append(
                InferredOperation(
                    each["op"], tuple(olds), tuple(news), Confidence.LIKELY, 1.0,
                    each.get("dim", 0), tuple(each.get("sizes", ())),
                )
            )  # fmt: skip
    used = {old for each in operations for old in each.sources}
    source = [it for it in entries(pair["source"]) if kept(it.key)
              and (it.key not in gone or it.key in used)]  # fmt: skip
    matches = [Match(old, new, Confidence.LIKELY, 1.0) for old, new, *_ in pair["pairs"]
               if new not in made and kept(old)]  # fmt: skip
    news = {match.target for match in matches} | {it for one in operations for it in one.targets}
    target = [it for it in entries(pair["target"]) if it.key in news]
    dropped = tuple(key for key in pair["dropped"] if kept(key))
    return source, target, Inference(tuple(matches), tuple(operations), dropped, ())


def listed(one_or_more: Any) -> list[str]:
    return one_or_more if isinstance(one_or_more, list) else [one_or_more]


@pytest.mark.parametrize("path", long_but(FILES[1::8], FILES), ids=lambda path: path.stem)
def test_rules_of_a_real_conversion_are_few_and_exact(path: Path, record_property) -> None:
    source, target, truth = truth_of(path)
    with counted_calls() as calls:
        rules = synthesise(source, target, truth)
    assert proves(source, target, rules, truth)
    assert count_rules(rules) <= MOST_RULES.get(path.stem, 22) <= MOST_READABLE
    assert calls[0] <= MOST_CALLS
    record_property(
        "figure", f"{path.stem}: {count_rules(rules)} rules for {len(source)} keys, "
        f"{calls[0]:,} calls",
    )  # fmt: skip


TRANSFERS = {  # the part of the keys that tells the block; the rules come of those below the number
    "hf_vit_tiny_from_timm": (r"blocks\.(\d+)", 4),
    "hf_vit_v4_to_v5": (r"layer\.(\d+)", 4),
    "hf_clip_text_from_open_clip": (r"resblocks\.(\d+)", 4),
    "hf_whisper_tiny_from_openai": (r"blocks\.(\d+)", 3),
    "litgpt_tinyllama_1_1b_from_hf": (r"layers\.(\d+)", 4),
    "torchtune_llama2_7b_from_meta": (r"layers\.(\d+)", 4),
    "timm_vit_from_torchvision": (r"encoder_layer_(\d+)", 4),
    "diffusers_sd3_from_sai": (r"joint_blocks\.(\d+)", 4),
    "diffusers_sd15_unet_from_ldm": (r"output_blocks\.(\d+)\.(?!\d+\.conv)", 7),
    "timm_convnext_from_torchvision": (r"features\.[1357]\.(\d+)", 2),
}


@pytest.mark.parametrize("name", TRANSFERS)
def test_rules_of_some_blocks_fit_the_others(name: str) -> None:
    block, first = TRANSFERS[name]

    def kept(key: str) -> bool:
        found = re.search(block, key)
        return found is None or int(found[1]) < first

    path = FILES[0].with_name(f"{name}.json")
    rules = synthesise(*truth_of(path, kept))
    source, target, truth = truth_of(path)
    assert any(not kept(entry.key) for entry in source)
    assert proves(source, target, rules, truth)


def keys_after(rules: list[Rule], keys: list[str]) -> list[str]:
    plan = plan_tensors([TensorEntry(key, "float32", (1,)) for key in keys], rules)
    return [tensor.key for tensor in plan.tensors]


def rules_of(pairs: dict[str, str]) -> list[Rule]:
    source, target = (
        [TensorEntry(key, "float32", (1,)) for key in side] for side in (pairs, pairs.values())
    )
    matches = tuple(Match(*pair, Confidence.LIKELY, 1.0) for pair in pairs.items())
    return synthesise(source, target, Inference(matches, (), (), ()))


@pytest.mark.parametrize(
    ("few", "many", "pairs"),
    [
        (4, 12, lambda n: {f"up.{i}.conv": f"up.{i}.embed" for i in range(n)}),
        (4, 12, lambda n: {f"layers.{i}.w": f"blocks.{i + 1}.w" for i in range(n)}),
        (6, 24, lambda n: {f"blocks.{i}.w": f"stages.{i // 3}.{i % 3}.w" for i in range(n)}),
        (6, 24, lambda n: {f"stages.{i // 3}.{i % 3}.w": f"blocks.{i}.w" for i in range(n)}),
        (8, 24, lambda n: {f"b.{i + 1}.w": f"s.{i // 2 + 1}.{i % 2 + 1}.w" for i in range(n)}),
        (4, 12, lambda n: {f"h.{i:02d}.w": f"layers.{i}.w" for i in range(n)}),
    ],
    ids=["word", "shift", "regrouped", "joined", "from one", "zeros"],
)
def test_index_arithmetic_reaches_other_depths(
    few: int, many: int, pairs: Callable[[int], dict[str, str]]
) -> None:
    rules = rules_of(pairs(few))
    assert count_rules(rules) == 1
    assert keys_after(rules, [*pairs(many)]) == [*pairs(many).values()]


def test_reversed_order_is_one_rule() -> None:
    (rule,) = rules_of({f"up.{i}.w": f"blocks.{3 - i}.w" for i in range(4)})
    assert rule.text == r"up\.(\d+)->blocks.{-1+3}"
