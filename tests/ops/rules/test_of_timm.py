"""Rules for timm's filter functions: they make of original weights what timm makes of them.

The oracles: timm's own function on real values, bit for bit, and its model's strict loading.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ckpt.definitions.importing import declare_torchvision_ops
from ckpt.ops.rename.rule_files import RuleFile, write_rule_file
from ckpt.ops.rules.for_file import rules_for
from ckpt.tensors import TensorEntry
from tests.cli.support import Run
from tests.ops.rules.originals import FAMILIES, Family, original

State = dict[str, Tensor]


def of_timm(family: Family) -> tuple[Any, Callable[..., State]]:
    """A model of timm, and the filter function that it would load weights with."""
    declare_torchvision_ops()
    pytest.importorskip("timm", reason="timm is not installed")
    from ckpt.ops.rules.of_timm import model_of

    model, change = model_of(f"timm:{family.model}")
    assert change is not None
    return model, change


def saved(family: Family, folder: Path) -> tuple[Any, State, State]:
    """A model, original weights in `old.pt`, and what timm makes of them."""
    model, change = of_timm(family)
    shapes = {key: torch.empty_like(it, device="cpu") for key, it in model.state_dict().items()}
    old = original(shapes, family)
    torch.save(old, folder / "old.pt")
    made = change({key: it.clone() for key, it in old.items()}, model)
    assert made.keys() == shapes.keys()
    assert [*made] != [*old] or any(made[key].shape != old[key].shape for key in made)
    return model, old, made


def imported(source: str, old: State) -> None:
    """What `ckpt rules import` does, without a process of its own, which takes ten seconds."""
    from ckpt.ops.rules.of_timm import traced

    entries = [
        TensorEntry(key, str(it.dtype).removeprefix("torch."), tuple(it.shape))
        for key, it in old.items()
    ]
    answer = traced(source, [[it.key, it.dtype, it.shape] for it in entries])
    rules, left = rules_for(source, "old.pt", entries, json.loads(json.dumps(answer)))
    assert not left
    write_rule_file(Path("r.toml"), RuleFile(source, rules))


@pytest.mark.long
@pytest.mark.parametrize("name", [it for it in FAMILIES if it != "dinov2_registers"])
def test_rules_do_what_the_filter_function_does(name: str, ckpt: Run, folder: Path) -> None:
    model, old, wanted = saved(FAMILIES[name], folder)
    source = f"timm:{FAMILIES[name].model}"
    if name == "beit3":
        ran = ckpt("rules", "import", source, "--keys-of", "old.pt", "-o", "r.toml")
        assert ran.code == 0, ran.err
    else:
        imported(source, old)
    ran = ckpt("rename", "old.pt", "--rules", "r.toml", "-o", "new.pt")
    assert ran.code == 0, ran.err
    new = torch.load(folder / "new.pt")
    assert new.keys() == wanted.keys()
    for key, it in wanted.items():
        assert (new[key].dtype, new[key].shape) == (it.dtype, it.shape)
        assert torch.equal(new[key], it), key
    model.load_state_dict(new, strict=True, assign=True)


@pytest.mark.long
def test_tensor_computed_from_values_is_left_out_by_name(ckpt: Run, folder: Path) -> None:
    """DINOv2 with registers: timm adds the first position to the class token."""
    family = FAMILIES["dinov2_registers"]
    _, _, wanted = saved(family, folder)
    words = ("rules", "import", f"timm:{family.model}", "--keys-of", "old.pt", "-o", "r.toml")
    ran = ckpt(*words)
    assert (ran.code, ran.out) == (3, "")
    why = "cls_token: computed from the values of cls_token, pos_embed (add)"
    assert why in ran.err
    assert not (folder / "r.toml").exists()
    ran = ckpt(*words, "--partial")
    assert (ran.code, ran.err) == (0, f"left out: {why}\n")
    assert (folder / "r.toml").read_text().startswith(f"# left out: {why}\n")
    assert ckpt("rename", "old.pt", "--rules", "r.toml", "-o", "new.pt").code == 0
    new = torch.load(folder / "new.pt")
    assert new.keys() == wanted.keys() - {"cls_token"}
    assert all(torch.equal(it, wanted[key]) for key, it in new.items())


SIZES = {
    "position table": (
        "vit_tiny_patch16_224(depth=1{})", ", img_size=96", "pos_embed", "upsample_bicubic2d_aa",
    ),
    "patch size": (
        "vit_tiny_patch16_224(depth=1, img_size=64{})", ", patch_size=8",
        "patch_embed.proj.weight", "mm",
    ),
    "bias tables": (
        "beit_base_patch16_224(embed_dim=12, depth=1, num_heads=2{})", ", img_size=96",
        "blocks.0.attn.relative_position_bias_table", "index, mul, add",
    ),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", SIZES)
def test_other_sizes_need_values(name: str, ckpt: Run, folder: Path) -> None:
    """An interpolation has no rule, and is named."""
    model, more, key, how = SIZES[name]
    old, _ = of_timm(Family(model.format(""), []))
    torch.save({key: torch.rand(it.shape) for key, it in old.state_dict().items()}, "old.pt")
    source = f"timm:{model.format(more)}"
    ran = ckpt("rules", "import", source, "--keys-of", "old.pt", "-o", "r.toml")
    assert (ran.code, ran.out) == (3, "")
    assert f"{key}: computed from the values of {key} (" in ran.err
    assert how in ran.err


@pytest.mark.long
@pytest.mark.parametrize(
    ("source", "options", "code", "said"),
    [
        ("timm:vit_tny_patch16_224", ["--keys-of", "old.pt"], 3,
         "timm has no model 'vit_tny_patch16_224'\nhint:  did you mean timm:vit_tiny_patch16_224"),
        ("timm:cait_xxs24_224", [], 2,
         "timm maps keys by code, which needs those of a file\n"
         "hint:  ckpt rules import timm:cait_xxs24_224 --keys-of FILE"),
        ("timm:cait_xxs24_224", ["--keys-of", "none.pt"], 2, "none.pt: no such file"),
        ("timm:cait_xxs24_224", ["--keys-of", "old.pt"], 3,
         "old.pt: not a file for timm:cait_xxs24_224, which makes a.weight of it, "
         "expected cls_token, pos_embed and "),
        ("timm:resnet18", ["--keys-of", "native.pt"], 3,
         "native.pt: needs no rules: timm:resnet18 reads its keys as they are"),
        ("timm:swin_tiny_patch4_window7_224", ["--keys-of", "beit.pt"], 3,
         "timm:swin_tiny_patch4_window7_224: its function raises AttributeError: "
         "SwinTransformer has no attribute `blocks`\n"
         "hint:  is --keys-of a file with weights of this model?\n"),
        ("timm:resnet18(depth)", ["--keys-of", "old.pt"], 3, "its arguments are not NAME=VALUE"),
        ("timm:resnet18(depth=3)", ["--keys-of", "old.pt"], 3, "raises TypeError"),
        ("m.py:PAIRS", ["--keys-of", "old.pt"], 2, "--keys-of is for timm:MODEL"),
    ],
)  # fmt: skip
def test_what_cannot_be_traced_is_refused(
    source: str, options: list[str], code: int, said: str, ckpt: Run, folder: Path
) -> None:
    torch.save({"module.a.weight": torch.zeros(1)}, folder / "old.pt")
    if "native" in "".join(options):
        timm = pytest.importorskip("timm", reason="timm is not installed")
        torch.save(timm.create_model("resnet18").state_dict(), folder / "native.pt")
    table = {"blocks.0.attn.relative_position_bias_table": torch.zeros(2, 2)}
    torch.save(table, folder / "beit.pt")
    ran = ckpt("rules", "import", source, *options, "-o", "r.toml")
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert not (folder / "r.toml").exists()


@pytest.mark.long
def test_file_that_lacks_tensors_of_the_model_is_named(ckpt: Run, folder: Path) -> None:
    family = FAMILIES["cait"]
    _, old, _ = saved(family, folder)
    torch.save(
        {
            **{key: it for key, it in old.items() if "head" not in key},
            "module.x": old["module.cls_token"],
        },
        "old.pt",
    )
    source = f"timm:{family.model}"
    ran = ckpt("rules", "import", source, "--keys-of", "old.pt", "-o", "r.toml")
    assert ran.code == 3
    assert f"error: {source}: incomplete: " in ran.err
    assert "head.weight, head.bias: the model has it, old.pt does not" in ran.err
    assert "x: the model has no such key" in ran.err
    ran = ckpt("rules", "import", source, "--keys-of", "old.pt", "-o", "r.toml", "--partial")
    assert ran.code == 0
    other = source.replace("embed_dim=12", "embed_dim=16")
    ran = ckpt("rules", "import", other, "--keys-of", "old.pt", "-o", "r.toml")
    assert ran.code == 3
    assert "the shape is [1, 1, 12], the model has [1, 1, 16]" in ran.err
