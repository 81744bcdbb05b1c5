"""Every mapping that is tried has rules, and these make the same tensors."""

import torch

from ckpt.prove.alternatives import MOST_TRIES, alternatives
from ckpt.prove.spelling import expression_for, spelled
from ckpt.prove.values import same_result
from ckpt.rules.expressions import Source
from ckpt.rules.plan import plan_tensors
from ckpt.tensors import TensorEntry

SHAPES = {
    "wte.weight": (7, 8),
    **{
        f"h.{at}.{name}": shape
        for at in range(3)
        for name, shape in {
            "norm.weight": (8,), "norm.bias": (8,), "norm2.weight": (8,), "norm2.bias": (8,),
            "attn.q.weight": (8, 8), "attn.q.bias": (8,), "attn.k.weight": (8, 8),
            "attn.k.bias": (8,), "attn.qk+.weight": (8, 8), "attn.qk+.bias": (8,),
            "attn.qkv.weight": (24, 8), "attn.qkv.bias": (24,), "mlp.0.weight": (16, 8),
            "mlp.2.weight": (16, 8),
        }.items()
    },
    "qk.weight": (8, 8),
}  # fmt: skip
ENTRIES = [TensorEntry(key, "float32", shape) for key, shape in SHAPES.items()]
KINDS = {"", "transpose", "halves", "thirds", "interleave", "deinterleave"}


def test_first_rules_of_every_alternative_do_what_it_says() -> None:
    made = {key: Source(key, "float32", shape) for key, shape in SHAPES.items()}
    state = {key: torch.randn(shape) for key, shape in SHAPES.items()}
    found = [*alternatives(made, "h.1.attn.q")]
    assert {it.verb for it in found} == KINDS
    assert MOST_TRIES / 2 < len(found) <= MOST_TRIES
    for tried in found:
        assert not same_result(made, tried.made, state), tried.text
        rules = next(spelled(tried, {key: key for key in SHAPES}, [*SHAPES], SHAPES))
        plan = plan_tensors(ENTRIES, rules)
        after = {tensor.key: tensor.made_of for tensor in plan.tensors}
        assert same_result(after, tried.made, state), (tried.text, rules)


def test_mistakes_in_the_block_that_differs_come_first() -> None:
    made = {key: Source(key, "float32", shape) for key, shape in SHAPES.items()}
    texts = [it.text for it in alternatives(made, "h.1.attn.q")]
    alone = [text for text in texts if text.endswith("alone")]
    assert all(" in h.1 alone" in text for text in alone[: len(alone) // 3])


def test_expression_matches_these_keys_alone() -> None:
    keys = ["a.0.w", "a.1.w", "a.10.w", "xa.1.w", "b.w"]
    assert expression_for(["a.0.w", "a.1.w", "a.10.w"], keys) == r"^a\.\d+\.w$"
    assert expression_for(["a.1.w"], keys) == r"^a\.1\.w$"
