"""Registering what is in memory: torch loads the export bit for bit, with the objects of a file."""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

import ckpt
from ckpt.errors import FormatError, RefusedGlobalError, UsageError
from ckpt.in_memory import _Memory
from ckpt.registry.registry import Registry
from tests.effort import examples
from tests.formats.support import expected
from tests.formats.test_laws import state_dicts
from tests.ops.rename.test_in_memory import Old, ties


def exported(ref: str, folder: Path) -> Any:
    ckpt.export(ref, folder / "out.pt", registry=folder)
    assert zipfile.ZipFile(folder / "out.pt").testzip() is None
    return torch.load(folder / "out.pt", weights_only=True)


@given(state_dicts())
@settings(max_examples=examples(100))
def test_export_gives_the_state_dict_bit_for_bit(state: dict[str, torch.Tensor]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        added = ckpt.register(state, name="net", registry=folder)
        found = exported("net:v1", folder)
        assert expected(found) == expected(state)
        assert list(found) == list(state)
        assert ties(found) == ties(state)
        assert not ckpt.verify(registry=folder).damages
        assert added.version.keys == len(state)
        assert not ckpt.diff("net:v1", state, registry=folder)


def test_same_tensors_of_a_file_are_the_same_objects(tmp_path: Path) -> None:
    state = {f"layer{at}.weight": torch.randn(3000) for at in range(4)}
    torch.save(state, tmp_path / "net.pt")
    ckpt.register(tmp_path / "net.pt", registry=tmp_path)
    objects = {path.name for path in (tmp_path / ".ckpt" / "objects").rglob("*") if path.is_file()}
    ckpt.register(state, name="net", registry=tmp_path)
    after = {path.name for path in (tmp_path / ".ckpt" / "objects").rglob("*") if path.is_file()}
    assert after == objects
    assert not ckpt.diff("v1", "v2", registry=tmp_path).differs


def test_module_is_named_by_its_class_and_found_again(tmp_path: Path) -> None:
    module = Old()
    score = torch.tensor(0.5)
    added = ckpt.register(
        module, registry=tmp_path, metrics={"accuracy": score, "loss": np.float32(2)},
        alias="prod", tags=["best"], message="first",
    )  # fmt: skip
    assert (added.version.ref, added.new) == ("Old:v1", True)
    assert added.version.metrics == {"accuracy": 0.5, "loss": 2.0}
    again = ckpt.register(module.state_dict(), name="Old", registry=tmp_path)
    assert (again.version.ref, again.new) == ("Old:v1", False)
    other = Old()
    other.load_state_dict(ckpt.load("Old@prod", registry=tmp_path), strict=True)
    assert not ckpt.diff(module, other, values=True)


def test_training_checkpoint_resumes(tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    adam = torch.optim.Adam(module.parameters())
    module(torch.ones(3)).sum().backward()
    adam.step()
    run = {"model": module.state_dict(), "optimizer": adam.state_dict(), "epoch": 4}
    ckpt.register(run, name="run", registry=tmp_path)
    found = exported("run:v1", tmp_path)
    other = nn.Linear(3, 2)
    other.load_state_dict(found["model"], strict=True)
    resumed = torch.optim.Adam(other.parameters())
    resumed.load_state_dict(found["optimizer"])
    for net, optimizer in ((module, adam), (other, resumed)):
        optimizer.zero_grad()
        net(torch.ones(3)).sum().backward()
        optimizer.step()
    assert expected(module.state_dict()) == expected(other.state_dict())


def test_folder_of_the_same_name_is_not_registered_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.pt").mkdir()
    (tmp_path / "net.pt" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert ckpt.register({"w": torch.ones(2)}, name="net").side_files == ()


def test_files_beside_it_are_kept(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    added = ckpt.register(
        {"w": torch.ones(2)}, name="net", registry=tmp_path, with_files=[tmp_path / "config.json"]
    )
    assert added.side_files == ("config.json",)


def test_weights_that_change_meanwhile_are_not_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"w": torch.zeros(5000), "v": torch.ones(5000)}
    summed = _Memory.crc32

    def trained(memory: _Memory, span: Any) -> int:
        found = summed(memory, span)
        state["w"].add_(1)
        return found

    monkeypatch.setattr(_Memory, "crc32", trained)
    with pytest.raises(FormatError, match="state_dict: changed while it was registered"):
        ckpt.register(state, name="net", registry=tmp_path)
    assert not Registry(tmp_path).exists


class Own:
    """What no reader knows."""


def test_objects_that_run_code_are_refused_unless_asked_for(tmp_path: Path) -> None:
    run = {"model": {"w": torch.ones(2)}, "config": Own()}
    with pytest.raises(RefusedGlobalError, match="Own"):
        ckpt.register(run, name="run", registry=tmp_path)
    assert ckpt.register(run, name="run", registry=tmp_path, opaque="drop").dropped


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"w": torch.ones(2)}, "a state_dict has no name"),
        (3, "int: expected a path, a state_dict or a module"),
        (Old, "type: expected a path, a state_dict or a module"),
    ],
    ids=["without a name", "number", "class"],
)
def test_what_cannot_be_registered_is_refused(value: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        ckpt.register(value, registry=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_bytes_are_not_copied_into_memory(tmp_path: Path) -> None:
    """100 MB are registered in a process that takes less than half of that more."""
    code = """
import resource, torch, ckpt
state = {"w": torch.ones(25, 1 << 20), "v": torch.ones(1)}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ckpt.register(state, name="net")
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) // 1024)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert int(ran.stdout) < 50  # MB; the tensors have 100


def test_curves_of_another_loop_are_kept(tmp_path: Path) -> None:
    """Tensors and numpy scalars are numbers; the record spells NaN as text, as JSON needs."""
    curves = {"train loss": [torch.tensor(2.0), np.float32(0.5), float("nan")], "lr": [1, 1, 0.5]}
    added = ckpt.register({"w": torch.ones(2)}, name="net", curves=curves, registry=tmp_path)
    found = ckpt.plot(added.version.ref, registry=tmp_path)
    assert str(found.series) == "{'lr': [1.0, 1.0, 0.5], 'train loss': [2.0, 0.5, nan]}"
    assert (found.epochs, found.quantities, found.test) == (3, ["train loss"], {})
    record = Registry(tmp_path).manifest(added.version).record
    assert record["curves"]["train loss"] == [2.0, 0.5, "nan"]
    assert not ckpt.verify(registry=tmp_path).damages


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ({"loss": [1.0], "acc": []}, "curves: 1 of loss, 0 of acc; expected a number for each"),
        ({"loss": []}, "curves: 0 of loss; expected a number for each epoch of each"),
        ({"loss": "12"}, "curves: loss is not a list of numbers"),
        ([1, 2], "curves: list, expected a dict of lists"),
        ([], "curves: list, expected a dict of lists"),
        ({"loss": 0.5}, "curves: loss is not a list of numbers"),
        ({"loss": ["low"]}, "curves: loss is not a list of numbers"),
        ({"loss": [[1.0, 2.0]]}, "curves: loss is not a list of numbers"),
    ],
)
def test_wrong_curves_are_refused_before_anything_is_stored(
    tmp_path: Path, curves: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        ckpt.register({"w": torch.ones(2)}, name="net", curves=curves, registry=tmp_path)
    assert not list(tmp_path.iterdir())
