"""Companions of quantised weights: inferred rules move them, and drop them only if told to."""

from pathlib import Path

import pytest
import torch

import ckpt
from ckpt.errors import PlanError
from ckpt.infer.find_rules import infer_rules
from ckpt.rules.choice import drop
from ckpt.rules.plan import plan_tensors
from ckpt.tensors import TensorEntry

COMPANIONS = [
    *("fc.weight_scale", "fc.weight_scale_inv", "fc.scale_weight", "fc.input_scale", "fc.SCB"),
    *("fc.qzeros", "fc.scales", "fc.g_idx", "fc.weight.absmax", "fc.weight.quant_map"),
    *("fc.weight.nested_absmax", "fc.weight.quant_state.bitsandbytes__nf4", "scaled_fp8"),
    "fc.weight_zero_point",
]


@pytest.mark.parametrize("key", COMPANIONS)
def test_companion_is_not_dropped_unasked(tmp_path: Path, key: str) -> None:
    torch.save({"fc.weight": torch.zeros(3, 4), "extra": torch.zeros(7), key: torch.zeros(5)},
               tmp_path / "a.pt")  # fmt: skip
    torch.save({"head.weight": torch.zeros(3, 4)}, tmp_path / "b.pt")
    out = tmp_path / "c.pt"
    with pytest.raises(PlanError) as refused:
        ckpt.rename(tmp_path / "a.pt", to=tmp_path / "b.pt", accept_ambiguous=True, out=out)
    assert f"has no place for {key}, which" in str(refused.value)
    assert not out.exists()
    (_, pattern, _) = str(refused.value.hint).split("'")
    ckpt.rename(tmp_path / "a.pt", [drop(pattern)], to=tmp_path / "b.pt", out=out)
    assert list(torch.load(out)) == ["head.weight"]


def test_other_tensors_are_still_dropped(tmp_path: Path) -> None:
    """A companion without its weight has no meaning; ``scale`` alone is a common parameter."""
    tensors = {"fc.weight": torch.zeros(3, 4), "norm.scale": torch.zeros(7)}
    torch.save(tensors | {"old.weight_scale": torch.zeros(5)}, tmp_path / "a.pt")
    torch.save({"fc.weight": torch.zeros(3, 4)}, tmp_path / "b.pt")
    ckpt.rename(tmp_path / "a.pt", to=tmp_path / "b.pt", out=tmp_path / "c.pt")
    assert list(torch.load(tmp_path / "c.pt")) == ["fc.weight"]


def test_alpha_of_a_lora_is_not_dropped_unasked(tmp_path: Path) -> None:
    """The product of the two matrices is multiplied with alpha / rank."""
    down, up = torch.ones(4, 8), torch.ones(6, 4)
    kohya = {"fc.lora_down.weight": down, "fc.lora_up.weight": up, "fc.alpha": torch.tensor(2.0)}
    torch.save(kohya | {"act.alpha": torch.ones(1)}, tmp_path / "a.pt")
    torch.save({"fc.lora_A.weight": down, "fc.lora_B.weight": up}, tmp_path / "b.pt")
    with pytest.raises(PlanError, match=r"has no place for fc\.alpha, which"):
        ckpt.rename(tmp_path / "a.pt", to=tmp_path / "b.pt", dry_run=True)
    ckpt.rename(tmp_path / "a.pt", [drop("alpha$")], to=tmp_path / "b.pt", dry_run=True)


def test_companions_follow_their_weights() -> None:
    parts = {"weight": (4, 4), "weight_scale": (4, 1), "input_scale": ()}
    old, new = (
        [
            TensorEntry(f"{layer}.{number}.{part}", "float32", shape)
            for number in range(3)
            for layer in layers
            for part, shape in parts.items()
        ]
        for layers in (("q_proj", "k_proj"), ("attn.q", "attn.k"))
    )
    _, rules = infer_rules(old, new)
    assert [e.key for e in plan_tensors(old, rules).entries_after] == [e.key for e in new]
