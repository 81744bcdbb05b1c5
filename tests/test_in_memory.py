"""What is in memory is read as the file that `torch.save` writes; torch and zipfile say so."""

import io
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from ckpt.errors import CkptError
from ckpt.formats import open_checkpoint
from ckpt.formats.checkpoint import Checkpoint
from ckpt.in_memory import unsaved
from tests.effort import examples
from tests.formats.support import contents, expected, opened, saved
from tests.formats.test_laws import state_dicts


def in_memory(value: Any, *, summed: bool = False) -> Checkpoint:
    return open_checkpoint(unsaved(value, name="it", file_name="it.pt", summed=summed))


def as_file(value: Any) -> bytes:
    source = in_memory(value, summed=True).source
    return source.read(0, source.size)


@given(state_dicts())
@settings(max_examples=examples(150))
def test_its_bytes_are_a_file_that_torch_loads_bit_for_bit(state: dict[str, torch.Tensor]) -> None:
    data = as_file(state)
    loaded = torch.load(io.BytesIO(data), weights_only=True)
    assert expected(loaded) == expected(state)
    assert list(loaded) == list(state)
    places = [tensor.untyped_storage().data_ptr() for tensor in state.values()]
    theirs = [tensor.untyped_storage().data_ptr() for tensor in loaded.values()]
    assert [places.index(it) for it in places] == [theirs.index(it) for it in theirs]
    assert zipfile.ZipFile(io.BytesIO(data)).testzip() is None


@given(state_dicts())
@settings(max_examples=examples(150))
def test_it_is_read_like_the_file_of_torch(state: dict[str, torch.Tensor]) -> None:
    mine, theirs = in_memory(state), opened(saved(state))
    assert contents(mine) == contents(theirs)
    assert (mine.format, mine.others, mine.rest) == (theirs.format, theirs.others, theirs.rest)


def test_module_gives_its_state_dict_with_versions_and_extra_state() -> None:
    class Counted(nn.BatchNorm1d):
        def get_extra_state(self) -> dict[str, int]:
            return {"seen": 3}

        def set_extra_state(self, state: dict[str, int]) -> None:
            self.seen = state["seen"]

    module = nn.Sequential(nn.Linear(2, 2), Counted(2))
    loaded = torch.load(io.BytesIO(as_file(module)), weights_only=True)
    assert loaded._metadata == module.state_dict()._metadata  # type: ignore[attr-defined]
    assert loaded["1._extra_state"] == {"seen": 3}
    other = nn.Sequential(nn.Linear(2, 2), Counted(2))
    other.load_state_dict(loaded, strict=True)
    assert other[1].seen == 3


def test_tensors_are_read_where_they_are() -> None:
    state = {"w": torch.zeros(1000)}
    checkpoint = in_memory(state)
    state["w"].fill_(1)
    (entry,) = checkpoint.entries
    assert checkpoint.source.read(entry.position, entry.nbytes) == np.ones(1000, "f4").tobytes()


def test_other_mappings_are_read_too() -> None:
    class Weights(OrderedDict[str, torch.Tensor]):
        pass

    state = Weights(w=torch.ones(2))
    state._metadata = OrderedDict({"": {"version": 2}})  # type: ignore[attr-defined]
    loaded = torch.load(io.BytesIO(as_file(state)), weights_only=True)
    assert expected(loaded) == expected(state)
    assert loaded._metadata[""] == {"version": 2}


class Own(torch.Tensor):
    """A tensor of a class that a reader would have to import."""


ONE = torch.ones(3)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "it: holds no torch tensors"),
    "numbers": ({"epoch": 3}, "it: holds no torch tensors"),
    "arrays": ({"w": np.ones(3)}, "it: holds no torch tensors"),
    "without values": ({"w": torch.ones(3, device="meta")}, "it: w: a meta tensor without values"),
    "sparse": ({"w": torch.eye(3).to_sparse()}, "it: w: a sparse tensor"),
    "of another class": ({"w": ONE.as_subclass(Own)}, "it: w is a .*Own, expected a plain tensor"),
    "code": ({"w": ONE, "f": lambda: 1}, "it: torch cannot save it: "),
    "two dtypes in one memory": (
        {"w": ONE, "i": ONE.view(torch.int32)}, "it: torch cannot save it: "
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_named(case: str) -> None:
    state, said = REFUSED[case]
    with pytest.raises(CkptError, match=said) as refused:
        in_memory(state)
    assert case != "arrays" or "torch.from_numpy" in str(refused.value.hint)


def test_sharded_tensors_are_refused_by_name() -> None:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    try:
        from torch.distributed.tensor import distribute_tensor
    except ImportError:  # torch 2.4
        from torch.distributed._tensor import distribute_tensor

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        sharded = distribute_tensor(torch.ones(4), init_device_mesh("cpu", (1,)))
        with pytest.raises(CkptError, match="it: w: a sharded tensor, DTensor"):
            in_memory({"w": sharded})
    finally:
        dist.destroy_process_group()


def test_torch_is_not_imported_to_see_that_there_is_no_tensor(tmp_path: Path) -> None:
    code = """
import sys, ckpt, ckpt.errors
for value in ({"w": 3}, 3, [1]):
    try:
        ckpt.diff(value, value)
    except ckpt.errors.CkptError as error:
        print(error)
assert "torch" not in sys.modules and "numpy" not in sys.modules
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines() == [
        "state_dict: holds no torch tensors",
        "int: expected a ref, a path, a state_dict, a module or a class",
        "list: expected a ref, a path, a state_dict, a module or a class",
    ]
