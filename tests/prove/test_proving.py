"""What a proof says, against models that are loaded and run by torch alone."""

import itertools
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from ckpt.definitions import Definition
from ckpt.prove import influence
from ckpt.prove.proving import prove
from ckpt.prove.result import COUNTER, NO_INFLUENCE, Proof, UnprovableError
from ckpt.rules.key_map import key_map
from ckpt.rules.plan import Plan, plan_tensors
from ckpt.tensors import TensorEntry
from tests.effort import examples

State = dict[str, Tensor]


def defined(factory: Callable[[], nn.Module], ref: str = "net.py:Net") -> Definition:
    return Definition(ref, None, None, factory)


def plan_of(state: State, renames: dict[str, str] | None = None) -> Plan:
    entries = [
        TensorEntry(key, str(it.dtype).removeprefix("torch."), tuple(it.shape))
        for key, it in state.items()
    ]
    return plan_tensors(entries, [key_map(renames, name="the map")] if renames else [])


def weights_of(factory: Callable[[], nn.Module], seed: int = 0) -> State:
    """Random weights: no two tensors are alike, as they are after training."""
    torch.manual_seed(seed)
    state = factory().state_dict()
    return OrderedDict(
        (key, torch.rand_like(it) + 0.5 if it.is_floating_point() else it)
        for key, it in state.items()
    )


def proof_of(old: Callable[[], nn.Module], new: Callable[[], nn.Module], **how: Any) -> Proof:
    state = weights_of(old)
    plan = plan_of(state, how.pop("renames", None))
    return prove(plan, state, defined(old, "old"), defined(new, "new"), how.pop("inputs", None))


class Normed(nn.Module):
    """Has a BatchNorm, a scale that is zero, and a head that only training uses."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.branch, self.gate = nn.Linear(4, 4), nn.Parameter(torch.zeros(4))
        self.head, self.aux = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.bn(self.conv(x)).relu().mean((2, 3))
        pooled = pooled + self.gate * self.branch(pooled)
        return self.head(pooled) if not self.training else self.aux(pooled)


class Attention(nn.Module):
    """A bias of the keys has no influence: softmax ignores what all of its inputs share."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.positions = nn.Embedding(11, 8), nn.Embedding(20, 8)
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.register_buffer("scale", torch.tensor(0.5))

    def forward(self, tokens: Tensor) -> dict[str, Any]:
        x = self.embed(tokens) + self.positions(torch.arange(tokens.shape[1]))
        scores = self.scale * self.q(x) @ self.k(x).transpose(-1, -2)
        return {"last": torch.softmax(scores, -1) @ self.v(x), "cache": None}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte, self.head = nn.Embedding(11, 6), nn.Linear(6, 11, bias=False)
        self.head.weight = self.wte.weight
        self.norm = nn.LayerNorm(6)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.wte(ids)))


class Frozen(nn.Module):
    """Has no gradient: its parameters are frozen, detached or rounded."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 5)
        self.a.requires_grad_(False)
        self.through = nn.Parameter(torch.ones(5))
        self.levels = nn.Parameter(torch.ones(5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x) + self.b(x).detach() + (3 * self.levels).round()
        return x + self.through - self.through


class Straight(nn.Module):
    """Has a gradient without an influence, and an influence without a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.lin, self.coded = nn.Linear(5, 5), nn.Linear(5, 5)
        self.apparent = nn.Parameter(torch.ones(5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.lin(x) + self.apparent - self.apparent.detach()
        return x + (self.coded(x) - x).detach()


def changes_outputs(factory: Callable[[], nn.Module], state: State, key: str, data: Tensor) -> bool:
    """Whether other numbers in a tensor change what torch computes."""
    outputs = []
    for seed in (None, 5, 6):
        changed = dict(state)
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            value = state[key]
            noise = torch.rand(value.shape, generator=generator) + 0.5
            changed[key] = noise if value.is_floating_point() else value + 1
        model = factory().double().eval()
        for name in [name for name, it in model.named_parameters(remove_duplicate=False)]:
            if key == "wte.weight" and name == "head.weight":
                changed[name] = changed[key]
            if key == "head.weight" and name == "wte.weight":
                changed[name] = changed[key]
        model.load_state_dict(changed)
        with torch.no_grad():
            result = model(data)
        outputs.append(result["last"] if isinstance(result, dict) else result)
    return any(not torch.allclose(outputs[0], it, rtol=1e-8, atol=1e-10) for it in outputs[1:])


@pytest.mark.parametrize("most_work", [influence.MOST_WORK, 0], ids=["runs", "gradient"])
@pytest.mark.parametrize("factory", [Normed, Attention, Tied, Frozen, Straight])
def test_tensors_called_influential_are_those_that_change_the_outputs(
    factory: Callable[[], nn.Module], most_work: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(influence, "MOST_WORK", most_work)
    state = weights_of(factory)
    if factory is Tied:
        state["head.weight"] = state["wte.weight"]
    proof = prove(plan_of(state), state, defined(factory), defined(factory))
    assert (proof.agrees, proof.largest) == (True, (0.0, 0.0))
    assert proof.by_gradient == (most_work == 0)
    torch.manual_seed(7)
    tokens = torch.arange(22).reshape(2, 11) % 11
    shapes = {Normed: (2, 1, 9, 9), Frozen: (2, 5), Straight: (2, 5)}
    data = torch.randn(shapes[factory]).double() if factory in shapes else tokens
    wanted = {key for key in state if changes_outputs(factory, state, key, data)}
    assert {*proof.influential} == wanted
    assert {it.key for it in proof.unproved} == {*state} - wanted
    whys = {it.key.rpartition(".")[2]: it.why for it in proof.unproved}
    assert whys.pop("num_batches_tracked", COUNTER) == COUNTER
    assert {*whys.values()} <= {NO_INFLUENCE}


def test_counters_leave_a_proof_complete_and_unused_heads_do_not() -> None:
    class Plain(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(4, 4), nn.BatchNorm1d(4))

    assert proof_of(Plain, Plain).complete
    proof = proof_of(Normed, Normed)
    assert (proof.agrees, proof.complete) == (True, False)


NAMES = ["a", "b", "c", "unused", "spare"]


class Chain(nn.Module):
    """Five square matrices without a symmetry between the three that are used."""

    def __init__(self) -> None:
        super().__init__()
        for name in NAMES:
            self.register_parameter(name, nn.Parameter(torch.ones(4, 4)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(torch.tanh(x @ self.a) @ self.b) @ self.c


@settings(max_examples=examples(100), deadline=None)
@given(order=st.permutations(NAMES), seed=st.integers(0, 50))
def test_a_wrong_map_is_never_proved(order: list[str], seed: int) -> None:
    """The new class has the same names; every other order of those used is wrong."""
    state = weights_of(Chain, seed)
    moved = dict(zip(NAMES, order, strict=True))
    plan = plan_of(state, {old: new for old, new in moved.items() if old != new})
    proof = prove(plan, state, defined(Chain), defined(Chain))
    right = all(moved[name] == name for name in "abc")
    old, new = Chain(), Chain()
    old.load_state_dict(state)
    new.load_state_dict({moved[key]: it for key, it in state.items()})
    data = torch.randn(3, 4)
    assert proof.agrees == right == torch.allclose(old(data), new(data), atol=1e-5)
    assert {*proof.influential} == ({*"abc"} if right else set())
    if not right and len([name for name in NAMES if moved[name] != name]) == 2:
        found = proof.alternative
        assert found is not None
        assert all(made.key == key for key, made in found.made.items() if key in "abc")  # type: ignore[union-attr]


class Dropping(Normed):
    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(super().forward(x), 0.5)


class Shuffling(Normed):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * random.random()


class Counting(Normed):
    def forward(self, x: Tensor) -> Tensor:
        self.runs = getattr(self, "runs", 0) + 1
        return super().forward(x) * self.runs


class Averaging(Normed):
    """Counts in a buffer, which a proof gives back before the next run."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("runs", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return super().forward(x) * self.runs


@pytest.mark.parametrize("factory", [Dropping, Shuffling])
def test_random_forward_is_proved_from_one_seed(factory: Callable[[], nn.Module]) -> None:
    proof = proof_of(factory, factory)
    assert (proof.agrees, proof.seeded) == (True, True)
    assert not proof_of(Normed, Normed).seeded


def test_forward_that_no_seed_repeats_is_refused() -> None:
    with pytest.raises(UnprovableError, match="not deterministic, cannot be proved by outputs"):
        proof_of(Counting, Counting)
    proof = proof_of(Averaging, Averaging)
    assert (proof.agrees, proof.seeded, "runs" in proof.influential) == (True, False, True)


def test_proof_leaves_the_generators_as_they_were() -> None:
    state = weights_of(Shuffling)
    torch.manual_seed(3)
    random.seed(3)
    wanted = torch.rand(2), random.random()
    torch.manual_seed(3)
    random.seed(3)
    assert prove(plan_of(state), state, defined(Shuffling), defined(Shuffling)).agrees
    assert (torch.rand(2).tolist(), random.random()) == (wanted[0].tolist(), wanted[1])


@dataclass
class Result:
    scores: Tensor
    extra: tuple[Tensor, None, dict[str, Tensor]]


class Mapped(OrderedDict):  # as Hugging Face's ModelOutput: a mapping and a dataclass
    pass


def shapes_of(kind: str, x: Tensor) -> object:
    return {
        "dataclass": lambda: Result(x, (x.sum(), None, {"mean": x.mean(0)})),
        "mapping": lambda: Mapped(logits=x, hidden=(x, None)),
        "object": lambda: SimpleNamespace(logits=x, nested=[{"x": x}]),
        "integers": lambda: x.argmax(-1),
        "booleans": lambda: (x > 3, None),
        "numbers": lambda: {"score": float(x.sum())},
        "infinite": lambda: x.masked_fill(torch.eye(*x.shape, dtype=torch.bool), -torch.inf),
        "complex": lambda: torch.fft.fft(x),
    }[kind]()


@pytest.mark.parametrize(
    "kind",
    ["dataclass", "mapping", "object", "integers", "booleans", "numbers", "infinite", "complex"],
)
def test_outputs_of_every_kind_are_compared(kind: str) -> None:
    class Right(Chain):
        def forward(self, x: Tensor) -> object:
            return shapes_of(kind, super().forward(x))

    class Wrong(Chain):
        def forward(self, x: Tensor) -> object:
            x = torch.tanh(torch.tanh(x @ self.a) @ self.c) @ self.b
            return shapes_of(kind, x)

    inputs = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    assert proof_of(Right, Right, inputs=inputs).agrees
    assert {*"abc"} == {*proof_of(Right, Right, inputs=inputs).influential}
    proof = proof_of(Right, Wrong, inputs=inputs)
    assert not proof.agrees
    assert proof.alternative is not None
    assert proof.alternative.moves == {"b": "c", "c": "b"}


def test_model_without_an_output_to_compare_is_refused() -> None:
    class Silent(Chain):
        def forward(self, x: Tensor) -> object:
            return {"x": None, "text": "done"}

    class Broken(Chain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) / 0.0 * 0.0

    inputs = torch.randn(3, 4)
    for factory, message in ((Silent, "returns no tensor"), (Broken, "no output is finite")):
        with pytest.raises(UnprovableError, match=message):
            proof_of(factory, factory, inputs=inputs)


def test_tensors_that_only_one_class_returns_are_not_compared() -> None:
    class More(Chain):
        def forward(self, x: Tensor) -> object:
            return {"y": super().forward(x), "unused": x @ self.unused}

    class Less(Chain):
        def forward(self, x: Tensor) -> object:
            return {"y": super().forward(x)}

    inputs = torch.randn(3, 4)
    for old, new in itertools.permutations((More, Less)):
        proof = proof_of(old, new, inputs=inputs)
        assert (proof.agrees, proof.outputs, {*proof.influential}) == (True, 1, {*"abc"})
    assert "unused" in proof_of(More, More, inputs=inputs).influential


def test_model_that_runs_in_float32_alone_is_proved_in_it() -> None:
    """It also keeps what it worked out in the first run."""

    class Single(Chain):
        def forward(self, x: Tensor) -> Tensor:
            if not hasattr(self, "kept"):
                self.kept = torch.ones(4, dtype=x.dtype)
            return super().forward(x * self.kept) @ torch.ones(4, 2)

    inputs = torch.randn(3, 4)
    proof = proof_of(Single, Single, inputs=inputs)
    assert (proof.agrees, proof.dtype, {*proof.influential}) == (True, "float32", {*"abc"})

    class Double(Chain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) @ torch.ones(4, 2, dtype=x.dtype)

    for old, new in ((Single, Double), (Double, Single)):
        assert proof_of(old, new, inputs=inputs).dtype == "float32"
