"""Transposed matrices whose shapes other matrices of the same module have."""

import pytest

from ckpt.infer.engine import infer
from ckpt.infer.result import Inference
from ckpt.tensors import TensorEntry

Shapes = dict[str, tuple[int, ...]]
LLAMA: Shapes = {"gate_proj": (48, 16), "up_proj": (48, 16), "down_proj": (16, 48)}
TWO: Shapes = {"fc_in": (48, 16), "fc_out": (16, 48)}


def model(names: Shapes, *, turned: bool = False, root: str = "layers.{}.mlp") -> Shapes:
    made: Shapes = {"embed.weight": (100, 16)}
    for layer in range(3):
        made[f"{root.format(layer)}.norm.weight"] = (16,)
        for name, shape in names.items():
            made[f"{root.format(layer)}.{name}.weight"] = shape[::-1] if turned else shape
    return made


def inferred(old: Shapes, new: Shapes) -> Inference:
    sides = ([TensorEntry(key, "float32", shape) for key, shape in side.items()]
             for side in (old, new))  # fmt: skip
    return infer(*sides)


@pytest.mark.parametrize("names", [LLAMA, TWO], ids=["three matrices", "two matrices"])
@pytest.mark.parametrize("root", ["layers.{}.mlp", "h.{}.ffn", "layers.{}"])
def test_matrices_that_are_all_transposed_keep_their_names(names: Shapes, root: str) -> None:
    found = inferred(model(names), model(names, turned=True, root=root))
    pairs = {(one.verb, *one.sources, *one.targets) for one in found.operations}
    assert pairs == {
        ("transpose", f"layers.{layer}.mlp.{name}.weight", f"{root.format(layer)}.{name}.weight")
        for layer in range(3) for name in names
    }  # fmt: skip
    assert found.settled


def test_shapes_decide_where_names_say_nothing() -> None:
    found = inferred(model(TWO), model({"zorp": (48, 16), "meki": (16, 48)}))
    assert found.settled
    assert not found.operations
