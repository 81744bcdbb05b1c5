"""The guard never says *fits* of what torch would not load.

The oracle is `load_state_dict(strict=True)` of the real classes, with real tensors: of the
state_dict itself where the guard says that it fits, of the migrated one where it says that
migrations lead there.
"""

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ckpt.definitions import find_definition
from ckpt.migrate.described import Builder
from ckpt.migrate.folder import Place
from ckpt.migrate.graph import Graph
from ckpt.ops.guard.verdicts import Verdict, migrated, verdicts_on
from ckpt.ops.guard.weights import Weights
from ckpt.writing.evaluated import evaluated
from tests.effort import examples

NET = """
from torch import nn

KINDS = {
    "linear": lambda n: nn.Linear(n, n),
    "bare": lambda n: nn.Linear(n, n, bias=False),
    "conv": lambda n: nn.Conv1d(n, n, 3),
    "norm": nn.LayerNorm,
    "batch": nn.BatchNorm1d,
    "list": lambda n: nn.ModuleList(nn.Linear(2, 2) for _ in range(n)),
    "tied": None,
}

class Lenient(nn.Linear):
    '''Reads `w` as its weight, as classes do that were renamed by hand.'''
    def _load_from_state_dict(self, state_dict, prefix, *rest):
        if prefix + "w" in state_dict:
            state_dict[prefix + "weight"] = state_dict.pop(prefix + "w")
        super()._load_from_state_dict(state_dict, prefix, *rest)

KINDS["lenient"] = lambda n: Lenient(n, n)

class Net(nn.Module):
    def __init__(self, layers=(), number=None):
        super().__init__()
        first = None
        for name, kind, size in layers:
            module = KINDS[kind](size) if KINDS[kind] else nn.Linear(2, 2)
            if kind == "tied" and first is not None:
                module.weight = first.weight
            elif kind == "tied":
                first = module
            self.add_module(name, module)

class Numbered(Net):
    ckpt_schema = 2
"""

names = st.sampled_from(["a", "b", "c", "conv1", "conv2", "embed1", "head"])
kinds = st.sampled_from(["linear", "bare", "conv", "norm", "batch", "list", "tied", "lenient"])
layers = st.lists(
    st.tuples(names, kinds, st.integers(2, 3)), min_size=1, max_size=4, unique_by=lambda it: it[0]
)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("guard") / "net.py"
    path.write_text(NET)
    return path


@pytest.fixture(scope="module")
def builder(net: Path) -> Iterator[Builder]:
    with Builder(net.parent, seconds=600) as made:
        yield made


def loads(module: torch.nn.Module, state: "OrderedDict[str, torch.Tensor]") -> bool:
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError:
        return False
    return True


def judged(
    net: Path, builder: Builder, old: str, new: str, graph: Graph
) -> tuple[Verdict, Any, Any, Any]:
    described = builder.describe(f"{net}:{new}")
    before = builder.describe(f"{net}:{old}")
    place = Place(net.parent / "nowhere", "net.py:Net")
    (verdict,) = verdicts_on(
        [Weights("old", before.state)],
        described,
        place,
        graph,
        lambda state: builder.ask(f"{net}:{new}", state),
    )
    real, target = (find_definition(f"{net}:{ref}").build() for ref in (old, new))
    return verdict, before, (described, target), real.state_dict()


@pytest.mark.long
@settings(max_examples=examples(60))
@given(old=layers, new=layers, rename=st.booleans(), data=st.data())
def test_what_fits_is_loaded_strictly_by_torch(
    net: Path, builder: Builder, old: list[Any], new: list[Any], rename: bool, data: st.DataObject
) -> None:
    if rename:  # pairs that a migration can lead from one to the other are rare by chance
        fresh = data.draw(st.permutations(["a", "b", "c", "conv1", "conv2", "embed1", "head"]))
        new = [(name, kind, size) for name, (_, kind, size) in zip(fresh, old, strict=False)]
    ones, others = (f"Net(layers={it!r})" for it in (old, new))
    verdict, before, (described, target), state = judged(net, builder, ones, others, Graph(()))
    assert verdict.broken != loads(target, state)
    if verdict.draft is None:
        return
    graph = Graph((verdict.draft,))
    verdict, _, (_, target), state = judged(net, builder, ones, others, graph)
    way = graph.way(before.schema, described.schema)
    assert not verdict.broken
    assert way is not None
    assert verdict.by == way.names
    moved = OrderedDict((it.key, evaluated(it.made_of, state)) for it in way.planned)
    moved._metadata = OrderedDict(migrated(way, before.state, None).versions or {})  # type: ignore[attr-defined]
    assert loads(target, moved)


@pytest.mark.long
@settings(max_examples=examples(10))
@given(layers)
def test_number_of_another_meaning_never_fits(net: Path, builder: Builder, same: list[Any]) -> None:
    assume(same)
    ones, others = f"Numbered(layers={same!r})", f"Net(layers={same!r})"
    verdict, *_ = judged(net, builder, ones, others, Graph(()))
    assert verdict.broken
    assert verdict.draft is None
