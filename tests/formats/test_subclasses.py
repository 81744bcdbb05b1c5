"""Tensors of subclasses are named, their inner tensors shown, as they flatten themselves."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import ckpt
from ckpt.errors import FormatError, RefusedGlobalError
from ckpt.formats.subclasses import SubclassError
from tests.effort import PATIENCE
from tests.formats import hostile
from tests.formats.hostile import PROTO2, call, global_, state_dict, tuple_of
from tests.formats.support import opened, saved, torch_file

SAVE = """
import json, sys
import torch

{make}

def inner(key, tensor):
    if not hasattr(tensor, "__tensor_flatten__"):
        return [[key, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]]
    parts = [(name, getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0]]
    own = [(name, it) for name, it in parts if isinstance(it, torch.Tensor)]  # not a mesh
    return [found for name, it in own for found in inner(f"{{key}}.{{name}}", it)]

def class_of(tensor):
    return f"{{type(tensor).__module__}}.{{type(tensor).__name__}}"

state["plain"] = torch.ones(3, dtype=torch.float16)
torch.save(state, "zip.pt")
torch.save(state, "legacy.pt", _use_new_zipfile_serialization=False)
torch.save({{"model": state, "epoch": 3}}, "nested.pt")
torch.save({{key: plain(value) for key, value in state.items()}}, "plain.pt")
print(json.dumps({{
    "inner": [it for key, value in state.items() for it in inner(key, value)],
    "classes": {{key: class_of(it) for key, it in state.items() if type(it) is not torch.Tensor}},
}}))
"""
TORCHAO = """
from torchao.quantization import Int8WeightOnlyConfig, quantize_
net = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Linear(32, 8)).to(torch.bfloat16)
quantize_(net, Int8WeightOnlyConfig())
state = net.state_dict()
def plain(tensor):
    return tensor if type(tensor) is torch.Tensor else tensor.dequantize()
"""
DTENSOR = """
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
try:
    from torch.distributed.tensor import Shard, distribute_tensor
except ImportError:  # torch 2.4
    from torch.distributed._tensor import Shard, distribute_tensor
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
mesh = init_device_mesh("cpu", (1,))
state = {"w": distribute_tensor(torch.arange(12.0).reshape(4, 3), mesh, [Shard(0)])}
def plain(tensor):
    return tensor if type(tensor) is torch.Tensor else tensor.full_tensor()
"""
DTENSOR_CLASS = "torch.distributed.tensor.DTensor"
KINDS = [
    pytest.param(
        TORCHAO,
        ".dequantize()",
        marks=[
            pytest.mark.long,
            pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed"),
        ],
        id="torchao",
    ),
    pytest.param(DTENSOR, ".full_tensor()", marks=pytest.mark.long, id="DTensor"),
]


def save(make: str, folder: Path) -> Any:
    """Files of such tensors, and what torch says of their classes and inner tensors."""
    script = SAVE.format(make=make)
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=folder, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize(("make", "way"), KINDS)
def test_inner_tensors_are_those_that_torch_flattens(make: str, way: str, tmp_path: Path) -> None:
    expected = save(make, tmp_path)
    (name,) = {*expected["classes"].values()}
    first, *others = expected["classes"]
    for file, prefix in [("zip.pt", ""), ("legacy.pt", ""), ("nested.pt", "model.")]:
        shown = ckpt.show(tmp_path / file)
        found = [[it.key, it.dtype, [*it.shape]] for it in shown.entries]
        assert found == [[f"{prefix}{key}", *rest] for key, *rest in expected["inner"]]
        assert shown.subclasses == {f"{prefix}{key}": name for key in (first, *others)}
        assert shown.size == (tmp_path / file).stat().st_size
        assert shown.format == ("torch-legacy" if file == "legacy.pt" else "torch-zip")
        assert name in [found.name for found in shown.foreign]
        for refuses in (ckpt.open, lambda it: ckpt.show(it, deep=True)):
            with pytest.raises(SubclassError, match=f"{prefix}{first} is a {name}, ") as refused:
                refuses(tmp_path / file)
            assert way in str(refused.value.hint)
            assert ("such tensors" in str(refused.value)) == bool(others)
    # What the hint says gives a file that is read as torch reads it.
    plain = torch.load(tmp_path / "plain.pt")
    with ckpt.open(tmp_path / "plain.pt") as read:
        assert list(read) == list(plain)
        assert all(torch.equal(read[key], plain[key]) for key in plain)


class Own(torch.Tensor):
    """A plain tensor of another class."""


def test_plain_tensor_of_another_class_has_its_own_key(tmp_path: Path) -> None:
    tensor = torch.ones(2, 3).as_subclass(Own)
    tensor.scale = torch.ones(2, dtype=torch.float16)  # type: ignore[attr-defined]
    torch.save({"w": tensor}, tmp_path / "own.pt")
    shown = ckpt.show(tmp_path / "own.pt")
    assert [(it.key, it.dtype, it.shape) for it in shown.entries] == [
        ("w", "float32", (2, 3)),
        ("w.scale", "float16", (2,)),
    ]
    assert shown.subclasses == {"w": f"{Own.__module__}.Own"}
    assert shown.way is not None
    assert "plain tensors" in shown.way
    torch.save({"w": tensor, "v": tensor}, tmp_path / "two.pt")
    for file, says in (("own", "plain tensor"), ("two", "plain tensor (one of 2 such tensors)")):
        with pytest.raises(SubclassError) as refused:
            ckpt.open(tmp_path / f"{file}.pt")
        assert str(refused.value).endswith(f"w is a {Own.__module__}.Own, expected a {says}")


def wrapper(kind: bytes, state: bytes) -> bytes:
    make = global_("torch._utils", "_rebuild_wrapper_subclass")
    return call("torch._tensor", "_rebuild_from_type_v2", make, kind, tuple_of(), state)


def dict_of(key: str, value: bytes) -> bytes:
    return hostile.DICT + hostile.text(key) + value + hostile.SETITEM


DTENSOR_GLOBAL = global_("torch.distributed.tensor", "DTensor")
A_WRAPPER = wrapper(DTENSOR_GLOBAL, dict_of("_local_tensor", hostile.tensor()))


@pytest.mark.parametrize(
    "value",
    [
        DTENSOR_GLOBAL,
        DTENSOR_GLOBAL + tuple_of() + hostile.REDUCE,
        call("collections", "deque", hostile.LIST + A_WRAPPER + hostile.APPEND),
    ],
    ids=["named", "called", "in an opaque object"],
)
def test_subclass_of_torch_is_refused_wherever_it_is_named(value: bytes) -> None:
    data = torch_file(state_dict(value), {"0": bytes(16)})
    with pytest.raises(RefusedGlobalError, match=f"refused global {DTENSOR_CLASS} at offset") as it:
        opened(data)
    assert not isinstance(it.value, SubclassError)


def test_other_subclass_in_an_opaque_object_is_refused() -> None:
    hidden = wrapper(global_("own", "Kind"), dict_of("data", hostile.tensor()))
    data = call("collections", "deque", hostile.LIST + hidden + hostile.APPEND)
    with pytest.raises(RefusedGlobalError, match=r"own\.Kind"):
        opened(torch_file(state_dict(data), {"0": bytes(16)}))


def test_attributes_in_slots_have_no_number_in_their_path() -> None:
    """torch writes them as a second dict: `torch._utils._get_obj_state`."""
    of = tuple_of(hostile.DICT, dict_of("data", hostile.tensor()))
    data = PROTO2 + dict_of("w", wrapper(global_("own", "Kind"), of)) + hostile.STOP
    with pytest.raises(SubclassError) as refused:
        opened(torch_file(data, {"0": bytes(16)}))
    assert [it.key for it in refused.value.entries] == ["w.data"]


def test_inner_tensor_that_lies_is_refused() -> None:
    inner = hostile.tensor(shape=(5,))
    data = state_dict(wrapper(DTENSOR_GLOBAL, dict_of("_local_tensor", inner)))
    with pytest.raises(FormatError, match="_local_tensor: reaches to byte 20") as refused:
        opened(torch_file(data, {"0": bytes(16)}))
    assert not isinstance(refused.value, SubclassError)


def test_nothing_of_the_file_is_imported(tmp_path: Path) -> None:
    (tmp_path / "own.pt").write_bytes(saved({"w": torch.ones(2).as_subclass(Own)}))
    check = "import ckpt, sys; ckpt.show('own.pt'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], cwd=tmp_path, timeout=PATIENCE, check=True)
