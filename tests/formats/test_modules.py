"""Pickled modules are read as their state_dict, without their classes; torch is the oracle."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ckpt.definitions import find_definition
from ckpt.errors import FormatError, RefusedGlobalError
from ckpt.formats.opaque import expect_harmless, foreign_globals, without_opaque
from ckpt.formats.pickle.modules import with_state_dicts
from ckpt.formats.pickle.nodes import Call, DictNode, Opaque
from tests.formats.support import contents, expected, loaded, opened, saved


def tied() -> nn.Module:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    module.register_module("twice", module[0])
    module.register_module("none", None)
    return module


def buffers() -> nn.Module:
    module = nn.Sequential(nn.Linear(2, 2, bias=False))
    module.register_buffer("kept", torch.arange(3))
    module.register_buffer("passing", torch.arange(4), persistent=False)
    module.register_buffer("nothing", None)
    module[0].register_buffer("passing", torch.arange(4), persistent=False)
    return module


MODULES = {
    "resnet18": lambda: find_definition("torchvision.models:resnet18").build(),
    "encoder": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2),
    "lstm": lambda: nn.LSTM(3, 4, 2, bidirectional=True),
    "norm": lambda: nn.BatchNorm2d(4),
    "attention": lambda: nn.MultiheadAttention(8, 2, add_bias_kv=True),
    "tied": tied,
    "buffers": buffers,
    "embedding": lambda: nn.ModuleDict(
        {"a": nn.Embedding(5, 3), "b": nn.ModuleList([nn.GRU(2, 2)])}
    ),
    "parametrised": lambda: nn.utils.weight_norm(nn.Conv1d(2, 3, 3)),
    "parameters": lambda: nn.ParameterList([torch.ones(2), torch.zeros(3)]),
    "parallel": lambda: nn.DataParallel(nn.Linear(2, 2)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", MODULES)
def test_module_is_read_as_its_state_dict(name: str, old: bool) -> None:
    module: Any = MODULES[name]()
    data = saved(module, _use_new_zipfile_serialization=not old)
    checkpoint = opened(data)
    state = module.state_dict()
    assert list(contents(checkpoint).items()) == list(expected(state).items())
    assert any(found.runs_code for found in foreign_globals(checkpoint))
    with pytest.raises(RefusedGlobalError):
        expect_harmless(checkpoint, None)
    plain, changed = without_opaque(checkpoint, None)
    assert changed[0].startswith("the module (torch")
    read = loaded(plain.source.read(0, plain.source.size))
    assert list(expected(read).items()) == list(expected(state).items())
    module.load_state_dict(read)


def test_modules_beside_other_values_are_state_dicts(tmp_path: Path) -> None:
    model, ema = nn.Linear(2, 3), nn.Linear(2, 3)
    data = saved({"model": model, "ema": ema, "epoch": 3, "loss": nn.CrossEntropyLoss()})
    for name, module in (("model", model), ("ema", ema)):
        assert contents(opened(data, name)) == expected(module.state_dict())
    plain, changed = without_opaque(opened(data, "model"), "model")
    read = loaded(plain.source.read(0, plain.source.size))
    assert [path.partition(" ")[0] for path in changed] == ["model", "ema", "loss"]
    assert expected(read["ema"]) == expected(ema.state_dict())
    assert read["epoch"] == 3


def test_attributes_of_another_shape_are_not_a_module() -> None:
    for field in ("_parameters", "_buffers", "_modules"):
        module = nn.Linear(2, 2)
        module.__dict__[field] = {"a": [torch.ones(2)]}
        with pytest.raises(RefusedGlobalError):
            opened(saved(module))


def test_keys_that_would_fill_the_memory_are_refused() -> None:
    module = nn.Module()
    module._modules["x" * 1_000_000] = nn.ModuleList([nn.Linear(1, 1) for _ in range(100)])
    with pytest.raises(RefusedGlobalError):
        opened(saved(module))


def test_module_in_itself_is_refused() -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    module._modules["self"] = module
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = saved(module)
    with pytest.raises(FormatError):
        opened(data)


TENSOR = Call("torch._utils._rebuild_tensor_v2", ())


def module(tensors: dict[str, object], inner: dict[str, object] | None = None) -> Opaque:
    """The node of a module with these parameters and modules."""
    fields = {"_parameters": tensors, "_buffers": {}, "_modules": inner or {}}
    items = [(name, DictNode([*field.items()])) for name, field in fields.items()]
    return Opaque("a.Net", 0, [], DictNode([*items]))


def keys_of(root: Opaque, limit: int = 1000) -> list[object]:
    """The keys of its state_dict; of a module that is left as it is none."""
    found, made = with_state_dicts(root, limit)
    if found is root:
        assert made == ()
        return []
    assert isinstance(found, DictNode)
    assert found.ordered
    assert made == ("the module (a.Net, made plain)",)
    return [key for key, _ in found.items]


def test_modules_are_nested_a_hundred_deep_at_most() -> None:
    made = {depth: module({"w": TENSOR}) for depth in (100, 101)}
    for depth in made:
        for _ in range(depth):
            made[depth] = module({}, {"m": made[depth]})
    assert keys_of(made[100]) == ["m." * 100 + "w"]
    assert keys_of(made[101]) == []


def test_modules_and_tensors_are_as_many_as_opcodes_at_most() -> None:
    root = module({"a": TENSOR, "none": None}, {"m": module({"b": TENSOR})})
    assert keys_of(root, 4) == ["a", "m.b"]
    assert keys_of(root, 3) == []


def test_keys_have_33_million_characters_at_most() -> None:
    """The names of modules count too."""
    name = "m" * (2**24 - 2)
    root = {more: module({"w" * more: TENSOR}, {name: module({"w": TENSOR})}) for more in (1, 2)}
    assert keys_of(root[1]) == ["w", f"{name}.w"]
    assert keys_of(root[2]) == []


@pytest.mark.parametrize("field", ["_parameters", "_buffers", "_modules"])
def test_object_that_lacks_a_field_of_modules_is_none(field: str) -> None:
    for value in (None, [], DictNode([(1, TENSOR)]), DictNode([("w", 1)])):
        root = module({"a": TENSOR})
        assert isinstance(root.state, DictNode)
        root.state.items = [(k, value if k == field else v) for k, v in root.state.items]
        assert keys_of(root) == []


def test_modules_in_a_mapping_are_told_by_their_keys() -> None:
    other = Opaque("a.Other", 0)
    root = DictNode([("net", module({"w": TENSOR})), ("epoch", 3), ("other", other)])
    found, made = with_state_dicts(root, 9)
    assert found is root
    assert made == ("net (a.Net, made plain)",)
    (_, net), epoch, kept = root.items
    assert isinstance(net, DictNode)
    assert (net.items, net.ordered) == ([("w", TENSOR)], True)
    assert (epoch, kept) == (("epoch", 3), ("other", other))
    assert with_state_dicts([other], 9) == ([other], ())
