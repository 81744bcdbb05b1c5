"""Pairs of files whose names, shapes or bytes mislead: nothing wrong is written unasked.

The oracle is how the pair was made: which tensor of the second file was copied, cast or trained
from which of the first.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch

import ckpt
from ckpt.infer.find_rules import find_rules
from ckpt.infer.questions import typed
from ckpt.infer.result import Confidence, Match
from ckpt.infer.settled import FoundRules
from ckpt.rules.choice import drop
from ckpt.rules.substitution import parse_rule

State = dict[str, torch.Tensor]
Pair = tuple[State, State, dict[str, str]]  # both files, and the true source of each target key


def found_for(old: State, new: State, folder: Path) -> FoundRules:
    torch.save(old, folder / "old.pt")
    torch.save(new, folder / "new.pt")
    return find_rules(folder / "old.pt", folder / "new.pt")


def by_target(found: FoundRules) -> dict[str, Match]:
    return {match.target: match for match in found.inference.matches}


def expect_nothing_wrong(found: FoundRules, truth: Mapping[str, str]) -> None:
    """Whatever is not ambiguous is true, and whatever is has alternatives."""
    for match in found.inference.matches:
        if match.confidence is Confidence.AMBIGUOUS:
            assert len({*match.candidates}) >= 2, match
        else:
            assert truth.get(match.target) == match.source, match


def expect_whole(found: FoundRules, truth: Mapping[str, str]) -> None:
    assert found.inference.settled, [*found.inference.ambiguous()]
    assert {key: match.source for key, match in by_target(found).items()} == truth


def linear(name: str, out: int = 24, into: int = 16, *, bias: bool = True) -> State:
    made = {f"{name}.weight": torch.randn(out, into)}
    return made | {f"{name}.bias": torch.randn(out)} if bias else made


def norm(name: str, width: int = 24) -> State:
    """As torch saves a BatchNorm that was trained for a while."""
    return {
        f"{name}.weight": 1 + 0.1 * torch.randn(width),
        f"{name}.bias": 0.1 * torch.randn(width),
        f"{name}.running_mean": torch.randn(width),
        f"{name}.running_var": torch.rand(width),
        f"{name}.num_batches_tracked": torch.tensor(1000),
    }


def trained(state: State) -> State:
    """The same after some steps: correlations of 0.9 and more."""
    return {
        key: value + 0.2 * value.float().std() * torch.randn_like(value)
        if value.is_floating_point() and value.numel() > 1
        else value
        for key, value in state.items()
    }


def renamed(state: State, old: str, new: str) -> State:
    return {key.replace(old, new): value for key, value in state.items()}


def same(state: State) -> dict[str, str]:
    return {key: key for key in state}


def zeros_that_swap_places() -> Pair:
    old = linear("fc1", 16, 16) | linear("fc2", 16, 16)
    new = trained(old)
    old["fc1.bias"], new["fc2.bias"] = torch.zeros(16), torch.zeros(16)
    return old, new, same(old)


def counters_that_swap_places() -> Pair:
    old = norm("bn1") | norm("bn2")
    new = trained(old)
    old["bn1.num_batches_tracked"] = torch.tensor(7)
    new["bn2.num_batches_tracked"] = torch.tensor(7)
    return old, new, same(old)


def constants_that_swap_places() -> Pair:
    """Weights of fresh norms: ones in one layer, a half in the other."""
    old = {"a.weight": torch.ones(64), "b.weight": torch.full((64,), 0.5)}
    new = {"a.weight": torch.full((64,), 0.5), "b.weight": torch.ones(64)}
    return old, new, same(old)


def positions_that_swap_places() -> Pair:
    old = linear("a") | linear("b")
    new = trained(old)
    old |= {"a.ids": torch.arange(64), "b.ids": torch.arange(64) + 1}
    new |= {"a.ids": torch.arange(64) + 1, "b.ids": torch.arange(64)}
    return old, new, same(old)


def towers(new_names: tuple[str, str] = ("left", "right"), *, turned: bool = False) -> Pair:
    """Two towers of equal shapes, trained, cast and renamed; `turned` lists them the other way."""
    names = ("one", "two")
    old = {k: v for name in names for n in ("x", "y") for k, v in linear(f"{name}.{n}").items()}
    after = trained(old)
    new, truth = State(), {}
    for name, other in zip(names, new_names[::-1] if turned else new_names, strict=True):
        for key, value in after.items():
            if key.startswith(name):
                truth[key.replace(name, other)] = key
                new[key.replace(name, other)] = value.to(torch.bfloat16)
    return old, dict(sorted(new.items())), truth


def layers(count: int, name: str = "layers", width: int = 16) -> State:
    made = State()
    for number in range(count):
        made |= linear(f"{name}.{number}.fc", width, width)
        made |= {f"{name}.{number}.norm.weight": torch.ones(width)}
    return made


def pruned(kept: list[int], name: str = "layers") -> Pair:
    """Some layers of twelve, trained, with new numbers."""
    old = layers(12) | linear("head", 5, 16)
    after = trained(old)
    new, truth = State(), {}
    for number, layer in enumerate(kept):
        for leaf in ("fc.weight", "fc.bias", "norm.weight"):
            new[f"{name}.{number}.{leaf}"] = after[f"layers.{layer}.{leaf}"]
            truth[f"{name}.{number}.{leaf}"] = f"layers.{layer}.{leaf}"
    new |= {key: after[key] for key in ("head.weight", "head.bias")}
    return old, new, truth | {key: key for key in ("head.weight", "head.bias")}


def swapped_whole() -> Pair:
    """The modules really changed their names with each other."""
    old = linear("a") | linear("b")
    new = {f"{'ba'['ab'.index(key[0])]}{key[1:]}": value for key, value in old.items()}
    return old, new, {key: f"{'ba'['ab'.index(key[0])]}{key[1:]}" for key in new}


SETTLED: dict[str, Callable[[], Pair]] = {
    "zeros": zeros_that_swap_places,
    "counters": counters_that_swap_places,
    "constants": constants_that_swap_places,
    "positions": positions_that_swap_places,
    "towers": towers,
    "towers in another order": lambda: towers(turned=True),
    "towers of names that say nothing": lambda: towers(("zorp", "meki"), turned=True),
    "every second layer": lambda: pruned([*range(0, 12, 2)]),
    "all layers but one": lambda: pruned([0, 1, 2, *range(4, 12)], "blocks"),
    "modules swapped by their bytes": swapped_whole,
}


def test_near_values_are_likely_and_say_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    old, new, _ = towers()
    found = found_for(old, new, tmp_path).inference.matches
    assert {match.confidence for match in found} == {Confidence.LIKELY}
    assert {match.evidence for match in found if "weight" in match.source} == {"values"}


@pytest.mark.parametrize("make", SETTLED.values(), ids=SETTLED)
def test_values_or_exact_names_decide(make: Callable[[], Pair], tmp_path: Path) -> None:
    torch.manual_seed(0)
    old, new, truth = make()
    expect_whole(found_for(old, new, tmp_path), truth)


def backbone() -> State:
    return linear("backbone.fc1", 24, 16) | linear("backbone.fc2", 32, 24) | norm("backbone.bn", 32)


def new_head(old: str, new: str) -> Pair:
    """The backbone is trained on; a head of the same size is new."""
    kept = backbone()
    truth = same(kept)
    return kept | linear(old, 7, 32), trained(kept) | linear(new, 7, 32), truth


def new_parameter() -> Pair:
    kept = backbone()
    old = kept | {"aux_loss.centers": torch.randn(40, 9)}
    return old, trained(kept) | {"vq.codebook": torch.randn(40, 9)}, same(kept)


def bias_that_goes_elsewhere() -> Pair:
    """Bytes that say something, against the exact names and the other tensors of both modules."""
    old = linear("a", 64, 16) | linear("b", 64, 16)
    new = trained(old)
    new["a.bias"], new["b.bias"] = old["b.bias"], old["a.bias"]
    return old, new, {key: key for key in ("a.weight", "b.weight")}


def gain_and_shift_that_swap_places() -> Pair:
    """Bytes that say something, against the exact names, inside one module."""
    old = {"a.gain": torch.randn(64), "a.shift": torch.randn(64)}
    return old, {"a.gain": old["a.shift"], "a.shift": old["a.gain"]}, {}


def names_that_the_values_contradict() -> Pair:
    """The query is called key, and the key query."""
    old = {k: v for name in ("query", "key") for k, v in linear(f"attn.{name}", 32, 32).items()}
    after = trained(old)
    swap = {"query": "k_proj", "key": "q_proj"}
    truth = {f"attn.{swap[k.split('.')[1]]}.{k.split('.')[2]}": k for k in old}
    return old, {new: after[k] for new, k in truth.items()}, truth


def square_that_was_transposed() -> Pair:
    """Nothing but the values tells."""
    kept, square = backbone(), torch.randn(32, 32)
    old = kept | {"attn.proj.weight": square}
    return old, trained(kept) | {"attention.out_proj.weight": square.T.clone()}, same(kept)


DOUBTED: dict[str, Callable[[], Pair]] = {
    "a new head": lambda: new_head("imagenet_head", "bbox_regressor"),
    "a new parameter": new_parameter,
    "a bias that goes elsewhere": bias_that_goes_elsewhere,
    "gain and shift that swap places": gain_and_shift_that_swap_places,
    "names that the values contradict": names_that_the_values_contradict,
    "a square that was transposed": square_that_was_transposed,
    "a new head of a like name": lambda: new_head("imagenet_head", "coco_head"),
}


def without_values(old: State, new: State) -> Iterator[State]:
    """As definitions describe them: nothing of the values is left."""
    yield from ({k: torch.zeros_like(v) for k, v in side.items()} for side in (old, new))


@pytest.mark.parametrize("make", DOUBTED.values(), ids=DOUBTED)
def test_what_disagrees_is_asked(make: Callable[[], Pair], tmp_path: Path) -> None:
    torch.manual_seed(0)
    old, new, truth = make()
    found = found_for(old, new, tmp_path)
    expect_nothing_wrong(found, truth)
    assert not found.inference.settled


BLIND: dict[str, Callable[[], Pair]] = {
    "a new head": lambda: new_head("imagenet_head", "bbox_regressor"),
    "a new parameter": new_parameter,
    "every second layer": lambda: pruned([*range(0, 12, 2)]),
    "all layers but one": lambda: pruned([0, 1, 2, *range(4, 12)], "blocks"),
    "one layer": lambda: pruned([7]),
}


@pytest.mark.parametrize("make", BLIND.values(), ids=BLIND)
def test_what_only_values_tell_is_asked_without_them(
    make: Callable[[], Pair], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    old, new, truth = make()
    found = found_for(*without_values(old, new), tmp_path)
    expect_nothing_wrong(found, truth)
    assert not found.inference.settled


def blocks(count: int, names: tuple[str, str], root: str) -> State:
    made = State()
    for number in range(count):
        made |= {f"{root}.{number}.fc.weight": torch.zeros(4, 4)}
        for name in names:
            made |= {k: torch.zeros_like(v) for k, v in norm(f"{root}.{number}.{name}", 4).items()}
    return made


ASKED: dict[str, Callable[[], tuple[State, State]]] = {
    "norms of sixteen blocks": lambda: (
        blocks(16, ("bn1", "bn2"), "layers"), blocks(16, ("zorp", "meki"), "layers")
    ),
    "every second layer": lambda: tuple(without_values(*pruned([*range(0, 12, 2)])[:2])),
    "one layer": lambda: tuple(without_values(*pruned([7])[:2])),
    "names that the values contradict": lambda: names_that_the_values_contradict()[:2],
    "a new head": lambda: tuple(
        without_values(*new_head("imagenet_head", "bbox_regressor")[:2])
    ),
}  # fmt: skip


@pytest.mark.parametrize("make", ASKED.values(), ids=ASKED)
def test_one_doubt_is_one_question_and_one_rule_answers_it(
    make: Callable[[], tuple[State, State]], tmp_path: Path
) -> None:
    found = found_for(*make(), tmp_path)
    (question,) = found.questions
    assert {m.source for m in question.matches} == {m.source for m in found.inference.ambiguous()}
    assert question.rule is not None
    option, word = shlex.split(typed(question.rule) or "")
    rule = {"--drop": drop, "--rule": parse_rule}[option](word)
    made = tmp_path / "made.pt"
    ckpt.rename(tmp_path / "old.pt", [rule], to=tmp_path / "new.pt", out=made)
    assert {*torch.load(made)} == {*torch.load(tmp_path / "new.pt")}


def test_diff_pairs_by_values_what_it_reads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    old, new, truth = towers(("zorp", "meki"), turned=True)
    torch.save(old, tmp_path / "old.pt")
    torch.save(new, tmp_path / "new.pt")
    found = ckpt.diff(tmp_path / "old.pt", tmp_path / "new.pt")
    assert {new: old for old, new in found.inferred} == truth
    by_names = ckpt.diff(tmp_path / "old.pt", tmp_path / "new.pt", values=False)
    assert all(truth[new] == old for old, new in by_names.inferred)


def test_diff_calls_a_new_head_no_rename(tmp_path: Path) -> None:
    torch.manual_seed(0)
    old, new, _ = new_head("imagenet_head", "bbox_regressor")
    torch.save(old, tmp_path / "old.pt")
    torch.save(new, tmp_path / "new.pt")
    for values in (None, False):
        assert not ckpt.diff(tmp_path / "old.pt", tmp_path / "new.pt", values=values).inferred


def step(model: torch.nn.ModuleDict, optimizer: torch.optim.Optimizer, twist: torch.Tensor) -> None:
    """One step of contrastive learning: both towers see the same thing differently."""
    images = torch.randn(64, 16)
    one, two = (
        torch.nn.functional.normalize(model[name](x), dim=1)
        for name, x in (("one", images), ("two", images @ twist))
    )
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(one @ two.T * 10, torch.arange(64)).backward()
    optimizer.step()


@pytest.mark.long
def test_twin_towers_are_told_apart_after_a_thousand_steps(tmp_path: Path) -> None:
    """The oracle is a real training, after which all is cast to half the size and renamed."""
    torch.manual_seed(0)

    def tower() -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Linear(16, 32), torch.nn.LayerNorm(32), torch.nn.ReLU(), torch.nn.Linear(32, 8)
        )

    model = torch.nn.ModuleDict({"one": tower(), "two": tower()})
    optimizer, twist = torch.optim.AdamW(model.parameters(), lr=1e-3), torch.randn(16, 16)
    for _ in range(100):
        step(model, optimizer, twist)
    old = {key: value.clone() for key, value in model.state_dict().items()}
    for _ in range(1000):
        step(model, optimizer, twist)
    new = {
        key.replace("two", "bada").replace("one", "zorp"): value.to(torch.bfloat16)
        for key, value in model.state_dict().items()
    }
    truth = {key.replace("two", "bada").replace("one", "zorp"): key for key in old}
    expect_whole(found_for(old, dict(sorted(new.items())), tmp_path), truth)


def test_layer_renamed_in_its_place_is_no_question(tmp_path: Path) -> None:
    """The same layer follows on both sides; a head, the last one, may be a new one."""
    old = linear("conv1", 24, 16) | linear("fc", 7, 24)
    new = {key.replace("conv1", "stem"): torch.zeros_like(each) for key, each in old.items()}
    found = found_for(*without_values(old, new), tmp_path)
    expect_whole(found, {key.replace("conv1", "stem"): key for key in old})


def test_bias_is_split_where_its_weight_is(tmp_path: Path) -> None:
    """Sizes that add up by chance: 7 and 3 of 10."""
    kept = backbone()
    old = kept | linear("fc", 10, 8)
    new = kept | linear("head", 7, 8) | linear("extra", 3, 3)
    found = found_for(old, new, tmp_path)
    assert not found.inference.operations
