"""A rename in two steps: the plan writes nothing, and applying it is the rename."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import ckpt
from ckpt.errors import ConflictError, RuleError, UsageError
from ckpt.opened import states as opened
from ckpt.ops.rename import RenamePlan, RuleOptions


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.save({"conv.w": torch.ones(2), "fc.w": torch.zeros(3)}, tmp_path / "a.pt")
    return tmp_path / "a.pt"


def test_plan_writes_nothing_and_applying_it_is_the_rename(file: Path) -> None:
    plan = ckpt.plan_rename("a.pt", "conv->embed")
    assert isinstance(plan, RenamePlan)
    assert [(change.old, change.new) for change in plan.renamed] == [("conv.w", "embed.w")]
    assert names(file.parent) == ["a.pt"]
    applied = ckpt.apply(plan, out="in-two.pt", save_rules="rules.toml")
    at_once = ckpt.rename("a.pt", "conv->embed", out="in-one.pt")
    assert (applied.plan, at_once.plan) == (plan, plan)
    assert Path("in-two.pt").read_bytes() == Path("in-one.pt").read_bytes()
    assert names(file.parent) == ["a.pt", "in-one.pt", "in-two.pt", "rules.toml"]
    undo = ckpt.plan_rename("in-two.pt", RuleOptions(file=Path("rules.toml")), undo=True)
    ckpt.apply(undo, in_place=True)
    assert list(ckpt.load("in-two.pt")) == ["conv.w", "fc.w"]


@pytest.mark.parametrize("in_place", [True, False])
def test_plan_of_a_file_that_changed_since_is_not_applied(file: Path, in_place: bool) -> None:
    plan = ckpt.plan_rename(file, "conv->embed")
    torch.save({"conv.w": torch.ones(2, 1), "fc.w": torch.zeros(3)}, file)
    before = file.read_bytes()
    with pytest.raises(ConflictError, match="changed after it was planned"):
        ckpt.apply(plan, in_place=in_place)
    assert (names(file.parent), file.read_bytes()) == (["a.pt"], before)


def test_plan_of_an_alias_is_of_the_version_that_it_was(file: Path) -> None:
    first = ckpt.register("a.pt", name="net").version
    plan = ckpt.plan_rename("net", "conv->embed")
    torch.save({"conv.w": torch.ones(3), "fc.w": torch.zeros(3)}, file)
    ckpt.register("a.pt", name="net")
    added = ckpt.apply(plan).added
    assert added is not None
    assert added.version.ref == "net:v3"
    record = ckpt.Registry().manifest(added.version).record
    assert record["parent"] == {"version": first.ref, "manifest": first.manifest}


def test_path_is_a_file_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_file({"conv.w": torch.ones(2)}, tmp_path / "v1")
    written = ckpt.apply(ckpt.plan_rename(Path("v1"), "conv->embed"), out="b.safetensors").written
    assert written is not None
    assert list(ckpt.load(written.path)) == ["embed.w"]


@pytest.mark.parametrize("rules", ["hf.toml", ["conv->embed", "runs/hf.JSON"]])
def test_name_of_a_rule_file_as_text_is_told(rules: str | list[str]) -> None:
    name = rules if isinstance(rules, str) else rules[-1]
    with pytest.raises(RuleError) as caught:
        ckpt.plan_rename({"conv.w": torch.ones(2)}, rules)
    assert str(caught.value) == f"rule '{name}' has no arrow; it looks like a file"
    assert caught.value.hint == f"rules=Path('{name}')  reads a rule file"
    with pytest.raises(RuleError) as caught:
        ckpt.plan_rename({"conv.w": torch.ones(2)}, RuleOptions(rules=[name]))
    assert caught.value.hint == f"--rules {name}  reads a rule file"


def test_options_apply_in_their_order_and_not_in_that_of_the_command_line(file: Path) -> None:
    Path("map.json").write_text('{"conv": "c"}')
    options = RuleOptions(
        add=["net."], rules=["c=d"], maps=[Path("map.json")], drop=["fc"], unwrap=False
    )
    plan = ckpt.plan_rename(file, options)
    assert plan.rules == ("drop 'fc'", "map.json", "c=d", "add net.")
    assert [tensor.key for tensor in plan.tensors] == ["net.d.w"]


def test_undo_takes_the_saved_rules_alone(file: Path) -> None:
    ckpt.rename(file, "conv->embed", out="b.pt", save_rules="r.toml")
    for rules in (RuleOptions(file=Path("r.toml"), strip=["x"]), "embed->conv", ()):
        with pytest.raises(UsageError, match="and no other rules"):
            ckpt.plan_rename("b.pt", rules, undo=True)


def test_version_is_parsed_once_and_its_rename_read_back_once(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ckpt.register(file, name="net")
    seen: list[str] = []

    def counted(source, **named):
        seen.append(source.name)
        return parse(source, **named)

    parse = opened.open_checkpoint
    monkeypatch.setattr(opened, "open_checkpoint", counted)
    assert ckpt.rename("net:v1", "conv->embed").added is not None
    assert seen == ["net:v1"]


def test_misspelt_option_is_refused_before_anything_is_written(file: Path) -> None:
    misspelt: dict[str, Any] = {"outt": "b.pt"}
    plan = ckpt.plan_rename(file, "conv->embed")
    for call in (
        lambda: ckpt.rename(file, "conv->embed", **misspelt),
        lambda: ckpt.plan_rename(file, "conv->embed", **misspelt),
        lambda: ckpt.apply(plan, **misspelt),
    ):
        with pytest.raises(TypeError, match="unexpected keyword argument 'outt'"):
            call()
    assert names(file.parent) == ["a.pt"]
