"""Row permutations that no shape shows are doubts, in the families that are known to have them."""

import pytest

from ckpt.infer.engine import infer
from ckpt.infer.match.families import BY_HEAD, ROTARY, SCALE_AND_SHIFT
from ckpt.infer.match.squares import BARE
from ckpt.infer.result import Confidence, Inference
from ckpt.tensors import TensorEntry

Shape = tuple[int, ...]
LLAMA = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj"}
META = {"q": "wq", "k": "wk", "v": "wv", "o": "wo"}


def inferred(pairs: dict[tuple[str, str], Shape]) -> Inference:
    old, new = ([TensorEntry(pair[side], "float32", shape) for pair, shape in pairs.items()]
                for side in (0, 1))  # fmt: skip
    return infer(old, new)


def asked(found: Inference) -> dict[str, str]:
    return {match.source: match.evidence for match in found.matches
            if match.confidence is Confidence.AMBIGUOUS}  # fmt: skip


def attention(old: str, new: str, *, bias: bool = False) -> dict[tuple[str, str], Shape]:
    """Grouped queries: their matrices have shapes of their own."""
    made: dict[tuple[str, str], Shape] = {}
    for layer in range(2):
        for letter, out in (("q", 32), ("k", 16), ("v", 16), ("o", 32)):
            keys = old.format(layer, LLAMA[letter]), new.format(layer, META[letter])
            made[f"{keys[0]}.weight", f"{keys[1]}.weight"] = (out, 32)
            if bias:
                made[f"{keys[0]}.bias", f"{keys[1]}.bias"] = (out,)
    return made


def test_queries_and_keys_between_transformers_and_llama_are_asked() -> None:
    found = inferred(attention("model.layers.{}.self_attn.{}", "layers.{}.attention.{}"))
    assert asked(found) == {
        f"model.layers.{layer}.self_attn.{name}_proj.weight": ROTARY
        for layer in range(2) for name in "qk"
    }  # fmt: skip


@pytest.mark.parametrize("positions", [False, True], ids=["bias", "table of positions"])
def test_layers_without_rotary_positions_are_not_asked(*, positions: bool) -> None:
    pairs = attention("model.layers.{}.self_attn.{}", "layers.{}.attention.{}", bias=not positions)
    if positions:
        pairs["model.embed_positions.weight", "position_embedding.weight"] = (64, 32)
    assert asked(inferred(pairs)) == {}


def test_fused_rows_of_gpt_neox_are_asked() -> None:
    old, new = "gpt_neox.layers.0.attention.query_key_value", "transformer.h.0.attn.qkv"
    found = inferred({
        (f"{old}.weight", f"{new}.weight"): (96, 32), (f"{old}.bias", f"{new}.bias"): (96,),
    })  # fmt: skip
    assert asked(found) == {f"{old}.weight": BY_HEAD, f"{old}.bias": BY_HEAD}


def test_one_key_and_value_for_all_queries_cannot_alternate() -> None:
    """As in Falcon 7B: the rows are fewer than three times the columns."""
    old, new = "h.0.self_attention.query_key_value.weight", "h.0.attn.qkv.weight"
    assert asked(inferred({(old, new): (40, 32)})) == {}


def test_grouped_rows_of_internlm_are_asked() -> None:
    """Eight heads of keys for thirty-two of queries: each group has its four queries first."""
    old = [TensorEntry(f"layers.{layer}.attention.wqkv.weight", "float32", (6144, 4096))
           for layer in range(2)]  # fmt: skip
    rows = {"q": 4096, "k": 1024, "v": 1024}
    new = [TensorEntry(f"layers.{layer}.self_attn.{name}_proj.weight", "float32", (size, 4096))
           for layer in range(2) for name, size in rows.items()]  # fmt: skip
    found = infer(old, new)
    assert {(one.confidence, one.evidence) for one in found.operations} == {
        (Confidence.AMBIGUOUS, BY_HEAD)
    }


@pytest.mark.parametrize("back", [False, True], ids=["forth", "back"])
def test_stages_of_dpt_are_asked_and_the_guess_turns_them_round(*, back: bool) -> None:
    parts = {"out_conv": "projection", "resConfUnit1.conv1": "residual_layer1.convolution1"}
    pairs = sorted(
        (f"scratch.refinenet{4 - stage}.{old}.weight", f"neck.layers.{stage}.{new}.weight")
        for stage in range(4)
        for old, new in parts.items()
    )
    old, new = ([TensorEntry(pair[side], "float32", (8, 8, 3, 3)) for pair in pairs]
                for side in ((1, 0) if back else (0, 1)))  # fmt: skip
    found = infer(old, new)
    guessed = {(m.target, m.source) if back else (m.source, m.target) for m in found.matches}
    assert guessed == {*pairs}
    assert {match.confidence for match in found.matches} == {Confidence.AMBIGUOUS}


def test_split_of_rows_that_may_alternate_is_no_sure_operation() -> None:
    old = [TensorEntry("layers.0.attention.query_key_value.weight", "float32", (96, 32))]
    new = [TensorEntry(f"layers.0.attention.{name}.weight", "float32", (32, 32))
           for name in ("query", "key", "value")]  # fmt: skip
    found = infer(old, new)
    assert [one.confidence for one in found.operations] == [Confidence.AMBIGUOUS]


def test_scale_and_shift_of_a_last_layer_are_asked() -> None:
    old, new = "final_layer.adaLN_modulation.1", "norm_out.linear"
    found = inferred({
        (f"{old}.weight", f"{new}.weight"): (64, 32), (f"{old}.bias", f"{new}.bias"): (64,),
    })  # fmt: skip
    assert asked(found) == {f"{old}.{end}": SCALE_AND_SHIFT for end in ("weight", "bias")}


def test_square_parameter_that_becomes_the_weight_of_a_layer_is_asked() -> None:
    found = inferred({("text_projection", "text_projection.weight"): (32, 32)})
    assert asked(found) == {"text_projection": BARE}


def test_square_parameter_is_transposed_like_one_that_is_not_square() -> None:
    old = [TensorEntry("text_projection", "float32", (32, 32)),
           TensorEntry("visual.proj", "float32", (48, 32))]  # fmt: skip
    new = [TensorEntry("text_projection.weight", "float32", (32, 32)),
           TensorEntry("visual_projection.weight", "float32", (32, 48))]  # fmt: skip
    found = infer(old, new)
    assert {(one.verb, one.confidence) for one in found.operations} == {
        ("transpose", Confidence.LIKELY)
    }
    assert len(found.operations) == 2
