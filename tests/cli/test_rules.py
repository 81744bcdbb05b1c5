"""`ckpt rules import`: the mappings of other libraries as rule files."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from ckpt.definitions.importing import declare_torchvision_ops
from tests.cli.support import Run
from tests.effort import long_but

KEYS = (
    "conv1.weight", "conv2.bias", "layers.0.attn.q.weight", "layers.11.attn.q.weight",
    "model.model.norm.weight", "head.weight", "rotary.inv_freq", "a.attn.attn.weight",
)  # fmt: skip
SUBSTITUTIONS = [
    (r"^conv(\d)\.", r"stem.\1."),
    (r"layers\.(?P<n>\d+)", r"blocks.\g<n>"),
    (re.compile(r"attn\.(q)"), r"\1"),
    ("^model.", ""),
]
MAPPING = """
import re

print("a print of the file does not matter")
PLAIN = {"conv1": "stem", "layers.0.attn.q.weight": "q.weight", "head": "fc.head"}
PARTS = {"model.": "", "layers.": "blocks.", ".attn": "_attn"}
REGEX = {r"^conv(\\d)": r"stem.\\1", r"layers\\.(\\d+)": r"blocks.\\1"}
PAIRS = SUBSTITUTIONS
CODE = [(r"layers\\.(\\d+)", lambda m: m[1]), ("conv", "stem"), ("norm", ""), ("q", "{q}")]
NOTHING = [(re.compile("A", re.I), "b")]
OTHER = 3


class WeightsMapper:
    def __init__(self, **named):
        vars(self).update(named)


class Model:
    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_regex={
            re.compile(r"layers\\.(\\d+)\\."): r"blocks.\\1.",
            re.compile("rot"): None,
        },
        orig_to_new_substr={"attn.": "self.", "conv2.": ""},
        orig_to_new_prefix={"model.model.": "model.", "conv1.": "", "head.": "lm.head."},
        orig_to_new_suffix={".weight": ".w", ".norm.w": None, "bias": "b"},
        orig_to_new_stacked=STACKED,
    )
"""


@pytest.fixture
def mapped(ckpt: Run, folder: Path) -> Run:
    """A file of mappings, and `old.pt`."""
    text = MAPPING.replace("SUBSTITUTIONS", repr(SUBSTITUTIONS)).replace("STACKED", "{}")
    (folder / "m.py").write_text(text)
    torch.save({key: torch.zeros(1) for key in KEYS}, folder / "old.pt")
    return ckpt


def renamed(ckpt: Run, source: str, keys: Mapping[str, str | None], folder: Path) -> None:
    """Import rules, rename by them, and compare with what the mapping makes of each key."""
    ran = ckpt("rules", "import", source, "-o", "r.toml")
    assert ran.code == 0, ran.err
    assert ckpt("rename", "old.pt", "--rules", "r.toml", "-o", "new.pt").code == 0
    new = torch.load(folder / "new.pt")
    assert [*new] == [key for key in keys.values() if key is not None]


@pytest.mark.long
def test_dict_lists_keys_and_modules(mapped: Run, folder: Path) -> None:
    names = {"conv1.weight": "stem.weight", "layers.0.attn.q.weight": "q.weight"}
    names |= {"head.weight": "fc.head.weight"}
    renamed(mapped, "m.py:PLAIN", {key: names.get(key, key) for key in KEYS}, folder)


@pytest.mark.long
def test_dict_with_dots_at_ends_lists_parts_of_keys(mapped: Run, folder: Path) -> None:
    made = {}
    for key in KEYS:
        new = key.replace("model.", "").replace("layers.", "blocks.").replace(".attn", "_attn")
        made[key] = new
    assert made != {key: key for key in KEYS}
    renamed(mapped, "m.py:PARTS", made, folder)


@pytest.mark.long
def test_existing_file_is_replaced_only_if_asked(mapped: Run, folder: Path) -> None:
    assert mapped("rules", "import", "m.py:PLAIN", "-o", "r.toml").code == 0
    before = (folder / "r.toml").read_bytes()
    ran = mapped("rules", "import", "m.py:REGEX", "-o", "r.toml")
    assert (ran.code, "--force" in ran.err) == (2, True)
    assert (folder / "r.toml").read_bytes() == before
    assert mapped("rules", "import", "m.py:REGEX", "-o", "r.toml", "--force").code == 0
    assert (folder / "r.toml").read_bytes() != before


@pytest.mark.parametrize("name", long_but(["PAIRS"], ["REGEX", "PAIRS"]))
def test_patterns_do_what_re_sub_does(name: str, mapped: Run, folder: Path) -> None:
    pairs: list[tuple[Any, str]] = [(r"^conv(\d)", r"stem.\1"), (r"layers\.(\d+)", r"blocks.\1")]
    made = {}
    for key in KEYS:
        new = key
        for old, to in pairs if name == "REGEX" else SUBSTITUTIONS:
            new = re.sub(old, to, new)
        made[key] = new
    renamed(mapped, f"m.py:{name}", made, folder)


def by_vllm(key: str) -> str | None:
    """What vLLM 0.23 makes of a key, written again from its description."""
    key = re.sub(r"layers\.(\d+)\.", r"blocks.\1.", key)
    if "rot" in key:
        return None
    for old, new in (("attn.", "self."), ("conv2.", "")):
        key = key.replace(old, new, 1)
    for old, new in (("model.model.", "model."), ("conv1.", ""), ("head.", "lm.head.")):
        key = new + key[len(old) :] if key.startswith(old) else key
    for old, to in ((".weight", ".w"), (".norm.w", None), ("bias", "b")):
        if key.endswith(old):
            if to is None:
                return None
            key = key[: -len(old)] + to
    return key


@pytest.mark.long
def test_mapper_of_vllm_is_read_by_its_attributes(mapped: Run, folder: Path) -> None:
    renamed(mapped, "m.py:Model", {key: by_vllm(key) for key in KEYS}, folder)
    text = (folder / "m.py").read_text().replace("stacked={}", "stacked={'.q': ('.qkv', 'q')}")
    (folder / "m.py").write_text(text)
    ran = mapped("rules", "import", "m.py:Model", "-o", "more.toml")
    assert ran.code == 3
    assert "orig_to_new_stacked: .q: only vLLM loads tensors so" in ran.err
    assert not (folder / "more.toml").exists()


@pytest.mark.long
def test_what_no_rule_expresses_is_named(mapped: Run, folder: Path) -> None:
    words = ("rules", "import", "m.py:CODE", "-o", "r.toml")
    ran = mapped(*words)
    assert ran.code == 3
    assert r"layers\.(\d+): its replacement is a function" in ran.err
    assert "--partial" in ran.err
    assert not (folder / "r.toml").exists()
    ran = mapped(*words, "--partial", "--json")
    assert ran.code == 0, ran.err
    done = json.loads(ran.out)
    assert done["rules"] == [{"rename": "conv->stem"}, {"rename": r"()norm->\1"}]
    assert [it["what"] for it in done["left"]] == [r"layers\.(\d+)", "q"]
    assert ran.err.count("left out: ") == 2


@pytest.mark.long
@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("m.py:NOTHING", "A: its pattern has flags"),
        ("m.py:OTHER", "int is not a dict"),
        ("m.py:PLANE", "has no PLANE"),
        ("none.py:X", "no such file"),
        ("transformers:no_such_model", "no conversion mapping for 'no_such_model'"),
        ("vllm:Model", "vllm"),
        ("hangs.py:X", "takes more than 3 s"),
        ("dies.py:X", "its code ended the process"),
        ("raises.py:X", "raises KeyError"),
    ],
)
def test_what_cannot_be_read_is_refused(mapped: Run, folder: Path, source: str, why: str) -> None:
    if source.startswith("transformers"):
        pytest.importorskip("transformers", reason="transformers is not installed")
    (folder / "hangs.py").write_text("import time\ntime.sleep(600)\n")
    (folder / "dies.py").write_text("import os\nos._exit(0)\n")
    (folder / "raises.py").write_text("X = {}['a']\n")
    seconds = ("--timeout", "3") if source.startswith("hangs") else ()
    ran = mapped("rules", "import", source, "-o", "r.toml", "--partial", *seconds)
    assert (ran.code, ran.out) == (3, "")
    assert why in ran.err
    assert not (folder / "r.toml").exists()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "timm_wrapper", "llava"])
def test_rules_of_transformers_lead_to_its_own_class(kind: str, ckpt: Run, folder: Path) -> None:
    """Keys as transformers 4 had them, which version 5 still saves, into the class of version 5."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    ran = ckpt("rules", "import", f"transformers:{kind}", "-o", "r.toml")
    assert ran.code == 0, ran.err
    if kind not in ("mixtral", "qwen2_moe"):
        return
    declare_torchvision_ops()
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 32}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "moe_intermediate_size": 24}
    experts = {"num_local_experts": 12, "num_experts": 12, "shared_expert_intermediate_size": 8}
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **sizes, **heads, **experts)
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder / "saved")
    (file,) = (folder / "saved").glob("*.safetensors")
    ran = ckpt("rename", str(file), "--rules", "r.toml", "-o", "new.pt")
    assert ran.code == 0, ran.err
    new, wanted = torch.load(folder / "new.pt"), model.state_dict()
    assert any("experts.11." in key for key in ckpt("show", str(file)).out.split())
    assert all(torch.equal(it, wanted[key]) for key, it in new.items())
    again = transformers.AutoModelForCausalLM.from_config(config)
    again.load_state_dict(new, strict=True)
