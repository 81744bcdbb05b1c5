"""Tied tensors in safetensors files, with the library's own `load_model` as the oracle."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, load_model, save_model
from torch import nn

import ckpt
from ckpt.errors import PlanError
from ckpt.ops.rename.rule_files import read_rule_file
from ckpt.rules.document import read_rules
from ckpt.rules.prefixes import Strip

CODE = """
from torch import nn

class Net(nn.Module):
    def __init__(self, tie=True):
        super().__init__()
        self.embed = nn.Embedding(8, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 8, bias=False)
        if tie:
            self.head.weight = self.embed.weight
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def net(*, tie: bool = True) -> nn.Module:
    space: dict[str, type[nn.Module]] = {}
    exec(CODE, space)
    return space["Net"](tie=tie)


def notes(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return {key: text for key, text in file.metadata().items() if key != "format"}


def is_loaded(path: Path, *, tie: bool = True) -> bool:
    """Whether the library loads a file strictly into a new model."""
    try:
        load_model(net(tie=tie), path)
    except RuntimeError:
        return False
    return True


def test_export_stores_tied_tensors_once_and_load_model_takes_the_file(folder: Path) -> None:
    state = net().state_dict()
    torch.save(state, "tied.pt")
    written = ckpt.export("tied.pt", folder / "tied.safetensors")
    assert written.tied == notes(folder / "tied.safetensors") == {"head.weight": "embed.weight"}
    model = net()
    assert load_model(model, folder / "tied.safetensors") == (set(), [])
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert list(load_file(folder / "tied.safetensors")) == [*state][:-1]


def test_equal_tensors_that_are_stored_twice_stay_two(folder: Path) -> None:
    torch.save({key: value.clone() for key, value in net().state_dict().items()}, "twice.pt")
    assert not ckpt.export("twice.pt", folder / "twice.safetensors").tied
    assert len(load_file(folder / "twice.safetensors")) == 4


def test_views_that_differ_in_shape_strides_or_place_are_all_stored(folder: Path) -> None:
    base = torch.arange(16.0).reshape(4, 4)
    views = {"base": base, "t": base.T, "rows": base[:2], "flat": base.view(-1)}
    views |= {"none": base[:0], "empty": base[:0]}
    torch.save(views, "views.pt")
    assert not ckpt.export("views.pt", folder / "views.safetensors").tied
    found = load_file(folder / "views.safetensors")
    assert found.keys() == views.keys()
    assert all(torch.equal(found[key], value) for key, value in views.items())


@pytest.mark.parametrize("key", ["format", "arch"])
def test_name_that_is_taken_in_the_metadata_is_stored(folder: Path, key: str) -> None:
    """`save_model` too leaves what the user put there."""
    from safetensors.torch import save_file

    tensors = {"a": torch.arange(3.0)}
    save_file(tensors, folder / "a.safetensors", metadata={"format": "pt", "arch": "mine"})
    ties = read_rules([{"tie": "a", "into": ["a", key]}], name="rules")
    ckpt.rename(folder / "a.safetensors", ties, out=folder / "b.safetensors")
    assert load_file(folder / "b.safetensors").keys() == {"a", key}
    assert notes(folder / "b.safetensors") == {"arch": "mine"}


def test_rename_notes_the_new_names_and_its_undo_gives_the_old_ones_back(folder: Path) -> None:
    torch.save(net().state_dict(), "tied.pt")
    out = folder / "new.safetensors"
    ckpt.rename("tied.pt", ["^->m."], out=out, save_rules=folder / "r.toml")
    assert notes(out) == {"m.head.weight": "m.embed.weight"}
    back = folder / "back.pt"
    ckpt.rename(out, read_rule_file(folder / "r.toml"), undo=True, out=back)
    assert not ckpt.diff("tied.pt", back).differs
    found = torch.load(back)
    assert found["head.weight"].data_ptr() == found["embed.weight"].data_ptr()


def test_pickle_of_a_safetensors_file_has_all_names_again(folder: Path) -> None:
    model = net()
    save_model(model, str(folder / "tied.safetensors"))
    ckpt.export("tied.safetensors", folder / "back.pt")
    net().load_state_dict(torch.load("back.pt"), strict=True)
    found = torch.load("back.pt")
    assert torch.equal(found["head.weight"], model.state_dict()["head.weight"])
    assert found["head.weight"].data_ptr() == found["embed.weight"].data_ptr()


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("ours", [True, False], ids=["ours", "library's"])
def test_fit_is_the_verdict_of_load_model(folder: Path, ours: bool, tie: bool) -> None:
    path = folder / "tied.safetensors"
    if ours:
        torch.save(net().state_dict(), "tied.pt")
        ckpt.export("tied.pt", path)
    else:
        save_model(net(), str(path))
    for sides in ((path, "net.py:Net"), ("net.py:Net", path)):
        found = ckpt.diff(*sides, arguments={"tie": tie})
        assert found.fitting is not None
        assert found.fitting.fit.fits == is_loaded(path, tie=tie) == tie
        assert found.differs == (not tie)
        assert bool(found.fitting.noted) == tie


def test_rules_to_a_definition_rename_noted_names_too(folder: Path) -> None:
    save_model(nn.ModuleDict({"m": net()}), str(folder / "tied.safetensors"))
    ckpt.rename(folder / "tied.safetensors", to="net.py:Net", out=folder / "new.safetensors")
    assert is_loaded(folder / "new.safetensors")
    assert notes(folder / "new.safetensors") == {"head.weight": "embed.weight"}


def test_definition_that_does_not_tie_them_gets_both(folder: Path) -> None:
    torch.save(nn.ModuleDict({"m": net()}).state_dict(), "tied.pt")
    goal = {"check": "net.py:Net", "arguments": {"tie": False}}
    ckpt.rename("tied.pt", [Strip("m.")], out=folder / "new.safetensors", **goal)
    assert is_loaded(folder / "new.safetensors", tie=False)


def test_remark_and_json_name_what_is_stored_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ckpt.cli import main

    torch.save(net().state_dict(), "tied.pt")
    with pytest.raises(SystemExit):
        main(["export", "tied.pt", "-o", "tied.safetensors"])
    assert "head.weight is stored once, as embed.weight\n" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["diff", "tied.safetensors", "net.py:Net"])
    line = "  head.weight is stored once, as embed.weight; safetensors.torch.load_model loads it\n"
    assert line in capsys.readouterr().out


TIE = [{"tie": "embed.weight", "into": ["embed.weight", "head.weight"]}]


def twice(**other: torch.Tensor) -> dict[str, torch.Tensor]:
    """Both stored, each with bytes of its own."""
    state = {key: value.clone() for key, value in net().state_dict().items()}
    return {**state, "head.weight": other.get("head", state["head.weight"])}


@pytest.mark.parametrize("source", [".pt", ".safetensors"])
def test_rule_ties_equal_tensors_that_are_stored_twice(folder: Path, source: str) -> None:
    torch.save(twice(), "twice.pt")
    ckpt.export("twice.pt", folder / "twice.safetensors")
    rules = read_rules(TIE, name="rules")
    ckpt.rename(folder / f"twice{source}", rules, out=folder / "tied.safetensors")
    assert is_loaded(folder / "tied.safetensors")
    ckpt.rename(
        folder / f"twice{source}", rules, out=folder / "tied.pt", save_rules=folder / "r.toml"
    )
    found = torch.load("tied.pt")
    assert list(found) == list(twice())
    assert found["head.weight"].data_ptr() == found["embed.weight"].data_ptr()
    saved = read_rule_file(folder / "r.toml")
    ckpt.rename(folder / "tied.pt", saved, undo=True, out=folder / "back.pt")
    back, before = torch.load("back.pt"), torch.load("twice.pt")
    assert back.keys() == before.keys()
    assert all(torch.equal(back[key], before[key]) for key in before)


def test_rule_refuses_to_tie_tensors_that_differ(folder: Path) -> None:
    other = twice()["head.weight"]
    other[0, 1] = -0.0 if other[0, 1] else 1.0
    other[7, 3] += 1
    state = twice(head=other)
    differ = int((state["embed.weight"] != other).sum())
    torch.save(state, "unequal.pt")
    with pytest.raises(PlanError, match=f"head.weight is not equal .*{differ} of 32 elements"):
        ckpt.rename("unequal.pt", read_rules(TIE, name="rules"), out=folder / "out.pt")
    torch.save(twice(head=torch.zeros(4, 8)), "shape.pt")
    with pytest.raises(PlanError, match=r"head.weight: float32 \[4, 8\] cannot be tied to"):
        ckpt.rename("shape.pt", read_rules(TIE, name="rules"), out=folder / "out.pt")
    assert not (folder / "out.pt").exists()
