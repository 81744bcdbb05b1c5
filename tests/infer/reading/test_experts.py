"""Experts are stacked and unstacked as by `torch.stack` and `torch.cat`."""

from pathlib import Path

import pytest
import torch

import ckpt
from ckpt.infer.engine import infer
from ckpt.infer.result import Confidence, Inference, InferredOperation
from ckpt.infer.rules.synthesis import synthesise
from ckpt.tensors import TensorEntry

State = dict[str, torch.Tensor]
LAYERS, EXPERTS, WIDTH, INNER = 2, 12, 6, 10  # more than ten: their order is that of numbers


def entries(state: State) -> list[TensorEntry]:
    return [TensorEntry(key, "float32", tuple(value.shape)) for key, value in state.items()]


def apart(names: tuple[str, str, str]) -> State:
    """The experts of two layers: gate, up and down."""
    gate, up, down = names
    made = State()
    for layer in range(LAYERS):
        made[f"layers.{layer}.router.weight"] = torch.randn(EXPERTS, WIDTH)
        for expert in range(EXPERTS):
            start = f"layers.{layer}.experts.{expert}"
            made[f"{start}.{gate}.weight"] = torch.randn(INNER, WIDTH)
            made[f"{start}.{down}.weight"] = torch.randn(WIDTH, INNER)
            made[f"{start}.{up}.weight"] = torch.randn(INNER, WIDTH)
    return made


def together(
    old: State, names: tuple[str, str, str], new: tuple[str, str], *, turned: bool = False
) -> State:
    """The same, stacked by torch: gate and up joined, and down."""
    gate, up, down = names
    made = State()
    for layer in range(LAYERS):
        made[f"layers.{layer}.router.weight"] = old[f"layers.{layer}.router.weight"]
        experts = [f"layers.{layer}.experts.{expert}" for expert in range(EXPERTS)]
        both = [torch.cat([old[f"{e}.{gate}.weight"], old[f"{e}.{up}.weight"]]) for e in experts]
        single = [old[f"{expert}.{down}.weight"] for expert in experts]
        for name, slices in zip(new, (both, single), strict=True):
            whole = torch.stack([one.T for one in slices] if turned else slices)
            made[f"layers.{layer}.mlp.experts.{name}"] = whole.contiguous()
    return made


def renamed(old: State, new: State, folder: Path) -> tuple[State, Inference]:
    found = infer(entries(old), entries(new))
    rules = synthesise(entries(old), entries(new), found)
    torch.save(old, folder / "old.pt")
    ckpt.rename(folder / "old.pt", rules, out=folder / "made.pt")
    return torch.load(folder / "made.pt"), found


def expect_same(made: State, wanted: State) -> None:
    assert made.keys() == wanted.keys()
    assert all(torch.equal(made[key], wanted[key]) for key in wanted)


NAMES = {
    "names": (("gate_proj", "up_proj", "down_proj"), ("gate_up_proj", "down_proj")),
    "numbers": (("w1", "w3", "w2"), ("gate_up_proj", "down_proj")),
    "weights of modules": (("w1", "w3", "w2"), ("gate_up.weight", "down.weight")),
}


@pytest.mark.parametrize("backwards", [False, True], ids=["stacked", "unstacked"])
@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_experts_are_as_torch_stacks_them(
    names: tuple[tuple[str, str, str], tuple[str, str]], tmp_path: Path, *, backwards: bool
) -> None:
    old = apart(names[0])
    new = together(old, *names)
    old, new = (new, old) if backwards else (old, new)
    made, found = renamed(old, new, tmp_path)
    expect_same(made, new)
    assert found.settled


def test_transposed_experts_are_a_guess_that_is_right(tmp_path: Path) -> None:
    """In transposed slices gate and up may alternate, as in gpt-oss: that is asked."""
    old = apart(NAMES["names"][0])
    new = together(old, *NAMES["names"], turned=True)
    made, found = renamed(old, new, tmp_path)
    expect_same(made, new)
    joined = [one for one in found.operations if one.sizes]
    assert {one.confidence for one in joined} == {Confidence.AMBIGUOUS}


def test_dense_layers_are_transposed_and_the_experts_beside_them_are_not(tmp_path: Path) -> None:
    names = ("w1", "w3", "w2")
    old = apart(names)
    new = together(old, names, ("gate_up_proj.weight", "down_proj.weight"))
    new = {key: value for key, value in new.items() if "layers.0." not in key}
    old = {key: value for key, value in old.items() if "layers.0." not in key}
    for name, shape in (("up_proj", (2 * INNER, WIDTH)), ("down_proj", (WIDTH, 2 * INNER))):
        key = f"layers.0.mlp.{name}.weight"
        old[key] = torch.randn(shape)
        new[key] = old[key].T.contiguous()
    made, found = renamed(old, new, tmp_path)
    expect_same(made, new)
    assert found.settled


@pytest.mark.parametrize("backwards", [False, True], ids=["stacked", "unstacked"])
@pytest.mark.parametrize("turned", [(), (0,), (1,), (0, 1)], ids=str)
def test_slices_of_some_layers_are_transposed(
    turned: tuple[int, ...], tmp_path: Path, *, backwards: bool
) -> None:
    old = {f"h.{layer}.experts.{n}.up.weight": torch.randn(INNER, WIDTH)
           for layer in range(2) for n in range(EXPERTS)}  # fmt: skip
    new, operations = State(), []
    for layer in range(2):
        apart_keys = tuple(f"h.{layer}.experts.{n}.up.weight" for n in range(EXPERTS))
        whole = torch.stack([old[key].T if layer in turned else old[key] for key in apart_keys])
        new[f"layers.{layer}.moe.up"] = whole.contiguous()
        keys = apart_keys, (f"layers.{layer}.moe.up",)
        verb, keys = ("unstack", keys[::-1]) if backwards else ("stack", keys)
        dims = (1, 0) if layer in turned else ()
        operations.append(InferredOperation(verb, *keys, Confidence.LIKELY, 1.0, dims=dims))
    old, new = (new, old) if backwards else (old, new)
    rules = synthesise(entries(old), entries(new), Inference((), tuple(operations), (), ()))
    torch.save(old, tmp_path / "old.pt")
    ckpt.rename(tmp_path / "old.pt", rules, out=tmp_path / "made.pt")
    expect_same(torch.load(tmp_path / "made.pt"), new)


def test_gate_and_up_in_a_tensor_whose_name_does_not_say_so_are_asked() -> None:
    old = apart(NAMES["names"][0])
    new = together(old, NAMES["names"][0], ("input_linear", "output_linear"))
    found = infer(entries(old), entries(new))
    joined = {one.confidence for one in found.operations if one.sizes}
    assert joined == {Confidence.AMBIGUOUS}


def test_square_experts_may_be_transposed_and_are_asked() -> None:
    old = {f"experts.{n}.proj.weight": torch.zeros(4, 4) for n in range(3)}
    found = infer(entries(old), [TensorEntry("experts.proj", "float32", (3, 4, 4))])
    assert [one.confidence for one in found.operations] == [Confidence.AMBIGUOUS]


def test_experts_whose_numbers_have_a_gap_are_not_stacked() -> None:
    old = {f"experts.{n}.proj.weight": torch.zeros(4, 6) for n in (0, 1, 3)}
    found = infer(entries(old), [TensorEntry("experts.proj", "float32", (3, 4, 6))])
    assert found.operations == ()
    assert found.missing == ("experts.proj",)
