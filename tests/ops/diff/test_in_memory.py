"""What is in memory is compared like files, and a class is asked whether it loads the weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ckpt
from ckpt.errors import UsageError
from ckpt.show.diff import diff_data, diff_text
from tests.ops.rename.test_in_memory import New, Old


def forms(module: nn.Module, folder: Path) -> list[Any]:
    """The same weights in all forms that Python code may have."""
    torch.save(module.state_dict(), folder / "net.pt")
    added = ckpt.register(module, name="net", registry=folder)
    return [
        module, module.state_dict(), dict(module.state_dict()), folder / "net.pt",
        str(folder / "net.pt"), "net:v1", added, added.version,
    ]  # fmt: skip


def test_every_form_of_weights_is_equal_to_every_other(tmp_path: Path) -> None:
    net = Old()
    for a in forms(net, tmp_path):
        for b in (net, "net:v1", tmp_path / "net.pt"):
            found = ckpt.diff(a, b, registry=tmp_path)
            assert not found
            assert len(found.diff.same) == len(net.state_dict())


def test_one_changed_element_is_found_in_every_form(tmp_path: Path) -> None:
    net = Old()
    found = forms(net, tmp_path)
    changed = {key: it.clone() for key, it in net.state_dict().items()}
    changed["fc.bias"][1] += 1
    for a in [it for it in found if it is not net]:
        compared = ckpt.diff(a, changed, registry=tmp_path)
        assert compared
        assert [b.key for _, b in compared.diff.changed] == ["fc.bias"]


def test_result_of_open_is_compared(tmp_path: Path) -> None:
    torch.save(Old().state_dict(), tmp_path / "a.pt")
    with ckpt.open(tmp_path / "a.pt") as checkpoint:
        assert not ckpt.diff(checkpoint, ckpt.load(checkpoint))


def test_figures_of_what_is_in_memory_are_those_of_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    a, b = Old().state_dict(), Old().state_dict()
    torch.save(a, tmp_path / "a.pt")
    torch.save(b, tmp_path / "b.pt")
    mine = diff_data(ckpt.diff(a, b, values=True))
    theirs = diff_data(ckpt.diff(tmp_path / "a.pt", tmp_path / "b.pt", values=True))
    assert {**mine, "before": 0, "after": 0} == {**theirs, "before": 0, "after": 0}


def test_class_is_asked_whether_it_loads_them() -> None:
    old = Old()
    found = ckpt.diff(old.state_dict(), New)
    assert found
    assert found.fitting is not None
    assert not found.fitting.fit.fits
    with pytest.raises(RuntimeError, match="Missing key"):
        New().load_state_dict(old.state_dict())
    assert "To make it fit:  ckpt.rename(state_dict, to=New)" in diff_text(found, width=None)
    renamed = ckpt.diff(ckpt.rename(old.state_dict(), to=New), New)
    assert not renamed
    assert renamed.fitting is not None
    assert renamed.fitting.fit.fits


def test_class_with_arguments_is_built_with_them() -> None:
    state = Old(6).state_dict()
    for to, arguments in (
        (Old, {"width": 6}),
        (lambda: Old(6), None),
        (lambda width: Old(width), {"width": 6}),
    ):
        assert not ckpt.diff(state, to, arguments=arguments)
    with torch.device("meta"):
        bare = Old(6)
    assert not ckpt.diff(state, bare)
    assert ckpt.diff(state, Old)


def test_sides_without_a_name_are_before_and_after() -> None:
    found = ckpt.diff({"w": torch.ones(1)}, {"w": torch.zeros(1)})
    assert (found.before, found.after) == ("before", "after")
    assert ckpt.diff(Old(), {"w": torch.ones(1)}).before == "Old"


def test_bool_does_not_call_equal_what_was_not_compared(tmp_path: Path) -> None:
    for name in ("a.pt", "b.pt"):
        torch.save({"w": torch.ones(2)}, tmp_path / name)
    unread = ckpt.diff(tmp_path / "a.pt", tmp_path / "b.pt", unasked=0)
    with pytest.raises(UsageError, match="16 bytes were not compared"):
        bool(unread)
    assert not ckpt.diff(tmp_path / "a.pt", {"w": torch.ones(2)}, unasked=0)
    more = ckpt.diff(tmp_path / "a.pt", {"w": torch.ones(2), "v": torch.ones(1)}, values=False)
    assert more


def test_keys_are_at_the_top_as_in_json() -> None:
    before = {"a": torch.ones(2), "b": torch.ones(2), "c": torch.ones(3), "d": torch.ones(4)}
    after = {"a": torch.zeros(2), "b": torch.ones(2).half(), "c": torch.ones(5), "e": torch.ones(6)}
    found = ckpt.diff(before, after)
    data = diff_data(found)
    assert [entry.key for entry in found.removed] == [it["key"] for it in data["removed"]] == ["d"]
    assert [entry.key for entry in found.added] == [it["key"] for it in data["added"]] == ["e"]
    assert [a.key for a, _ in found.changed] == data["changed"] == ["a"]
    assert [a.key for a, _ in found.retyped] == [it["key"] for it in data["retyped"]] == ["b"]
    assert [a.key for a, _ in found.reshaped] == [it["key"] for it in data["reshaped"]] == ["c"]
    moved = ckpt.diff(
        {"a": torch.ones(2), "s": torch.arange(9)}, {"b": torch.ones(2), "s": torch.arange(9)}
    )
    assert [(a.key, b.key) for a, b in moved.renamed] == [("a", "b")]
    assert [a.key for a, _ in moved.same] == ["s"]
