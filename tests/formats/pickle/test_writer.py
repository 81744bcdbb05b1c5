"""What is written is what Python and torch write: integers, versions of modules, tensors."""

import math
import pickle
import struct
from collections import OrderedDict

import pytest
import torch

from ckpt.formats.pickle.plain import plain_pickle
from ckpt.formats.pickle.writer import (
    integer,
    is_module_versions,
    location_of,
    pickle_state_dict,
    storage_numel,
    tensor_node,
)
from ckpt.tensors import TensorEntry
from tests.formats import hostile
from tests.formats.support import loaded, raw, torch_file


@pytest.mark.parametrize("number", [0, 255, 256, 2**16 - 1, 2**16, 2**31 - 1])
def test_integer_is_written_as_python_writes_it(number: int) -> None:
    assert hostile.PROTO2 + integer(number) + hostile.STOP == pickle.dumps(number, 2)


@pytest.mark.parametrize("number", [2**31, 2**63 - 1])
def test_large_integer_is_read_by_python(number: int) -> None:
    data = hostile.PROTO2 + integer(number) + hostile.STOP
    assert pickle.loads(data) == number  # noqa: S301 - made above


@pytest.mark.parametrize(
    ("versions", "holds"),
    [
        ({}, True),
        ({"": {}}, True),
        ({"": {"version": 0, "other": 2**31 - 1}}, True),
        ({"": {"version": 2**31}}, False),
        ({"": {"version": 2**31 + 1}}, False),
        ({"": {"version": -1}}, False),
        ({"": {"version": True}}, False),
        ({1: {"version": 1}}, False),
        ({"": 1}, False),
        ("text", False),
    ],
    ids=repr,
)
def test_versions_of_modules_are_numbers_by_name(versions: object, holds: bool) -> None:
    assert is_module_versions(versions) is holds


SHAPES = [(), (4,), (5, 4, 3), (2, 1, 3), (2, 0, 3), (3, 0)]


@pytest.mark.parametrize(
    ("dtype", "legacy"),
    # torch 2.13 cannot load a uint16 that it saved in the legacy form.
    [(torch.float32, False), (torch.uint16, False), (torch.float32, True)],
    ids=str,
)
def test_node_of_a_new_tensor_is_what_torch_saves(dtype: torch.dtype, legacy: bool) -> None:
    for shape in SHAPES:
        tensor = torch.arange(math.prod(shape)).reshape(shape).to(dtype)
        entry = TensorEntry("", str(dtype).removeprefix("torch."), shape, 0)
        node = tensor_node(entry, "0", "cpu", legacy=legacy)
        pickle_ = plain_pickle(node).data
        if legacy:
            head = [pickle.dumps(it, 2) for it in (0x1950A86A20F9469CFC6C, 1001, {})]
            numel = struct.pack("<q", storage_numel(entry))
            data = b"".join([*head, pickle_, pickle.dumps(["0"], 2), numel, raw(tensor)])
        else:
            data = torch_file(pickle_, {"0": raw(tensor)})
        expect_same(loaded(data), tensor)
        assert location_of(node) == "cpu"


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint16], ids=str)
def test_new_state_dict_is_what_torch_saves(dtype: torch.dtype) -> None:
    tensors = [torch.arange(math.prod(shape)).reshape(shape).to(dtype) for shape in SHAPES]
    name = str(dtype).removeprefix("torch.")
    entries = [TensorEntry(f"{it}", name, it, 0) for it in SHAPES]
    storages = [f"{number}" for number in range(len(SHAPES))]
    versions = {"": {"version": 1}, "0.bn": {"version": 2, "other": 300}}
    pickled = pickle_state_dict(entries, storages, versions)
    state = loaded(torch_file(pickled, dict(zip(storages, map(raw, tensors), strict=True))))
    assert type(state) is OrderedDict
    assert list(state) == [f"{it}" for it in SHAPES]
    for found, tensor in zip(state.values(), tensors, strict=True):
        expect_same(found, tensor)
    assert type(state._metadata) is OrderedDict
    assert state._metadata == versions


def expect_same(found: torch.Tensor, tensor: torch.Tensor) -> None:
    assert torch.equal(found, tensor)
    assert (found.dtype, found.stride()) == (tensor.dtype, tensor.stride())
    assert (found.storage_offset(), found.requires_grad) == (0, False)
