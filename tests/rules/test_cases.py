"""What other tools get wrong: a swap that leaves one tensor of two, a prefix put twice.

Twenty-two cases by name, written in the rule language; those that need a file are here too.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model

import ckpt
from ckpt.errors import CkptError, KeyCollisionError, PlanError, UnmatchedRuleError
from ckpt.rules.at_once import parse_typed
from ckpt.rules.document import read_rules
from ckpt.rules.plan import plan_tensors
from ckpt.rules.prefixes import unwrapped
from ckpt.tensors import TensorEntry

I = r"(\d+)"  # noqa: E741 - an index
CHAIN = [{"at_once": ["norm0->norm1", "norm1->norm2"]}]
SHIFT = {
    "h.layers.0.w": "h.proj_in.w", "h.layers.1.w": "h.layers.0.w", "h.layers.2.w": "h.proj_out.w",
}  # fmt: skip
UP = {f"decoder.up.{i}.w": f"decoder.up.{3 - i}.w" for i in range(4)}
BERT = "bert/encoder/layer_3/output/dense/kernel"

# Case: keys, rules as a rule file has them, and what each key becomes, or the error.
CASES: dict[str, tuple[list[str], list[dict[str, Any]], dict[str, str] | type[CkptError]]] = {
    "swap_simultaneous": (
        ["a.w", "b.w"], [{"rename": "a<->b"}], {"a.w": "b.w", "b.w": "a.w"}
    ),
    "swap_simultaneous, one after the other": (
        ["a.w", "b.w"], [{"rename": "a->b"}, {"rename": "b->a"}], KeyCollisionError
    ),
    "collision_many_to_one": (
        ["a.weight", "b.weight"], [{"rename": r"^[ab]\.->x."}], KeyCollisionError
    ),
    "collision_with_untouched_key": (
        ["LayerNorm.weight", "LayerNorm.gamma"], [{"rename": "gamma$->weight"}], KeyCollisionError
    ),
    "chain_norm0_norm1_norm2": (
        ["blocks.0.norm0.weight", "blocks.0.norm1.weight"], CHAIN,
        {"blocks.0.norm0.weight": "blocks.0.norm1.weight",
         "blocks.0.norm1.weight": "blocks.0.norm2.weight"},
    ),
    "chain_norm0_norm1_norm2, one after the other": (
        ["blocks.0.norm0.weight", "blocks.0.norm1.weight"],
        [{"rename": "norm0->norm1"}, {"rename": "norm1->norm2"}], KeyCollisionError,
    ),
    "chain_already_converted_is_noop": (
        ["blocks.0.norm1.weight", "blocks.0.norm2.weight"], CHAIN, UnmatchedRuleError
    ),
    "shifting_layers": (
        list(SHIFT),
        [{"at_once": [r"layers\.0->proj_in", r"layers\.1->layers.0", r"layers\.2->proj_out"]}],
        SHIFT,
    ),
    "arith_plus_one": (
        ["layers.0.downsample.norm.weight", "layers.1.downsample.norm.weight"],
        [{"rename": rf"layers\.{I}\.downsample->layers.{{1+1}}.downsample"}],
        {f"layers.{i}.downsample.norm.weight": f"layers.{i + 1}.downsample.norm.weight"
         for i in (0, 1)},
    ),
    "arith_reverse": (list(UP), [{"rename": rf"decoder\.up\.{I}->decoder.up.{{-1+3}}"}], UP),
    "literal_vs_index_digits": (
        ["encoder.block.7.layer.0.SelfAttention.q.weight"],
        [{"rename": rf"encoder\.block\.{I}\.layer\.0\.SelfAttention\.q->layers.{{1}}.attn.q_proj"}],
        {"encoder.block.7.layer.0.SelfAttention.q.weight": "layers.7.attn.q_proj.weight"},
    ),
    "unanchored_prefix_hit": (
        ["layer.0.weight", "prelayer.0.weight"], [{"rename": "layer->block", "word": True}],
        {"layer.0.weight": "block.0.weight", "prelayer.0.weight": "prelayer.0.weight"},
    ),
    "dot_is_literal": (
        ["fc.1.w", "fcx1.w"], [{"rename": "fc.1->fc.2", "literal": True}],
        {"fc.1.w": "fc.2.w", "fcx1.w": "fcx1.w"},
    ),
    "reverse_not_idempotent": (
        ["encoder.layers.0.w"], [{"rename": "layers->encoder.layers"}], PlanError
    ),
    "rule_matches_nothing": (["a.w"], [{"rename": "^zzz->y"}], UnmatchedRuleError),
    "slash_and_glued_index": (
        [BERT],
        [{"transpose": "kernel$", "dims": [0, 1]},
         {"rename": rf"^bert/encoder/layer_{I}/output/dense/kernel->"
                    "bert.encoder.layer.{1}.output.dense.weight"}],
        {BERT: "bert.encoder.layer.3.output.dense.weight"},
    ),
    "optimizer_fqn_state_follows": (
        ["optim.state.conv.weight.exp_avg"], [{"rename": "conv->embed"}],
        {"optim.state.conv.weight.exp_avg": "optim.state.embed.weight.exp_avg"},
    ),
    "quant_companions_follow": (
        ["q_proj.weight", "q_proj.weight_scale_inv", "q_proj.input_scale"],
        [{"rename": "q_proj->attn.q"}],
        {"q_proj.weight": "attn.q.weight", "q_proj.weight_scale_inv": "attn.q.weight_scale_inv",
         "q_proj.input_scale": "attn.q.input_scale"},
    ),
    "empty_or_double_dot": (["a.b.w"], [{"rename": "(b)x?->{1}"}], UnmatchedRuleError),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_case(case: str) -> None:
    keys, document, expected = CASES[case]
    entries = [TensorEntry(key, "float32", (4, 3)) for key in keys]
    if isinstance(expected, type):
        with pytest.raises(expected):
            plan_tensors(entries, read_rules(document, name="case"))
        return
    plan = plan_tensors(entries, read_rules(document, name="case"))
    made = {key: each.key for key, each in zip(keys, plan.tensors, strict=True)}
    assert made == expected
    assert not plan.dropped


def test_case_empty_or_double_dot_says_the_key() -> None:
    entries = [TensorEntry("a.b.w", "float32", (1,))]
    with pytest.raises(PlanError, match=r"'a\.b\.w' would become 'a\.\.w' \(rule 1\)"):
        plan_tensors(entries, [parse_typed("b(x?)->{1}")])


def test_case_strip_stacked_wrappers() -> None:
    keys = ["_orig_mod.module.fc.weight", "module._orig_mod.fc.weight", "model._orig_mod.fc.weight"]
    assert [unwrapped(key) for key in keys] == ["fc.weight", "fc.weight", "model.fc.weight"]


@pytest.mark.parametrize("suffix", [".pt", ".renamed.pt"])
def test_case_metadata_attr_follows(tmp_path: Path, suffix: str) -> None:
    state = torch.nn.Sequential(torch.nn.BatchNorm1d(2)).state_dict()
    torch.save(state, tmp_path / "a.pt")
    drops = ["--drop"] if suffix == ".renamed.pt" else []
    from ckpt.rules.choice import drop

    rules = [parse_typed("^0->norm"), *([drop("num_batches")] if drops else [])]
    ckpt.rename(str(tmp_path / "a.pt"), rules, out=tmp_path / "b.pt")
    new = torch.load(tmp_path / "b.pt", weights_only=True)
    assert new._metadata["norm"] == {"version": 2}
    if drops:
        fresh = torch.nn.Sequential()
        fresh.add_module("norm", torch.nn.BatchNorm1d(2))
        with pytest.raises(RuntimeError, match="num_batches_tracked"):
            fresh.load_state_dict(new)


def test_case_safetensors_metadata_tied_names(tmp_path: Path) -> None:
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2, bias=False)})
    model["b"] = torch.nn.Linear(2, 2, bias=False)
    model["b"].weight = model["a"].weight
    save_model(model, str(tmp_path / "a.safetensors"))
    ckpt.rename(
        str(tmp_path / "a.safetensors"),
        [
            "a->x",
        ],
        out=tmp_path / "b.safetensors",
    )
    with ckpt.open(str(tmp_path / "b.safetensors")) as lazy:
        assert list(lazy) == ["x.weight", "b.weight"]
        assert lazy.rest["b.weight"] == "x.weight"


def test_case_non_tensor_leaves_untouched(tmp_path: Path) -> None:
    value = {"model": {"conv.w": torch.ones(2)}, "epoch": 3, "hyper_parameters": {"model.conv": 1}}
    torch.save(value, tmp_path / "a.pt")
    ckpt.rename(str(tmp_path / "a.pt"), ["conv->embed"], out=tmp_path / "b.pt")
    new = torch.load(tmp_path / "b.pt", weights_only=True)
    assert list(new["model"]) == ["embed.w"]
    assert new["hyper_parameters"] == {"model.conv": 1}
    assert new["epoch"] == 3


def test_case_identity_but_transposed(tmp_path: Path) -> None:
    """No rename can fix it, and not the shape tells: an operation does."""
    square = torch.arange(9.0).reshape(3, 3)
    save_file({"c_proj.weight": square}, tmp_path / "a.safetensors")
    rules = read_rules([{"transpose": r"c_proj\.weight$"}], name="case")
    ckpt.rename(str(tmp_path / "a.safetensors"), rules, out=tmp_path / "b.safetensors")
    assert torch.equal(load_file(tmp_path / "b.safetensors")["c_proj.weight"], square.T)


def test_every_case_of_the_list_has_a_test() -> None:
    listed = json.loads((Path(__file__).parents[1] / "data" / "rule_cases.json").read_text())
    named = {*CASES, *(name.removeprefix("test_case_") for name in globals())}
    assert {case["id"] for case in listed["cases"]} <= named
