"""Rules of traced code: they give the tensors that the code gives for real values, bit for bit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import ckpt
from ckpt.errors import PlanError
from ckpt.ops.rules.for_file import ImportedRulesError, rules_for
from ckpt.ops.rules.traced import expression
from ckpt.ops.rules.tracing import note_of, source
from ckpt.rules.document import rules_document
from ckpt.rules.expressions import Source
from ckpt.tensors import TensorEntry
from tests.effort import examples

State = dict[str, Tensor]
Change = Callable[[State], State]


def values(**shapes: tuple[int, ...]) -> State:
    """Tensors of which no two elements are equal."""
    made, at = {}, 0
    for key, shape in shapes.items():
        count = torch.Size(shape).numel()
        made[key] = torch.arange(at, at + count, dtype=torch.float32).reshape(shape)
        at += count
    return made


def by_rules(old: State, change: Change) -> tuple[State, list[str]]:
    """What the rules that trace a function make, and what they leave out."""
    entries = [TensorEntry(key, "float32", tuple(it.shape)) for key, it in old.items()]
    made = change({it.key: source(it.key, it.dtype, it.shape) for it in entries})
    answer = {
        "made": {key: note_of(it) for key, it in made.items()},
        "wanted": {key: list(it.shape) for key, it in made.items()},
    }
    rules, left = rules_for("code", "old.pt", entries, answer)
    new = ckpt.rename(old, rules_document(rules)) if rules else old
    return new, [f"{it.what}: {it.why}" for it in left]


def alike(new: State, wanted: State) -> bool:
    return new.keys() == wanted.keys() and all(
        (new[key].dtype, new[key].shape) == (it.dtype, it.shape) and torch.equal(new[key], it)
        for key, it in wanted.items()
    )


OPERATIONS: dict[str, Callable[[Tensor, int], list[Tensor]]] = {
    "permute": lambda it, n: [it.permute(*range(1, it.dim()), 0)],
    "transpose": lambda it, n: [it.transpose(0, -1)],
    "T": lambda it, n: [it.reshape(it.shape[0], -1).T],
    "reshape": lambda it, n: [it.reshape(-1, it.shape[0])],
    "flatten": lambda it, n: [it.flatten()],
    "unsqueeze": lambda it, n: [it.unsqueeze(n % (it.dim() + 1))],
    "squeeze": lambda it, n: [it[None].squeeze(0)],
    "half": lambda it, n: [it.half()],
    "clone": lambda it, n: [it.contiguous().clone().detach()],
    "slice": lambda it, n: [it[n % it.shape[0] :]],
    "negative": lambda it, n: [it[..., -1 - n % it.shape[-1] :]],
    "select": lambda it, n: [it[n % it.shape[0]].reshape(-1, 1)],
    "split": lambda it, n: [*it.split([1, it.shape[0] - 1])] if it.shape[0] > 1 else [it],
    "chunk": lambda it, n: [*it.chunk(2, dim=-1)],
    "unbind": lambda it, n: [each.reshape(1, -1) for each in it.unbind(0)][:3],
    "cat": lambda it, n: [torch.cat([it, it], dim=n % it.dim())],
    "stack": lambda it, n: [torch.stack([it, it.clone()], dim=n % it.dim())],
}


def ran(steps: list[tuple[str, int]], state: State) -> State:
    """Operations, one after the other, each on the parts that the one before made."""
    made: State = {}
    for key, it in state.items():
        parts = [it]
        for name, number in steps if key != "kept" else []:
            parts = [new for part in parts for new in OPERATIONS[name](part, number)][:4]
        made.update({f"{key}.{at}": part for at, part in enumerate(parts)})
    return made


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 5)), max_size=4))
def test_rules_make_what_the_code_makes(steps: list[tuple[str, int]]) -> None:
    """Or they are refused; never other tensors."""
    old = values(**{"a": (4, 6, 2), "b": (2, 6, 4), "kept": (3,)})
    wanted = {key: it.contiguous() for key, it in ran(steps, old).items()}
    try:
        new, left = by_rules(old, lambda state: ran(steps, state))
    except ImportedRulesError:
        assert {"cat", "stack"} & {name for name, _ in steps}  # nested, which has no rules
        return
    assert not left
    assert alike(new, wanted)


def test_parts_in_several_places_are_copies() -> None:
    old = values(qkv=(6, 2), x=(2, 2))

    def change(state: State) -> State:
        qkv = state["qkv"]
        parts = {"q": qkv[:2], "k": qkv[2:4], "first": qkv[0], "whole": qkv}
        return {**parts, "x": state["x"]}

    assert alike(by_rules(old, change)[0], change(old))


def test_rows_of_a_reshaped_tensor_are_parts_of_it() -> None:
    """As timm splits the queries, keys and values of XCiT: one split."""
    old = values(**{"0.qkv": (6, 2), "1.qkv": (6, 2)})

    def change(state: State) -> State:
        return {
            f"{at}.{part}": state[f"{at}.qkv"].reshape(3, -1, 2)[n]
            for at in "01"
            for n, part in enumerate("qkv")
        }

    assert alike(by_rules(old, change)[0], change(old))


def test_new_tensor_of_one_value_is_a_fill() -> None:
    old = values(**{"head.weight": (2, 3), "x": (1,)})

    def change(state: State) -> State:
        return {**state, "head.bias": torch.zeros(2), "scale": state["x"].new_ones(3)}

    assert alike(by_rules(old, change)[0], change(old))


@pytest.mark.parametrize(
    ("how", "named"),
    [
        (lambda it: it.abs().add(1e-5), "abs, add"),
        (lambda it: torch.log(1 / it), "reciprocal, mul, log"),
        (lambda it: it + it[0], "add"),
        (lambda it: torch.zeros(3).add(it), "add"),
        (lambda it: it.mul(2).add_(1)[1:], "mul, add"),
        (lambda it: it[[2, 0, 1]], "index"),
        (lambda it: it.flip(0), "flip"),
        (lambda it: it[::2], "slice"),
    ],
)
def test_computed_values_are_left_out(how: Callable[[Tensor], Tensor], named: str) -> None:
    _, left = by_rules(
        values(a=(3,), b=(3,)), lambda state: {"b": state["b"], "c": how(state["a"])}
    )
    assert left == [f"c: computed from the values of a ({named})"]


def test_values_that_differ_are_no_fill() -> None:
    with pytest.raises(PlanError, match="a constant"):
        expression(note_of(torch.arange(3)), {"a": Source("a", "float32", (3,))})


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (lambda it: it.add_(1), "writes into tensors"),
        (lambda it: it[0].mul(1) + it.zero_(), "writes into tensors"),
        (lambda it: torch.zeros(3).copy_(it), "writes into tensors"),
        (lambda it: it.sum().item(), "depends on the values"),
        (lambda it: it if it[0] > 0 else it + 1, "depends on the values"),
        (lambda it: it[it > 0], "depends on the values|nonzero|meta"),
    ],
)
def test_code_that_cannot_be_traced_is_refused(how: Callable[[Tensor], object], why: str) -> None:
    with pytest.raises(Exception, match=why):
        how(source("a", "float32", (3,)))


def test_comments_name_what_is_left_out(tmp_path: Path) -> None:
    """A line each, whatever characters a key has."""
    from ckpt.ops.rename.rule_files import RuleFile, read_rule_file, write_rule_file
    from ckpt.rules.document import read_rules

    rules = read_rules([{"rename": "a->b"}], name="x")
    write_rule_file(tmp_path / "r.toml", RuleFile("x", rules), remarks=["left out: a\nb = 1: c"])
    text = (tmp_path / "r.toml").read_text()
    assert text.startswith("# left out: a?b = 1: c\n")
    assert rules_document(read_rule_file(tmp_path / "r.toml").rules) == rules_document(rules)
