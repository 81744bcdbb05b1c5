"""`ckpt rename` beyond one rule: files of rules, wrappers, what follows, in place, and undo."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ckpt import open as open_file
from tests.cli.support import Run, tree, weights

CNN = "ckpt.models.mnist_cnn:Net"
EMBED = "ckpt.models.mnist_embed:Net"
VIT = """
# A comment, a name, and rules in order.
name = "vit"

[[rules]]
unwrap = true

[[rules]]
split = 'qkv'
into = ['query', 'key', 'value']

[[rules]]
at_once = ['fc1->up', 'fc2->down']
"""


def vit() -> dict[str, torch.Tensor]:
    return {
        f"module.blocks.{i}.{name}": torch.randn(6, 2)
        for i in range(5)
        for name in ("qkv.weight", "fc1.weight", "fc2.weight")
    }


@pytest.fixture
def file(folder: Path) -> Path:
    torch.save(vit(), folder / "vit.pt")
    (folder / "vit.toml").write_text(VIT)
    return folder / "vit.pt"


def keys(path: Path | str) -> list[str]:
    return list(torch.load(path, weights_only=True))


def test_rule_file_shows_what_each_rule_does(ckpt: Run, file: Path) -> None:
    ran = ckpt("rename", "vit.pt", "--rules", "vit.toml")
    assert ran.code == 0, ran.err
    plan, _, wrote = ran.out.partition("\n\n")
    part = "of 3 of module.blocks.{0..4}.qkv.weight   5 keys"
    assert plan.splitlines() == [
        "  module.blocks.{0..4}.fc1.weight  ->  blocks.{0..4}.up.weight     5 keys",
        "  module.blocks.{0..4}.fc2.weight  ->  blocks.{0..4}.down.weight   5 keys",
        f"  blocks.{{0..4}}.query.weight  =   part 1 {part}",
        f"  blocks.{{0..4}}.key.weight    =   part 2 {part}",
        f"  blocks.{{0..4}}.value.weight  =   part 3 {part}",
        "  rule 1  25 keys  unwrap",
        "  rule 2  15 keys  split 'qkv'",
        "  rule 3  10 keys  fc1->up and 1 more at once",
        "  10 keys renamed, 15 made, 0 kept",
    ]
    assert wrote.startswith("wrote vit.renamed.pt  ")
    assert len(keys("vit.renamed.pt")) == 25


def test_saved_rules_are_applied_again_and_undone(ckpt: Run, file: Path, folder: Path) -> None:
    words = ("rename", "vit.pt", "--rules", "vit.toml", "--rule", "blocks=h", "--add", "net.")
    ran = ckpt(*words, "--save-rules", "all.toml", "-o", "a.pt")
    assert "saved the rules in all.toml" in ran.out
    assert ckpt("rename", "vit.pt", "--rules", "all.toml", "-o", "b.pt").code == 0
    assert keys("a.pt") == keys("b.pt")
    undone = ckpt("rename", "a.pt", "--undo", "--rules", "all.toml", "-o", "back.pt")
    assert undone.code == 0, undone.err
    assert ckpt("diff", "vit.pt", "back.pt", "--exit-code").code == 0
    assert ckpt(*words, "--save-rules", "all.toml", "-o", "c.pt").code == 2, "it stands already"


def test_undo_of_a_version_is_the_version_before(ckpt: Run, old: Path) -> None:
    ckpt("register", "old.pt", "--name", "m")
    ckpt("rename", "m", "--rule", "conv=embed")
    ran = ckpt("rename", "m:v2", "--undo")
    assert ran.code == 0, ran.err
    assert "m:v1" in ran.out
    assert [v["version"] for v in ckpt("ls", "--json").data] == ["v2", "v1"]
    assert ckpt("export", "m:v1", "-o", "back.pt").code == 0
    assert Path("back.pt").read_bytes() == old.read_bytes()
    refused = ckpt("rename", "m:v1", "--undo")
    assert refused.code == 2
    assert "was not made by a rename" in refused.err


def test_operations_on_a_version_make_the_next_one_and_are_undone(ckpt: Run, file: Path) -> None:
    ckpt("register", "vit.pt", "--name", "m")
    ran = ckpt("rename", "m", "--rules", "vit.toml")
    assert ran.code == 0, ran.err
    assert "registered m:v2" in ran.out
    shown = ckpt("show", "m:v2", "--json").data
    assert shown["record"]["parent"]["version"] == "m:v1"
    assert len(shown["tensors"]) == 25
    back = ckpt("rename", "m:v2", "--undo", "-o", "back.pt")
    assert back.code == 0, back.err
    assert ckpt("diff", "m:v1", "back.pt", "--exit-code").code == 0


def test_in_place_replaces_the_file_and_leaves_nothing_else(
    ckpt: Run, old: Path, folder: Path
) -> None:
    assert (
        ckpt("rename", "old.pt", "--rule", "conv=embed", "--in-place", "--check", EMBED).code == 0
    )
    assert sorted(path.name for path in folder.iterdir()) == ["old.pt"]
    assert keys("old.pt")[0] == "embed1.weight"
    before = old.read_bytes()
    refused = ckpt("rename", "old.pt", "--rule", "embed=conv", "--in-place", "--check", EMBED)
    assert refused.code == 3
    assert old.read_bytes() == before
    assert ckpt("rename", "old.pt", "--rule", "fc=x", "--in-place", "-o", "y.pt").code == 2


def test_names_elsewhere_in_a_training_checkpoint_follow(ckpt: Run, folder: Path) -> None:
    model = torch.nn.Linear(2, 3)
    names = [[name for name, _ in model.named_parameters()]]
    run = {
        "model": model.state_dict(),
        "ema": dict(model.state_dict()),
        "optimizer": {
            "state": {"weight": {"exp_avg": torch.ones(3, 2)}, "bias": {"exp_avg": torch.ones(3)}},
            "param_groups": [{"lr": 0.1, "params": [0, 1], "param_names": names[0]}],
        },
        "hyper": {"weight": 3, "note": "weight"},
    }
    torch.save(run, folder / "run.pt")
    ran = ckpt("rename", "run.pt", "--rule", "^weight=w")
    assert ran.code == 0, ran.err
    assert "also renamed in ema, optimizer.state, optimizer.param_groups.0.param_names" in ran.out
    new = torch.load("run.renamed.pt", weights_only=True)
    assert list(new["model"]) == list(new["ema"]) == ["w", "bias"]
    assert list(new["optimizer"]["state"]) == ["w", "bias"]
    assert new["optimizer"]["param_groups"][0]["param_names"] == ["w", "bias"]
    assert new["hyper"] == {"weight": 3, "note": "weight"}

    assert ckpt("rename", "run.pt::ema", "--rule", "^weight=w", "-o", "one.pt").code == 0
    one = torch.load("one.pt", weights_only=True)
    assert (list(one["model"]), list(one["ema"])) == (["weight", "bias"], ["w", "bias"])
    assert list(one["optimizer"]["state"]) == ["weight", "bias"]


def test_several_networks_must_be_named(ckpt: Run, folder: Path) -> None:
    torch.save({"g": {"a": torch.ones(2)}, "d": {"b": torch.ones(2)}}, folder / "gan.pt")
    ran = ckpt("rename", "gan.pt", "--rule", "a=b")
    assert ran.code == 3
    assert "gan.pt::g  or  gan.pt::d" in ran.err


def test_drop_keep_strip_and_add(ckpt: Run, file: Path) -> None:
    words = ("--strip", "module.", "--drop", "qkv", "--keep", r"blocks\.[01]", "--add", "net.")
    ran = ckpt("rename", "vit.pt", *words, "-o", "few.pt")
    assert ran.code == 0, ran.err
    assert keys("few.pt") == [f"net.blocks.{i}.fc{j}.weight" for i in (0, 1) for j in (1, 2)]
    assert "11 dropped" in ran.out
    assert "module.blocks.{0..4}.qkv.weight  dropped   5 keys" in ran.out
    assert ckpt("rename", "vit.pt", *words, "--dry-run", "--json").data["dropped"][0] == {
        "key": "module.blocks.0.qkv.weight",
        "rule": 2,
    }


def test_strip_drop_and_keep_apply_as_typed(ckpt: Run, file: Path) -> None:
    strip, keep = ("--strip", "module."), ("--keep", r"^module\.blocks\.0")
    assert ckpt("rename", "vit.pt", *keep, *strip, "-o", "few.pt").code == 0
    assert all(key.startswith("blocks.0.") for key in keys("few.pt"))
    ran = ckpt("rename", "vit.pt", *strip, *keep, "-o", "none.pt")
    assert ran.code == 3
    assert r"rule 2, keep '^module\.blocks\.0'" in ran.err
    drop = ("--drop", r"^blocks\.[1-9]")
    assert ckpt("rename", "vit.pt", *strip, *drop, "--dry-run").code == 0
    assert ckpt("rename", "vit.pt", *drop, *strip, "--dry-run").code == 3


def test_dropping_keeps_the_versions_of_modules(ckpt: Run, folder: Path) -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2))
    torch.save(model.state_dict(), folder / "a.pt")
    ckpt("rename", "a.pt", "--drop", r"^1\.", "--rule", "^0=norm", "-o", "b.pt")
    state = torch.load("b.pt", weights_only=True)
    assert state._metadata["norm"] == {"version": 2}
    save_file(dict(model.state_dict()), "a.safetensors", metadata={"format": "pt", "by": "me"})
    ckpt("rename", "a.safetensors", "--drop", r"^1\.", "-o", "b.safetensors")
    with ckpt_open("b.safetensors") as lazy:
        assert lazy.rest == {"format": "pt", "by": "me"}


def ckpt_open(path: str):
    import ckpt

    return ckpt.open(path)


def test_map_in_csv(ckpt: Run, old: Path, folder: Path) -> None:
    (folder / "names.csv").write_text("old,new\nconv1,embed1\nconv2.weight,embed2.weight\n")
    assert ckpt("rename", "old.pt", "--map", "names.csv", "-o", "new.pt").code == 0
    assert keys("new.pt")[:4] == ["embed1.weight", "embed1.bias", "embed2.weight", "conv2.bias"]
    (folder / "names.csv").write_text("conv1,embed1,x\n")
    assert "has 3 columns" in ckpt("rename", "old.pt", "--map", "names.csv").err
    (folder / "names.csv").write_text("conv1,a\nconv1,b\n")
    assert "'conv1' occurs twice" in ckpt("rename", "old.pt", "--map", "names.csv").err


def test_swap_in_one_rule(ckpt: Run, old: Path) -> None:
    assert ckpt("rename", "old.pt", "--rule", "conv1<->conv2", "-o", "new.pt").code == 0
    new, first = torch.load("new.pt", weights_only=True), weights()
    assert torch.equal(new["conv2.weight"], first["conv1.weight"])
    assert torch.equal(new["conv1.weight"], first["conv2.weight"])


def test_spelling_that_the_new_class_does_not_have_is_caught(ckpt: Run, old: Path) -> None:
    """The article's own mistake: `embbed1` in the file, `embded_1` in the class."""
    ran = ckpt("rename", "old.pt", "--rule", "conv=embbed", "--check", EMBED)
    assert ran.code == 3
    assert "4 unexpected (embbed1.weight" in ran.err
    assert "this would fit:  --rule 'conv->embed'" in ran.err


BAD_FILES = {
    "": "not a rule file",
    "rules = 3": "not a rule file",
    "rules = []": "not a list of rules",
    "[[rules]]\nrename = 'a'": "rule 1: rule 'a' has no arrow",
    "[[rules]]\nrename = 'a->b'\nword = 1": "word is 1, expected true or false",
    "[[rules]]\nfrobnicate = 'a'": "expected one verb",
    "nonsense = 1\n[[rules]]\nrename='a->b'": "unknown field 'nonsense'",
    "name = 3\n[[rules]]\nrename='a->b'": "name is not a string",
    "source = [1]\n[[rules]]\nrename='a->b'": "source is not a list of key, dtype and shape",
    "[[rules]]\nrename = 'conv->x'\n" * 10_001: "10,001 rules, the limit is 10,000",
    "a = " + "[" * 3000: "r.toml: ",
    "a = '" + "x" * (1 << 26) + "'": "bytes, the limit is",
    "\x00": "r.toml: ",
    "[[rules]]\nunwrap = false": "unwrap is False, expected true",
}


@pytest.mark.parametrize("text", BAD_FILES, ids=[each[:30] for each in BAD_FILES])
def test_fault_25_rule_file_that_is_none_is_refused(
    ckpt: Run, old: Path, folder: Path, text: str
) -> None:
    (folder / "r.toml").write_text(text)
    before = tree(folder)
    ran = ckpt("rename", "old.pt", "--rules", "r.toml")
    assert ran.code in (2, 3)
    assert BAD_FILES[text] in ran.err
    assert tree(folder) == before


def test_sharded_checkpoint_with_operations_becomes_one_file(ckpt: Run, folder: Path) -> None:
    import json

    shards = folder / "shards"
    shards.mkdir()
    tensors = vit()
    save_file(tensors, shards / "model-1.safetensors")
    index = {"weight_map": dict.fromkeys(tensors, "model-1.safetensors")}
    (shards / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "vit.toml").write_text(VIT)
    ran = ckpt("rename", "shards/", "--rules", "vit.toml")
    assert ran.code == 0, ran.err
    assert len(load_file("shards.renamed.safetensors")) == 25


def test_in_place_loses_nothing(ckpt: Run, folder: Path) -> None:
    """A training checkpoint keeps its settings, whether tensors are changed or dropped."""
    path = folder / "run.pt"
    run = {"model": {"a.w": torch.ones(2, 1), "b.w": torch.ones(2)}, "optim": {"lr": 1.0}}
    torch.save(run, path)
    (folder / "r.toml").write_text('[[rules]]\ntranspose = "a.w"\n')
    assert ckpt("rename", f"{path}::model", "--rules", "r.toml", "--in-place").code == 0
    assert torch.load(path)["model"]["a.w"].shape == (1, 2)
    assert torch.load(path)["optim"] == run["optim"]
    assert ckpt("rename", f"{path}::model", "--drop", "^b", "--in-place").code == 0
    found = torch.load(path)
    assert {*found["model"]} == {"a.w"}
    assert found["optim"] == run["optim"]


def test_in_place_keeps_the_container(ckpt: Run, folder: Path) -> None:
    """Whatever the suffix says."""
    path = folder / "a.safetensors"
    torch.save({"conv.w": torch.ones(2)}, path)
    assert ckpt("rename", str(path), "--rule", "conv=emb", "--in-place").code == 0
    with open_file(path) as lazy:
        assert list(lazy) == ["emb.w"]


def test_shard_is_no_output(ckpt: Run, folder: Path) -> None:
    """Every file of a checkpoint of several is input."""
    save_file({"a.w": torch.ones(2)}, folder / "m-00001-of-00001.safetensors")
    index = folder / "m.safetensors.index.json"
    index.write_text('{"metadata": {}, "weight_map": {"a.w": "m-00001-of-00001.safetensors"}}')
    shard = folder / "m-00001-of-00001.safetensors"
    before = shard.read_bytes()
    for command in (
        ["rename", str(index), "--rule", "a=b", "-o", str(shard), "--force"],
        ["export", str(index), "-o", str(shard), "--force"],
    ):
        result = ckpt(*command)
        assert result.code == 2
        assert "never overwritten" in result.err
        assert shard.read_bytes() == before


@pytest.mark.parametrize("option", [["--in-place"], ["--force"], ["--register"]])
def test_options_of_files_are_refused_for_versions(
    ckpt: Run, folder: Path, option: list[str]
) -> None:
    torch.save({"conv.w": torch.ones(2)}, folder / "a.pt")
    assert ckpt("register", str(folder / "a.pt"), "--name", "a").code == 0
    result = ckpt("rename", "v1", "--rule", "conv=emb", *option)
    assert result.code == 2
    assert "is a version and never changes" in result.err


def test_rules_are_saved_of_a_rename_that_happened(ckpt: Run, folder: Path) -> None:
    torch.save({"conv.w": torch.ones(2)}, folder / "a.pt")
    (folder / "out.pt").write_bytes(b"mine")
    saved = folder / "rules.toml"
    command = ["rename", str(folder / "a.pt"), "--rule", "conv=emb", "--save-rules", str(saved)]
    assert ckpt(*command, "-o", str(folder / "out.pt")).code == 2
    assert not saved.exists()
    assert ckpt(*command, "-o", str(folder / "other.pt")).code == 0
    assert ckpt(*command, "-o", str(folder / "third.pt")).code == 2
    assert not (folder / "third.pt").exists()


def tied_model(path: Path, *, first: str = "format") -> None:
    """As `save_model` writes one whose head is its embedding: one tensor, and a note.

    Written by hand, since the library writes the notes in any order.
    """
    notes = {"format": "pt", "head.weight": "embed.weight"}
    notes = {first: notes[first], **notes}
    tensor = {"dtype": "F32", "shape": [4, 3], "data_offsets": [0, 48]}
    header = json.dumps(
        {"__metadata__": notes, "embed.weight": tensor}, separators=(",", ":")
    ).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<12f", *range(12)))


def tied_names(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return {k: v for k, v in file.metadata().items() if k != "format"}


@pytest.mark.parametrize("first", ["format", "head.weight"])
def test_name_of_a_tied_tensor_is_renamed_and_comes_back(
    ckpt: Run, folder: Path, first: str
) -> None:
    tied_model(folder / "a.safetensors", first=first)
    ran = ckpt(
        "rename", "a.safetensors", "--rule", "head=out", "--save-rules", "r.toml", "-o",
        "b.safetensors",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "1 tied name renamed" in ran.out
    assert tied_names(folder / "b.safetensors") == {"out.weight": "embed.weight"}
    back = ckpt("rename", "b.safetensors", "--undo", "--rules", "r.toml", "-o", "c.safetensors")
    assert back.code == 0, back.err
    assert (folder / "c.safetensors").read_bytes() == (folder / "a.safetensors").read_bytes()


def test_name_of_a_tied_tensor_follows_what_is_made_of_it(ckpt: Run, folder: Path) -> None:
    tied_model(folder / "a.safetensors")
    (folder / "r.toml").write_text(
        "[[rules]]\ncast = 'embed'\ndtype = 'float16'\n[[rules]]\nrename = '^(.*)->lm.{1}'\n"
    )
    ran = ckpt("rename", "a.safetensors", "--rules", "r.toml", "-o", "b.safetensors")
    assert ran.code == 0, ran.err
    assert tied_names(folder / "b.safetensors") == {"lm.head.weight": "lm.embed.weight"}


def test_version_with_a_tied_tensor_is_undone(ckpt: Run, folder: Path) -> None:
    tied_model(folder / "a.safetensors")
    for words in (
        ["register", "a.safetensors", "--name", "a"],
        ["rename", "v1", "--rule", "head=out"],
        ["rename", "v2", "--undo"],
        ["export", "v2", "-o", "b.safetensors"],
    ):
        ran = ckpt(*words)
        assert ran.code == 0, ran.err
    assert tied_names(folder / "b.safetensors") == {"out.weight": "embed.weight"}
    assert "v1" in ckpt("rename", "v2", "--undo").out


def test_name_of_a_tied_tensor_is_never_lost_in_silence(ckpt: Run, folder: Path) -> None:
    tied_model(folder / "a.safetensors")
    (folder / "map.json").write_text('{"head.weight": "format"}')
    onto = ckpt("rename", "a.safetensors", "--rule", "head=embed")
    assert onto.code == 3
    assert "two keys would become 'embed.weight'" in onto.err
    note = ckpt("rename", "a.safetensors", "--map", "map.json")
    assert note.code == 3
    assert "two names of __metadata__ would be equal" in note.err
    rules = "[[rules]]\nsplit = 'embed'\ninto = ['one', 'two']\n"
    (folder / "r.toml").write_text(rules)
    split = ckpt("rename", "a.safetensors", "--rules", "r.toml", "-o", "b.safetensors")
    assert "not written (the new file cannot hold it): head.weight" in split.out
    assert tied_names(folder / "b.safetensors") == {}
    before = (folder / "a.safetensors").read_bytes()
    in_place = ckpt("rename", "a.safetensors", "--rules", "r.toml", "--in-place")
    assert in_place.code == 2
    assert "head.weight would be lost in place" in in_place.err
    assert (folder / "a.safetensors").read_bytes() == before


def test_version_is_not_written_in_place_of_a_file(ckpt: Run, folder: Path) -> None:
    save_file({"conv.w": torch.ones(2)}, folder / "a.safetensors")
    assert ckpt("register", "a.safetensors", "--name", "a").code == 0
    before = (folder / "a.safetensors").read_bytes()
    ran = ckpt("rename", "v1", "--rule", "conv=emb", "-o", "a.safetensors", "--in-place")
    assert ran.code == 2
    assert "cannot be used with -o" in ran.err
    assert (folder / "a.safetensors").read_bytes() == before
