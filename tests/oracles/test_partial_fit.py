"""A partial fit is `load_state_dict(strict=False)` with nothing else missing or unexpected."""

import random
import re
import shlex
from ast import literal_eval
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, load_model, save_model

import ckpt
from ckpt.errors import PlanError
from ckpt.ops.rename import UnfitError
from ckpt.rules.prefixes import Add, Strip
from tests.cli.support import Run
from tests.effort import by_effort
from tests.oracles import networks
from tests.oracles.test_fits import DEFINITION, State, file_of

PAIRS = by_effort(25, 400, 2000)
NAMES_ALONE = [Add("x."), Strip("x.")]  # any rules that give the same keys again

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, vocab=32, tokens=17, classes=10, more=False):
        super().__init__()
        self.embed = nn.Embedding(vocab, 8)
        self.pos = nn.Parameter(torch.zeros(1, tokens, 8))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, classes)
        if more:
            self.aux = nn.Linear(8, 3)
"""


def of_class(**arguments: object) -> torch.nn.Module:
    space: dict[str, Any] = {}
    exec(NET, space)
    torch.manual_seed(0)
    made: torch.nn.Module = space["Net"](**arguments)
    return made


@pytest.fixture
def net(ckpt: Run, folder: Path) -> Run:
    (folder / "net.py").write_text(NET)
    torch.save(of_class().state_dict(), folder / "base.pt")
    return ckpt


def loaded_in_part(path: Path, module: torch.nn.Module) -> tuple[list[str], list[str]]:
    """The missing and the unexpected keys of torch, which loads all the others bit for bit."""
    state = torch.load(path, weights_only=True)
    missing, unexpected = module.load_state_dict(state, strict=False)
    after = module.state_dict()
    assert all(torch.equal(after[key], state[key]) for key in {*state} - {*unexpected})
    return missing, unexpected


@pytest.mark.parametrize(
    ("arguments", "expression", "new"),
    [
        ("classes=7", r"^head\.", ["head.weight", "head.bias"]),
        ("classes=8", r"^head\.", ["head.weight", "head.bias"]),  # the shapes of other tensors
        ("vocab=40", "embed", ["embed.weight"]),
        ("tokens=26", "^pos$", ["pos"]),
    ],
)
@pytest.mark.parametrize(
    ("way", "prefix"), [("--to", ""), ("--to", "vit."), ("--check", "module.")]
)
def test_tensors_of_another_shape_are_left_out_and_stay_new(
    arguments: str, expression: str, new: list[str], prefix: str, way: str, net: Run, folder: Path
) -> None:
    state = {f"{prefix}{key}": value for key, value in of_class().state_dict().items()}
    torch.save(state, folder / "base.pt")
    words = ["rename", "base.pt", "-o", "new.pt", way, "net.py:Net", "--arg", arguments]
    if way == "--check":
        words += ["--rule", "^pos->p", "--rule", "^p$->pos"]  # after --strip
        words += ["--strip", prefix] * bool(prefix)
    refused = net(*words)
    assert (refused.code, refused.out) == (3, "")
    assert f"{len(new)} of another shape ({new[0]}: " in refused.err
    assert "missing" not in refused.err
    assert f"leave them new:  --allow-shape '^{new[0].partition('.')[0]}" in refused.err
    assert f"{len(new)} dropped" in refused.err or way == "--check"
    assert "renamed" in refused.err, "the plan is shown"
    assert not (folder / "new.pt").exists()
    hinted = shlex.split(refused.err.partition("leave them new:")[2])
    assert net(*words, *hinted, "--dry-run").code == 0
    ran = net(*words, "--allow-shape", expression)
    assert (ran.code, ran.err) == (0, ""), ran
    stays = f"{', '.join(new)} {'stays' if len(new) == 1 else 'stay'} new"
    assert f"fits net.py:Net --arg {arguments} but for {len(new)} key" in ran.out
    assert f": {stays}\n" in ran.out
    name, _, number = arguments.partition("=")
    assert loaded_in_part(folder / "new.pt", of_class(**{name: int(number)})) == (new, [])
    fit = net(*words, "--allow-shape", expression, "--force", "--json").data["fit"]
    assert (fit["fits"], fit["fits_in_part"], fit["stay_new"]) == (False, True, new)


@pytest.mark.parametrize("arguments", ["classes=7", "vocab=40", "tokens=26", "more=True"])
def test_command_that_diff_prints_loads_the_rest(arguments: str, net: Run, folder: Path) -> None:
    *_, line = net("diff", "base.pt", "net.py:Net", "--arg", arguments).out.splitlines()
    words = shlex.split(line.partition("To load the rest:  ckpt ")[2])
    assert words[:2] == ["rename", "base.pt"]
    assert net(*words, "-o", "new.pt").code == 0
    name, _, value = arguments.partition("=")
    missing, unexpected = loaded_in_part(folder / "new.pt", of_class(**{name: literal_eval(value)}))
    assert missing
    assert not unexpected


def test_missing_and_unexpected_keys_are_allowed_by_name_alone(net: Run, folder: Path) -> None:
    state = of_class().state_dict()
    state["old.scale"] = torch.ones(5)
    torch.save(state, folder / "base.pt")
    words = ["rename", "base.pt", "--to", "net.py:Net", "--arg", "more=True", "-o", "new.pt"]
    assert net(*words, "--allow-missing", "aux.weight").code == 3
    assert net(*words, "--allow-unexpected", "aux|old").code == 3
    assert net(*words, "--allow-shape", ".").code == 3
    assert not (folder / "new.pt").exists()
    ran = net(*words, "--allow-missing", "^aux")
    assert (ran.code, ran.err) == (0, "")
    assert "old.scale  dropped" in ran.out
    module = of_class(more=True)
    assert loaded_in_part(folder / "new.pt", module) == (["aux.weight", "aux.bias"], [])
    ran = net(*words, "--force", "--allow-missing", "^aux", "--allow-unexpected", "^old")
    assert "but for 3 keys: aux.weight, aux.bias stay new; old.scale is unexpected" in ran.out
    found = loaded_in_part(folder / "new.pt", module)
    assert found == (["aux.weight", "aux.bias"], ["old.scale"])


def test_shape_alone_does_not_give_a_new_key_its_tensor(net: Run, folder: Path) -> None:
    """Only `old.scale` and `aux.bias` have their shape, and that proves nothing here."""
    state = of_class().state_dict()
    state["old.scale"] = torch.ones(3)
    torch.save(state, folder / "base.pt")
    words = ["rename", "base.pt", "--to", "net.py:Net", "--arg", "more=True", "-o", "new.pt"]
    words += ["--allow-missing", "^aux"]
    asked = net(*words)
    assert (asked.code, asked.out) == (3, "")
    assert "ambiguous: old.scale could become aux.bias" in asked.err
    module = of_class(more=True)
    new = ["aux.weight", "aux.bias"]
    assert net(*words, "--drop", "^old").code == 0
    assert loaded_in_part(folder / "new.pt", module) == (new, [])
    assert net(*words, "--force", "--allow-unexpected", "^old").code == 0
    assert loaded_in_part(folder / "new.pt", module) == (new, ["old.scale"])
    assert net(*words, "--force", "--accept-ambiguous").code == 0
    assert loaded_in_part(folder / "new.pt", module) == (new[:1], [])
    # A module in the place of another one is asked about, too.
    state = of_class(more=True).state_dict()
    old = {key.replace("aux.", "other."): value for key, value in state.items()}
    torch.save(old, folder / "base.pt")
    asked = net(*words, "--force")
    assert "ambiguous: other.weight could become aux.weight or be dropped" in asked.err
    assert net(*words, "--force", "--rule", "other->aux").code == 0
    assert loaded_in_part(folder / "new.pt", module) == ([], [])


def test_allowed_shape_does_not_keep_a_tensor_from_being_transposed(net: Run, folder: Path) -> None:
    state = of_class().state_dict()
    torch.save({**state, "head.weight": state["head.weight"].t()}, folder / "base.pt")
    out = ckpt.rename(
        folder / "base.pt", to=f"{folder}/net.py:Net", allow_shape=".", out=folder / "new.pt"
    )
    assert [made.key for made in out.plan.made] == ["head.weight"]
    assert loaded_in_part(folder / "new.pt", of_class()) == ([], [])
    assert torch.equal(torch.load(folder / "new.pt")["head.weight"], state["head.weight"])


def test_class_that_refuses_for_a_reason_of_its_own_does_not_fit_in_part(
    net: Run, folder: Path
) -> None:
    (folder / "net.py").write_text(
        NET + "    def load_state_dict(self, state, strict=True):\n"
        "        if strict:\n            raise ValueError('never strictly')\n"
        "        return super().load_state_dict(state, strict=False)\n"
    )
    ran = net("rename", "base.pt", "--to", "net.py:Net", "--allow-missing", ".")
    assert (ran.code, ran.out) == (3, "")
    assert "its loading code raises ValueError: never strictly" in ran.err


TIED = """
from torch import nn

class Body(nn.Module):
    def __init__(self, vocab=32):
        super().__init__()
        self.embed = nn.Embedding(vocab, 8)
        self.fc = nn.Linear(8, 8)

class Tied(Body):
    def __init__(self, vocab=32):
        super().__init__(vocab)
        self.lm_head = nn.Linear(8, vocab, bias=False)
        self.lm_head.weight = self.embed.weight
"""


@pytest.mark.parametrize("prefix", ["", "x."])
def test_name_that_a_file_only_notes_goes_with_its_tensor(
    prefix: str, ckpt: Run, folder: Path
) -> None:
    (folder / "net.py").write_text(TIED)
    space: dict[str, Any] = {}
    exec(TIED, space)
    save_model(space["Tied"](), str(folder / "base.safetensors"))
    if prefix:
        assert ckpt("rename", "base.safetensors", "--add", prefix, "--in-place").code == 0
    words = ["rename", "base.safetensors", "-o", "new.safetensors", "--force", "--to"]
    assert ckpt(*words, "net.py:Body").code == 0
    state = load_file(folder / "new.safetensors")
    space["Body"]().load_state_dict(state, strict=True)
    words += ["net.py:Tied", "--arg", "vocab=40"]
    refused = ckpt(*words)
    assert refused.code == 3
    assert "2 of another shape (embed.weight: 32 8, expected 40 8; lm_head.weight: " in refused.err
    ran = ckpt(*words, "--allow-shape", "embed|lm_head")
    assert "but for 2 keys: embed.weight, lm_head.weight stay new" in ran.out, ran
    path = str(folder / "new.safetensors")
    missing, unexpected = load_model(space["Tied"](40), path, strict=False)
    assert ({*missing} <= {"embed.weight", "lm_head.weight"}, [*unexpected]) == (True, [])


def test_whole_fit_is_called_one_whatever_is_allowed(net: Run, folder: Path) -> None:
    options = ("--allow-shape", ".", "--allow-missing", ".", "--allow-unexpected", ".")
    ran = net("rename", "base.pt", "--to", "net.py:Net", "-o", "new.pt", *options)
    assert ran.out.splitlines()[-3].endswith("0 keys renamed, 6 kept · fits net.py:Net"), ran
    of_class().load_state_dict(torch.load(folder / "new.pt"), strict=True)


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--rule", "a=b", "--allow-missing", "a"], 2, "need --to or --check"),
        (["--to", "net.py:Net", "--allow-shape", "("], 2, "--allow-shape '(': '(' is not a valid"),
        (
            ["--undo", "--check", "net.py:Net", "--allow-missing", "a"],
            2,
            "--undo and a partial fit exclude each other",
        ),
        (
            ["--to", "net.py:Net", "--from", "net.py:Net", "--prove", "--allow-shape", "a"],
            2,
            "--prove and a partial fit exclude each other",
        ),
    ],
)
def test_partial_fit_that_cannot_be_is_refused(
    options: list[str], code: int, says: str, net: Run
) -> None:
    ran = net("rename", "base.pt", *options)
    assert ran.code == code
    assert says in ran.err


def test_optimizer_is_kept_and_new_parameters_begin_without_state(net: Run, folder: Path) -> None:
    module = of_class()
    optimizer = torch.optim.SGD(module.parameters(), momentum=0.9)
    module.norm(torch.ones(8)).sum().backward()
    optimizer.step()
    run = {"model": module.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(run, folder / "run.pt")
    words = ["rename", "run.pt", "--to", "net.py:Net", "--arg", "more=True", "-o", "new.pt"]
    assert net(*words, "--allow-missing", "aux").code == 0
    made = torch.load(folder / "new.pt", weights_only=True)
    bigger = of_class(more=True)
    missing, unexpected = bigger.load_state_dict(made["model"], strict=False)
    assert (missing, unexpected) == (["aux.weight", "aux.bias"], [])
    again = torch.optim.SGD(bigger.parameters(), momentum=0.9)
    again.load_state_dict(made["optimizer"])
    momentum = optimizer.state[module.norm.weight]["momentum_buffer"]
    assert torch.equal(again.state[bigger.norm.weight]["momentum_buffer"], momentum)
    assert bigger.aux.weight not in again.state


def test_version_that_fits_in_part_is_not_recorded_to_fit(net: Run) -> None:
    assert net("register", "base.pt", "--name", "net").code == 0
    words = ["rename", "v1", "--to", "net.py:Net"]
    assert net(*words, "--arg", "classes=7", "--allow-shape", "head").code == 0
    assert "fits" not in net("show", "v2", "--json").data["record"]


def expected(state: State, module: torch.nn.Module, allow: dict[str, str]) -> bool:
    """Whether torch loads what is left, not strictly, and names only what is allowed."""
    shapes = {key: it.shape for key, it in module.state_dict().items() if torch.is_tensor(it)}
    left: State = OrderedDict(
        (key, value)
        for key, value in state.items()
        if not torch.is_tensor(value)
        or value.shape == shapes.get(key, value.shape)
        or not re.search(allow["shape"], key)
    )
    if hasattr(state, "_metadata"):
        left._metadata = state._metadata  # type: ignore[attr-defined]
    out = {*state} - {*left}
    if not left:  # no file is written without tensors
        return False
    try:
        missing, unexpected = module.load_state_dict(left, strict=False)
    except Exception:  # noqa: BLE001  # whatever it is: the weights are not loaded
        return False
    return all(key in out or re.search(allow["missing"], key) for key in missing) and all(
        re.search(allow["unexpected"], key) for key in unexpected
    )


def test_fits_in_part_is_what_torch_loads_in_part(tmp_path: Path) -> None:
    verdicts = []
    for seed in range(PAIRS):
        draw = random.Random(f"part {seed}")
        state = file_of(seed, draw)
        if not all(isinstance(value, torch.Tensor) for value in state.values()) or not state:
            continue
        path = tmp_path / f"{seed}.pt"
        torch.save(state, path)
        words = ("missing", "unexpected", "shape")
        allow = {word: draw.choice([".", "weight", "m0", "$^"]) for word in words}
        accepted = expected(state, networks.build(seed), allow)
        options: dict[str, Any] = {f"allow_{w}": [text] for w, text in allow.items()}
        out = tmp_path / f"{seed}.out.pt"
        try:
            renamed = ckpt.rename(
                path, NAMES_ALONE, check=DEFINITION, arguments={"seed": seed}, out=out, **options
            )
        except (UnfitError, PlanError):
            assert not out.exists()
            assert not accepted, (seed, allow)
        else:
            assert accepted, (seed, allow)
            fitting = renamed.plan.fitting
            assert fitting is not None
            missing, unexpected = networks.build(seed).load_state_dict(
                torch.load(out, weights_only=True), strict=False
            )
            assert [entry.key for entry in fitting.fit.missing] == missing
            assert [entry.key for entry in fitting.fit.unexpected] == unexpected
            assert fitting.in_part != fitting.fit.fits
        verdicts.append(accepted)
    assert len(verdicts) / 5 < sum(verdicts) < len(verdicts) * 4 / 5, "both verdicts occur often"
