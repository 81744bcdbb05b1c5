"""Exported migrations do without ckpt what `ckpt.migrating` does, bit for bit."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import ckpt
from ckpt.errors import CkptError, UsageError
from ckpt.migrate.chain import begin
from ckpt.migrate.chain import ran as run_rules
from ckpt.migrate.folder import Place
from ckpt.migrate.graph import Graph
from ckpt.migrate.migration import Migration
from ckpt.migrate.schema import FoldedSchema, Schema, fold_all
from ckpt.ops.migrate.exporting.forms import earlier_forms
from ckpt.ops.migrate.exporting.literals import ExportError
from ckpt.ops.migrate.exporting.mapping import mapping_source
from ckpt.ops.migrate.exporting.python import python_source
from ckpt.ops.migrate.new import drafted
from ckpt.rules.document import read_rules
from ckpt.tensors import TensorEntry
from ckpt.writing.evaluated import evaluated
from tests.effort import PATIENCE, by_effort, long_but
from tests.migrate.classes import NEW, both_forms
from tests.migrate.refactorings import model
from tests.migrate.test_walk import SIZES, STEPS, History, schema_of

State = dict[str, torch.Tensor]
WALKS = by_effort(1, 2, 60)
WITHOUT_CKPT = """
import sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ckpt":
            raise ImportError("no ckpt here")

sys.meta_path.insert(0, Refused())
sys.path.insert(0, ".")
import torch
"""
MIGRATE = """
import exported

for state, wanted, number, own, after in torch.load("cases.pt"):
    made = exported.migrate(state, wanted, number, own)
    assert made is not None
    assert made.keys() == after.keys()
    assert all(torch.equal(it, after[key]) for key, it in made.items())
    try:
        made = exported.migrate(state, wanted, None, own)
    except ValueError:
        continue  # another number is possible
    assert made is None or all(torch.equal(it, after[key]) for key, it in made.items())
print("done")
"""


def without_ckpt(code: str, folder: Path) -> str:
    """What a program prints in a process where ckpt cannot be imported."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_CKPT + code],
        cwd=folder, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def tool(*words: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, capture_output=True, text=True,
        timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def expect_good_source(file: str, folder: Path) -> None:
    """ruff would not format it otherwise, and its own test passes."""
    for length in ("88", "100", "120"):
        options = ("--isolated", "--check", "--line-length", length)
        tool("ruff", "format", *options, file, folder=folder)
    tool("pytest", "-q", "-p", "no:cacheprovider", file, folder=folder)


def expect_typed(file: str, folder: Path, *options: str) -> None:
    tool("mypy", "--strict", "--cache-dir", "cache", *options, file, folder=folder)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(WALKS))
def test_every_state_dict_of_a_walk_arrives_without_ckpt(tmp_path: Path, seed: int) -> None:
    history = History(tmp_path, seed)
    for _ in range(STEPS):
        history.step()
    graph, last = history.place.graph(), history.last
    present = fold_all([last.schema(0)])
    source = python_source([*earlier_forms(graph, present)], present, "Net", "torch")
    (tmp_path / "exported.py").write_text(source)
    cases = []
    for old in last.ancestors:
        for size in range(len(SIZES)):
            way = graph.way(old.schema(size), last.schema(size))
            assert way is not None
            before = old.states[size]
            after = {it.key: evaluated(it.made_of, before) for it in way.planned}
            wanted = {key: tuple(it.shape) for key, it in last.states[size].items()}
            cases.append((before, wanted, old.number, last.number, after))
    torch.save(cases, tmp_path / "cases.pt")
    assert without_ckpt(MIGRATE, tmp_path) == "done\n"
    expect_good_source("exported.py", tmp_path)


EVERY_RULE: Sequence[Mapping[str, Any]] = [
    {"rename": r"^stem\.conv->stem.0"},
    {"rename": "stem.norm->stem.1", "literal": True},
    {"rename": "fc->linear", "word": True},
    {"rename": r"^blocks\.(\d+)\.->layers.{1+1}.0."},
    {"rename": r"^(?P<top>layers)\.(\d+)\.(\d+)->\g<top>.{(\2-1)*1+\3}"},
    {"rename": "mlp<->attn"},
    {"at_once": ["linear1->linear2", "linear2->linear10", "x*->y"]},
    {"map": {"pre.attn": "first", "head.linear.bias": "head.shift"}},
    {"split": r"qkv\.weight$", "into": ["q.weight", "k.weight", "v.weight"]},
    {"split": r"(first|attn)\.linear10", "into": [r"\1.a1", r"{1}.b2"], "dim": -1, "sizes": [3, 9]},
    {"concat": [r"(q|Q)\.weight$", r"(k)\.weight$"], "into": "qk.weight", "dim": 1},
    {"stack": r"^layers\.(\d)\.attn\.(a1|b2)", "into": r"attn.\2", "dim": 1},
    {"unstack": r"^head\.(shift)$", "into": r"head.\1.{i}"},
    {"transpose": r"v\.weight$", "dims": [0, -1]},
    {"permute": r"stem\.0\.weight", "dims": [1, 0, 3, 2]},
    {"reshape": r"stem\.0\.weight", "shape": [-1, 9]},
    {"unsqueeze": r"stem\.1\.bias", "dim": 1},
    {"squeeze": r"stem\.1\.bias", "dim": -1},
    {"cast": r"stem\.1\.bias", "dtype": "bfloat16"},
    {"duplicate": r"stem\.1\.bias", "into": ["stem.1.bias", 'odd".more']},
    {"drop": r"out\.weight"},
    {"keep": r"."},
    {"strip": "head."},
    {"add": "net."},
]


def one_migration(rules: Sequence[Mapping[str, Any]], folder: Path) -> tuple[Graph, FoldedSchema]:
    """A migration by rules from the model of the walk, and the schema behind it."""
    before = schema_of(model(2, 6), None)
    read = read_rules([*rules], name="rules")
    made = run_rules(begin(before).planned, read)
    entries = tuple(TensorEntry(it.key, it.made_of.dtype, it.made_of.shape) for it in made)
    migration = drafted(
        before, Schema(entries), read, place=Place(folder, "net.py:Net"), message='a\\b "c"',
        on=[],
    )  # fmt: skip
    return Graph((migration,)), fold_all([Schema(entries)])


def exported(rules: Sequence[Mapping[str, Any]], folder: Path, target: str) -> str:
    graph, present = one_migration(rules, folder)
    make = python_source if target in ("torch", "lightning") else mapping_source
    return make([*earlier_forms(graph, present)], present, "Net", target)


def after_rules(migration: Migration, state: State) -> State:
    planned = run_rules(begin(schema_of(state, None)).planned, migration.rules)
    return {it.key: evaluated(it.made_of, state) for it in planned}


@pytest.mark.parametrize("count", long_but([1, len(EVERY_RULE)], range(1, len(EVERY_RULE) + 1)))
def test_every_rule_does_the_same_without_ckpt(count: int, tmp_path: Path) -> None:
    rules = EVERY_RULE[:count]
    graph, present = one_migration(rules, tmp_path)
    source = python_source([*earlier_forms(graph, present)], present, "Net", "torch")
    space: dict[str, Any] = {"__name__": "exported"}
    exec(source, space)
    for size in [(2, 6), (3, 6)]:
        state = model(*size)
        after = after_rules(graph.migrations[0], state)
        wanted = {key: tuple(it.shape) for key, it in after.items()}
        made = space["migrate"](state, wanted)
        assert made.keys() == after.keys()
        for key, it in made.items():
            assert it.dtype == after[key].dtype
            assert torch.equal(it, after[key]), key


@pytest.mark.long
def test_module_is_formatted_typed_and_tested(tmp_path: Path) -> None:
    for target in ("torch", "lightning"):
        (tmp_path / f"{target}_.py").write_text(exported(EVERY_RULE, tmp_path, target))
        expect_good_source(f"{target}_.py", tmp_path)
    expect_typed("torch_.py", tmp_path, "lightning_.py")


HOOK = """
import io
import exported
from net import Net
from torch import nn

old, after = torch.load("old.pt"), torch.load("after.pt")
whole = nn.ModuleDict({"a": Net(), "b": Net()})
{use}
for part in (whole["a"], whole["b"]):
    found = part.state_dict()
    assert found.keys() == after.keys()
    assert all(torch.equal(it, after[key]) for key, it in found.items())
print("done")
"""
TORCH = """
for part in whole.values():
    exported.register(part)
whole["a"].load_state_dict(old)
prefixed = {f"{name}.{key}": it for name in "ab" for key, it in old.items()}
whole.load_state_dict(prefixed)
file = io.BytesIO()
torch.save(whole.state_dict(), file)
file.seek(0)
whole.load_state_dict(torch.load(file))
try:
    whole["a"].load_state_dict({"odd": torch.ones(1)})
except RuntimeError as error:
    assert "Missing key" in str(error)
else:
    raise AssertionError("strict as ever")
"""
LIGHTNING = """
state = {f"{name}.{key}": it for name in "ab" for key, it in old.items()}
checkpoint = {"state_dict": state, "epoch": 3}
exported.on_load_checkpoint(whole, checkpoint)
whole.load_state_dict(checkpoint["state_dict"])
exported.on_load_checkpoint(whole, checkpoint)
"""


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::ckpt.migrate.hook.MigratedWarning")
@pytest.mark.parametrize("target", long_but(["torch"], ["torch", "lightning"]))
def test_hook_loads_what_ckpt_migrating_loads(target: str, tmp_path: Path) -> None:
    old, new = both_forms(tmp_path)
    state = old().state_dict()
    module = new()
    module.load_state_dict(state)
    torch.save(state, tmp_path / "old.pt")
    torch.save(module.state_dict(), tmp_path / "after.pt")
    out = tmp_path / "exported.py"
    done = ckpt.export_migrations(f"{tmp_path / 'net.py'}:Net", target, out=out)
    assert (done.migrations, done.forms) == (("new-blocks",), 1)
    text = NEW.replace("import ckpt\n", "").replace("@ckpt.migrating\n", "")
    (tmp_path / "net.py").write_text(text)
    use = TORCH if target == "torch" else LIGHTNING
    assert without_ckpt(HOOK.replace("{use}", use), tmp_path) == "done\n"
    expect_good_source("exported.py", tmp_path)
    with pytest.raises(UsageError, match="exists"):
        ckpt.export_migrations(f"{tmp_path / 'net.py'}:Net", target, out=out)


NUMBERED = """
import copy
import exported
from torch import nn

class Net(nn.Module):
    ckpt_schema = 2

    def __init__(self):
        super().__init__()
        self.q, self.k = nn.Linear(2, 2), nn.Linear(2, 2)
        exported.register(self)

net = Net()
state = copy.deepcopy(net.state_dict())
assert state._metadata[""]["ckpt_schema"] == 2
before = {key: it.clone() for key, it in state.items()}
net.load_state_dict(state)
assert torch.equal(net.q.weight, before["q.weight"])
state._metadata[""]["ckpt_schema"] = 1
net.load_state_dict(state)
assert torch.equal(net.k.weight, before["q.weight"])
state._metadata[""]["ckpt_schema"] = 7
for changed, why in ((state, "is 7, expected 2"), (before, "of two forms")):
    try:
        net.load_state_dict(changed)
    except RuntimeError as error:
        assert why in str(error), error
    else:
        raise AssertionError(why)
print("done")
"""


def test_number_of_a_class_tells_what_no_key_does(tmp_path: Path) -> None:
    keys = [f"{name}.{kind}" for name in "qk" for kind in ("weight", "bias")]
    entries = tuple(TensorEntry(k, "float32", (2, 2) if "w" in k else (2,)) for k in keys)
    before, after = Schema(entries, 1), Schema(entries, 2)
    swap = read_rules([{"at_once": ["^q->k", "^k->q"]}], name="rules")
    place = Place(tmp_path, "net.py:Net")
    graph = Graph((drafted(before, after, swap, place=place, message="swap", on=[]),))
    present = fold_all([after])
    forms = [*earlier_forms(graph, present)]
    (tmp_path / "exported.py").write_text(python_source(forms, present, "Net", "torch"))
    assert without_ckpt(NUMBERED, tmp_path) == "done\n"
    for target in ("vllm", "transformers"):
        with pytest.raises(ExportError, match="at once"):
            mapping_source(forms, present, "Net", target)


VLLM = '''
"""A stand-in with the rules of vLLM 0.23 for names, which cannot be installed here."""
import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class WeightsMapper:
    orig_to_new_regex: Mapping[re.Pattern[str], str | None] = field(default_factory=dict)

    def apply_list(self, values: list[str]) -> list[str]:
        kept = []
        for value in values:
            name: str | None = value
            for pattern, new in self.orig_to_new_regex.items():
                if name is not None and pattern.search(name):
                    name = None if new is None else pattern.sub(new, name)
            kept += [] if name is None else [name]
        return kept
'''
RENAMES: Sequence[Mapping[str, Any]] = [
    {"rename": r"^stem\.conv\.->stem.0."},
    {"rename": r"^blocks\.(\d+)\.attn->layers.\1.0"},
    {"rename": "fc1->up", "literal": True},
    {"rename": "out->proj", "word": True},
    {"strip": "head."},
    {"add": "net."},
    {"rename": "fc->head"},
    {"rename": "up->fc1"},
    {"rename": "fc1->wide"},
]


@pytest.mark.long
@pytest.mark.parametrize("target", long_but(["vllm"], ["transformers", "vllm"]))
def test_mapping_renames_as_the_migrations_do(target: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers" if target == "transformers" else "torch",
                        reason="transformers is not installed")  # fmt: skip
    dropped = [{"drop": r"norm\.bias$"}, {"keep": r"weight|bias$"}] if target == "vllm" else []
    (tmp_path / "exported.py").write_text(exported([*RENAMES, *dropped], tmp_path, target))
    if target == "vllm":
        stand_in = tmp_path / "vllm" / "model_executor" / "models" / "utils.py"
        stand_in.parent.mkdir(parents=True)
        stand_in.write_text(VLLM)
        for package in stand_in.relative_to(tmp_path).parents[:-1]:
            (tmp_path / package / "__init__.py").touch()
    expect_good_source("exported.py", tmp_path)
    expect_typed("exported.py", tmp_path, "--follow-imports=skip")


@pytest.mark.parametrize(
    ("rules", "target", "why"),
    [
        ([EVERY_RULE[8]], "vllm", "split 'qkv.* is not a rename of one key"),
        ([EVERY_RULE[3]], "vllm", "does arithmetic"),
        ([{"rename": r"^(pre)\.(attn)->\2.\1"}], "transformers", "other groups than the first"),
        ([{"rename": r"e->ee"}], "transformers", "would make"),
        ([{"rename": r"^stem\.conv->stem.conv.conv"}], "vllm", "stem.conv.conv.conv"),
        ([{"drop": "norm"}], "transformers", "is not a rename of one key"),
        ([RENAMES[0], {"pad": "fc.bias", "size": 12, "value": 0}], "torch", "pad 'fc.bias' has no"),
        ([{"tie": "fc.bias", "into": ["fc.bias", "b"]}], "lightning", "tie 'fc.bias' has no form"),
        ([{"rename": r"^(?<=x|yy)?stem->trunk"}], "torch", "Python's re cannot run"),
    ],
    ids=lambda it: it if isinstance(it, str) else "",
)
def test_what_a_target_lacks_is_refused_by_name(
    rules: Sequence[Mapping[str, Any]], target: str, why: str, tmp_path: Path
) -> None:
    with pytest.raises(CkptError, match=why) as refused:
        exported(rules, tmp_path, target)
    assert refused.value.exit_code == 3
