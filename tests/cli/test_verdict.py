"""The verdict of `ckpt diff FILE DEF`, `--check` and `--to` is that of torch's strict loading."""

import shlex
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ckpt as api
from tests.cli.support import Run

NETS = '''
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

class Renaming(Net):
    """Renames its old keys as it loads."""
    def __init__(self):
        super().__init__()
        self.embed = self.conv
        del self.conv
        self._register_load_state_dict_pre_hook(self.rename)

    def rename(self, state, prefix, *rest):
        for leaf in ("weight", "bias"):
            if f"{prefix}conv.{leaf}" in state:
                state[f"{prefix}embed.{leaf}"] = state.pop(f"{prefix}conv.{leaf}")

class Curious(Net):
    """Looks at values as it loads."""
    def _load_from_state_dict(self, state, prefix, *rest):
        if state[prefix + "fc.weight"].sum().item() > 0:
            super()._load_from_state_dict(state, prefix, *rest)

class Extra(nn.Linear):
    def get_extra_state(self): return {"scale": 2.0}
    def set_extra_state(self, state): self.scale = state["scale"]

class Extras(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = Extra(2, 2), Extra(2, 2)
'''


@pytest.fixture
def nets(ckpt: Run, folder: Path) -> Run:
    (folder / "net.py").write_text(NETS)
    return ckpt


def of_class(name: str) -> nn.Module:
    space: dict[str, Any] = {}
    exec(NETS, space)
    torch.manual_seed(0)
    made: nn.Module = space[name]()
    return made


def uncounted(version: int | None) -> "OrderedDict[str, torch.Tensor]":
    """A file without the counter of BatchNorm, saved by that version of it."""
    state = of_class("Net").state_dict()
    numbers = {key: {**numbers, "version": version} for key, numbers in state._metadata.items()}
    state.pop("bn.num_batches_tracked")
    bare = OrderedDict(state)
    if version is not None:
        bare._metadata = OrderedDict(numbers)  # type: ignore[attr-defined]
    return bare


@pytest.mark.parametrize(("version", "fits"), [(None, True), (1, True), (2, False)])
def test_missing_counter_is_accepted_where_torch_adds_it(
    version: int | None, fits: bool, nets: Run, folder: Path
) -> None:
    torch.save(uncounted(version), folder / "old.pt")
    found = nets("diff", "old.pt", "net.py:Net", "--json").data["fit"]
    assert found["fits"] == fits
    counter = "bn.num_batches_tracked"
    assert found["handled"] == ([counter] if fits else [])
    assert [entry["key"] for entry in found["missing"]] == ([] if fits else [counter])
    words = ("rename", "old.pt", "--rule", "fc=head", "--rule", "head=fc", "-o", "new.pt")
    ran = nets(*words, "--check", "net.py:Net")
    assert ran.code == (0 if fits else 3), ran
    if fits:
        of_class("Net").load_state_dict(torch.load(folder / "new.pt"), strict=True)


def test_class_that_renames_its_old_keys_fits(nets: Run, folder: Path) -> None:
    torch.save(of_class("Net").state_dict(), folder / "old.pt")
    ran = nets("diff", "old.pt", "net.py:Renaming")
    assert ran.out.startswith(
        "old.pt fits net.py:Renaming: 7 keys agree · its loading code handles"
    )
    assert "conv.weight" in ran.out


def test_class_that_looks_at_values_is_compared_by_keys_and_that_is_said(
    nets: Run, folder: Path
) -> None:
    torch.save(of_class("Net").state_dict(), folder / "old.pt")
    ran = nets("diff", "old.pt", "net.py:Curious")
    assert (ran.code, ran.err) == (0, "")
    assert "fits net.py:Curious: 9 keys agree · by keys and shapes alone: its loading" in ran.out


@pytest.mark.parametrize("value", [{"scale": 3.0}, b"bytes", None, 7], ids=repr)
def test_extra_state_is_a_key_like_any_other(value: object, nets: Run, folder: Path) -> None:
    state = of_class("Extras").state_dict()
    state["body._extra_state"] = value
    old = OrderedDict((key.replace("body", "trunk"), it) for key, it in state.items())
    torch.save(old, folder / "old.pt")
    found = nets("diff", "old.pt", "net.py:Extras", "--json").data["fit"]
    assert {entry["key"] for entry in found["missing"]} == {
        *("body.weight", "body.bias", "body._extra_state")
    }
    assert "not a tensor" in nets("diff", "old.pt", "net.py:Extras").out
    ran = nets(
        "rename", "old.pt", "--to", "net.py:Extras", "-o", "new.pt", "--save-rules", "r.toml"
    )
    assert ran.code == 0, ran
    assert "1 key without a tensor renamed" in ran.out
    made = torch.load(folder / "new.pt")
    assert made["body._extra_state"] == value
    assert {*made} == {*state}
    undone = nets("rename", "new.pt", "--undo", "--rules", "r.toml", "-o", "back.pt")
    assert undone.code == 0, undone
    assert (folder / "back.pt").read_bytes() == (folder / "old.pt").read_bytes()


def test_rename_that_leaves_extra_state_behind_does_not_fit(nets: Run, folder: Path) -> None:
    state = of_class("Extras").state_dict()
    old = OrderedDict((key.replace("body", "trunk"), it) for key, it in state.items())
    torch.save(old, folder / "old.pt")
    rules = ("--rule", r"trunk\.(weight|bias)->body.\1", "--check", "net.py:Extras")
    ran = nets("rename", "old.pt", *rules)
    assert ran.code == 3
    assert "1 missing (body._extra_state), 1 unexpected (trunk._extra_state)" in ran.err
    assert "ckpt" not in ran.out


def test_tensor_may_not_take_the_place_of_extra_state(nets: Run, folder: Path) -> None:
    torch.save(of_class("Extras").state_dict(), folder / "old.pt")
    ran = nets("rename", "old.pt", "--rule", "body.bias->body._extra_state")
    assert ran.code == 3
    assert "two keys would become 'body._extra_state'" in ran.err


def test_version_keeps_its_extra_state_under_the_new_key(nets: Run, folder: Path) -> None:
    torch.save(of_class("Extras").state_dict(), folder / "net.pt")
    assert nets("register", "net.pt").code == 0
    assert nets("rename", "net:v1", "--rule", "body=trunk").code == 0
    assert nets("export", "net:v2", "-o", "new.pt").code == 0
    assert torch.load(folder / "new.pt")["trunk._extra_state"] == {"scale": 2.0}
    assert nets("rename", "net:v2", "--undo", "-o", "back.pt").code == 0
    assert "body._extra_state" in torch.load(folder / "back.pt")


@pytest.mark.parametrize("extra", [{}, {"config": {1, 2}}], ids=["plain", "with an object"])
def test_verdict_on_a_nested_state_dict_says_where_it_is_and_how_python_loads_it(
    extra: dict[str, object], nets: Run, folder: Path
) -> None:
    state = of_class("Net").state_dict()
    torch.save({"epoch": 3, "state_dict": state, **extra}, folder / "run.pt")
    found = nets("diff", "run.pt", "net.py:Net")
    answer, load = found.out.splitlines()[::2]
    assert answer == "run.pt fits net.py:Net under 'state_dict': 9 keys agree"
    call = load.removeprefix("To load it:  model.")
    space = {"torch": torch, "ckpt": api, "model": of_class("Net")}
    assert str(eval(f"model.{call}", space)) == "<All keys matched successfully>"
    assert "9 keys under 'state_dict' · " in nets("show", "run.pt").out
    assert nets("show", "run.pt", "--json").data["chosen"] == "state_dict"
    ran = nets(
        "rename", "run.pt", "--rule", "fc=tail", "--rule", "tail=fc", "--check", "net.py:Net"
    )
    assert "fits net.py:Net under 'state_dict'" in ran.out


ATTENTION = """
from torch import nn

class Block(nn.Module):
    def __init__(self, names):
        super().__init__()
        for name in names:
            setattr(self, name, nn.Linear(8, 8))

class Old(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Block(["query", "key", "value"]) for _ in range(3))

class New(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block(["v", "k", "q"]) for _ in range(3))

class Fused(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Block([]) for _ in range(3))
        for layer in self.layers:
            layer.qkv = nn.Linear(8, 24)
"""


@pytest.fixture
def attention(ckpt: Run, folder: Path) -> Run:
    """A file of Old, and one with its optimizer."""
    (folder / "net.py").write_text(ATTENTION)
    space: dict[str, Any] = {}
    exec(ATTENTION, space)
    net = space["Old"]()
    optimizer = torch.optim.Adam(net.parameters())
    sum(it.sum() for it in net.parameters()).backward()
    optimizer.step()
    torch.save(net.state_dict(), folder / "old.pt")
    run = {"model": net.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(run, folder / "run.pt")
    return ckpt


def test_keys_are_paired_by_what_they_are_and_not_by_shape_and_order(attention: Run) -> None:
    ran = attention("diff", "old.pt", "net.py:New")
    lines = [" ".join(line.split()) for line in ran.out.splitlines()]
    for old, new in (("query", "q"), ("key", "k"), ("value", "v")):
        pair = f"layers.{{0..2}}.{old}.{{weight,bias}} blocks.{{0..2}}.{new}.{{weight,bias}}"
        assert f"{pair} 6 keys likely" in lines
    pairs = attention("diff", "old.pt", "net.py:New", "--json").data["fit"]["pairs"]
    assert len(pairs) == 18
    fused = attention("diff", "old.pt", "net.py:Fused", "--json").data["fit"]["pairs"]
    assert {(len(pair["sources"]), pair["verb"]) for pair in fused} == {(3, "concat")}


@pytest.mark.parametrize("file", ["old.pt", "run.pt"])
def test_command_that_diff_prints_works(file: str, attention: Run) -> None:
    *_, line = attention("diff", file, "net.py:New").out.splitlines()
    words = shlex.split(line.removeprefix("To make it fit:  ckpt "))
    assert words[:2] == ["rename", file]
    assert attention(*words).code == 0


def test_diff_proposes_nothing_that_loses_an_optimizer(attention: Run, folder: Path) -> None:
    assert "To make it fit" in attention("diff", "old.pt", "net.py:Fused").out
    said = attention("diff", "run.pt", "net.py:Fused").out
    proposed = shlex.split(said.partition("To make it fit:  ckpt ")[2])
    assert attention(*proposed, "-o", "fused.pt").code == 0, said
    assert torch.load("fused.pt").keys() == torch.load("run.pt").keys()
    run = torch.load(folder / "run.pt")
    run["model"]["loss.weight"] = torch.ones(3)
    torch.save(run["model"], folder / "old.pt")
    torch.save(run, folder / "run.pt")
    assert "To make it fit" in attention("diff", "old.pt", "net.py:New").out
    said = attention("diff", "run.pt", "net.py:New").out
    proposed = shlex.split(said.partition("To make it fit:  ckpt ")[2])
    assert proposed[:2] == ["rename", "run.pt"], said
    assert attention(*proposed, "-o", "new.pt").code == 0
    new = torch.load(folder / "new.pt")
    assert "loss.weight" not in new["model"]
    assert new["optimizer"]["state"].keys() == run["optimizer"]["state"].keys()


def test_definitions_are_no_files_that_could_be_renamed(attention: Run) -> None:
    ran = attention("diff", "net.py:Old", "net.py:New")
    assert "To make it fit:  ckpt rename OLD.pt --rule " in ran.out


def with_extra(value: object, module: str = "body") -> dict[str, Any]:
    return {f"{module}.weight": torch.ones(2, 2), f"{module}._extra_state": value, "epoch": 3}


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        (with_extra({"scale": 2.0}), with_extra({"scale": 3.0}), "changed   body._extra_state"),
        (with_extra(b"12"), with_extra(b"34"), "changed   body._extra_state"),
        (with_extra(None), {"body.weight": torch.ones(2, 2)}, "removed   body._extra_state"),
        (with_extra([1]), with_extra([1], "head"), "body._extra_state  ->  head._extra_state"),
        (with_extra({"a": "b"}), with_extra(OrderedDict(a="b")), "changed   body._extra_state"),
    ],
    ids=["number", "bytes", "removed", "moved", "class"],
)
def test_diff_counts_keys_without_a_tensor(
    before: dict[str, Any], after: dict[str, Any], shown: str, ckpt: Run, folder: Path
) -> None:
    torch.save(before, folder / "a.pt")
    torch.save(after, folder / "b.pt")
    ran = ckpt("diff", "a.pt", "b.pt", "--exit-code")
    assert ran.code == 1, ran
    if "->" not in shown:
        assert shown in ran.out
    assert [ckpt("register", f"{name}.pt", "--name", "m").code for name in "ab"] == [0, 0]
    assert ckpt("diff", "v1", "v2", "--exit-code", "--values").code == 1
    assert ckpt("diff", "a.pt", "v1", "--exit-code").code == 0


def test_scales_in_an_extra_state_are_not_a_state_dict(ckpt: Run, folder: Path) -> None:
    for name, scale in (("a", torch.zeros(2)), ("b", torch.ones(2))):
        extra = with_extra({"amax": scale, "scale": scale, "scale_inv": scale})
        torch.save({"model": extra, "optimizer": None}, folder / f"{name}.pt")
    ran = ckpt("diff", "a.pt", "b.pt")
    assert "same      1 key" in ran.out
    assert "not compared: body._extra_state, which is not a plain value" in ran.out
    assert "no difference" not in ran.out


def test_diff_proposes_no_command_for_keys_that_are_not_text(ckpt: Run, folder: Path) -> None:
    (folder / "net.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.fc = nn.Linear(4, 2)\n"
    )
    torch.save([torch.ones(2, 4), torch.ones(2)], folder / "list.pt")
    ran = ckpt("diff", "list.pt", "net.py:Net")
    assert "does not fit" in ran.out
    assert "ckpt rename" not in ran.out
    assert ckpt("rename", "list.pt", "--to", "net.py:Net").code == 3


def test_key_of_another_shape_is_not_called_missing(nets: Run, folder: Path) -> None:
    state = of_class("Net").state_dict()
    state["fc.weight"] = torch.ones(3, 4)
    torch.save(state, folder / "a.pt")
    ran = nets("rename", "a.pt", "--to", "net.py:Net")
    assert ran.code == 3
    assert "1 of another shape (fc.weight: 3 4, expected 2 4)" in ran.err
    assert "missing" not in ran.err


@pytest.mark.parametrize(
    ("mine", "theirs", "paired"),
    [
        ("module.fc.weight", (3, 4), True),
        ("net.fc.weight", (3, 4), True),
        ("conv.fc.weight", (2, 5), True),
        ("module.head.weight", (3, 4), False),
        ("module.fc.weight", (2, 4), False),
    ],
)
def test_wrapped_key_of_another_shape_is_shown_beside_its_name(
    mine: str, theirs: tuple[int, ...], paired: bool, nets: Run, folder: Path
) -> None:
    state = {f"module.{key}": value for key, value in of_class("Net").state_dict().items()}
    del state["module.fc.weight"]
    state[mine] = torch.ones(theirs)
    torch.save(state, folder / "a.pt")
    ran = nets("diff", "a.pt", "net.py:Net")
    rows = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert (f"{mine} fc.weight 1 key another shape: 2 4" in rows) == paired
    pairs = nets("diff", "a.pt", "net.py:Net", "--json").data["fit"]["pairs"]
    found = [pair for pair in pairs if pair["verb"] == "another shape"]
    pair = {"sources": [mine], "targets": ["fc.weight"], "confidence": "likely"}
    assert found == [{**pair, "verb": "another shape"}] * paired


BUFFERS = "{weight,bias,running_mean,running_var,num_batches_tracked}"


def test_counter_that_torch_can_do_without_is_shown_beside_its_new_name(
    nets: Run, folder: Path
) -> None:
    state = {f"_orig_mod.{key}": value for key, value in of_class("Net").state_dict().items()}
    torch.save(state, folder / "a.pt")
    ran = nets("diff", "a.pt", "net.py:Net")
    row = next(line.split() for line in ran.out.splitlines() if "num_batches_tracked" in line)
    assert row[:2] == [f"{prefix}bn.{BUFFERS}" for prefix in ("_orig_mod.", "")]
    assert "ckpt rename a.pt --unwrap --check net.py:Net" in ran.out


def test_file_of_an_optimizer_is_called_one(nets: Run, folder: Path) -> None:
    net = of_class("Net")
    optimizer = torch.optim.AdamW(net.parameters())
    net.fc(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), folder / "opt.pt")
    for words in (("diff", "opt.pt", "net.py:Net"), ("rename", "opt.pt", "--to", "net.py:Net")):
        ran = nets(*words)
        assert ran.code == 3
        assert "opt.pt: the state of an optimizer, without the weights" in ran.err


def test_optimizer_alone_is_called_one_everywhere(nets: Run, folder: Path) -> None:
    net = of_class("Net")
    optimizer = torch.optim.AdamW(net.parameters())
    net.fc(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), folder / "opt.pt")
    torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, folder / "run.pt")
    kind = "the state of an optimizer, without the weights of a model"
    assert f"\n  {kind}\n" in nets("show", "opt.pt").out
    ran = nets("rename", "opt.pt", "--rule", "state->s")
    assert (ran.code, kind in ran.err) == (3, True)
    ran = nets("register", "opt.pt")
    assert (ran.code, f"opt:v1: {kind}" in ran.err) == (0, True)
    for words in (("show", "run.pt"), ("register", "run.pt")):
        ran = nets(*words)
        assert kind not in ran.out + ran.err


def scheduler(name: str) -> dict[str, Any]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    made = getattr(torch.optim.lr_scheduler, name)
    state: dict[str, Any] = made(optimizer, *((3,) if name == "StepLR" else ())).state_dict()
    return state


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: scheduler("StepLR"), "the state of a learning rate scheduler, which holds no"),
        (lambda: scheduler("ReduceLROnPlateau"), "the state of a learning rate scheduler, which"),
        (
            lambda: torch.amp.GradScaler("cpu").state_dict(),
            "the state of a GradScaler, which holds no tensors",
        ),
        (torch.get_rng_state, "the state of a random generator, not a state_dict"),
        (lambda: torch.zeros(16), "a single tensor, not a state_dict"),
        (lambda: torch.zeros(17, dtype=torch.uint8), "a single tensor, not a state_dict"),
    ],
    ids=["StepLR", "ReduceLROnPlateau", "GradScaler", "generator", "floats", "bytes"],
)
def test_state_of_a_trainer_is_named(
    nets: Run, folder: Path, make: Callable[[], object], said: str
) -> None:
    torch.save(make(), folder / "x.pt")
    for words in (("show", "x.pt"), ("register", "x.pt"), ("rename", "x.pt", "--rule", "a=b")):
        ran = nets(*words)
        assert ran.code == 3
        assert f"x.pt: {said}" in ran.err


@pytest.mark.parametrize(("rule", "paint"), [("conv->embed", "\x1b[32m"), ("fc->head", "\x1b[31m")])
def test_verdict_is_green_or_red(
    ckpt: Run, old: Path, monkeypatch: pytest.MonkeyPatch, rule: str, paint: str
) -> None:
    ckpt("rename", "old.pt", "--rule", rule, "-o", "new.pt")
    monkeypatch.setenv("FORCE_COLOR", "1")
    first, _, rest = ckpt("diff", "new.pt", "ckpt.models.mnist_embed:Net").out.partition("\n")
    assert first.startswith(paint + "new.pt ")
    assert first.endswith("\x1b[0m")
    assert "\x1b" not in rest
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in ckpt("diff", "new.pt", "ckpt.models.mnist_embed:Net").out


@pytest.mark.parametrize(
    ("when", "variable", "is_coloured"),
    [
        ("auto", None, False),
        ("auto", "FORCE_COLOR", True),
        ("always", None, True),
        ("always", "NO_COLOR", True),
        ("never", "FORCE_COLOR", False),
    ],
)
def test_option_decides_about_colour_before_the_environment(
    ckpt: Run, old: Path, monkeypatch: pytest.MonkeyPatch,
    when: str, variable: str | None, is_coloured: bool,
) -> None:  # fmt: skip
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "1")
    verdict = ckpt("--color", when, "diff", "old.pt", "ckpt.models.mnist_cnn:Net").out
    assert ("\x1b[32m" in verdict) == is_coloured
    error = ckpt("--color", when, "show", "none.pt").err
    assert error.startswith("\x1b[31merror:" if is_coloured else "error:")


def test_option_of_ckpt_after_the_command_is_a_mistake_with_a_hint(ckpt: Run) -> None:
    for words, hint in (
        (("ls", "-q", "--color", "never"), "ckpt --color never ls -q"),
        (("ls", "--color=always", "net"), "ckpt --color=always ls net"),
        (("--color", "never", "ls", "--no-pager"), "ckpt --no-pager --color never ls"),
        (("show", "--no-pager", "old.pt"), "ckpt --no-pager show old.pt"),
    ):
        ran = ckpt(*words)
        assert ran.code == 2
        assert ran.err.endswith(f"hint:  {hint}\n")


def test_other_hints_know_the_command_behind_an_option(ckpt: Run, old: Path) -> None:
    ran = ckpt("--color", "never", "rename", "old.pt", "new.pt")
    assert ran.err.endswith("hint:  ckpt --color never rename old.pt -o new.pt\n")
