"""Folders of checkpoints, named as people name them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.cli.support import Run


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    return {"w": torch.full((3, 5), float(seed)), "b": torch.arange(5.0)}


def adapter(folder: Path, name: str = "adapter_model.safetensors") -> Path:
    folder.mkdir(parents=True)
    save_file(tensors(), folder / name)
    (folder / "config.json").write_text('{"r": 8}\n')
    return folder


def shards(folder: Path, stem: str, variant: str) -> Path:
    """Two shards and an index, as diffusers names those of a variant."""
    folder.mkdir(parents=True)
    names = {}
    for number, (key, tensor) in enumerate(tensors().items(), 1):
        name = f"{stem}-0000{number}-of-00002.{variant}.safetensors"
        save_file({key: tensor}, folder / name)
        names[key] = name
    index = {"metadata": {}, "weight_map": names}
    (folder / f"{stem}.safetensors.index.{variant}.json").write_text(json.dumps(index))
    return folder


def pipeline(folder: Path) -> Path:
    """As `DiffusionPipeline.save_pretrained` writes it."""
    adapter(folder / "unet", "diffusion_pytorch_model.safetensors")
    adapter(folder / "vae", "diffusion_pytorch_model.safetensors")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text("{}")
    parts = {"unet": ["diffusers", "UNet"], "vae": ["diffusers", "VAE"], "scheduler": ["a", "b"]}
    parts["tokenizer"] = ["transformers", "not downloaded"]
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "P", **parts}))
    return folder


def test_folder_is_named_like_a_file(ckpt: Run, folder: Path) -> None:
    adapter(folder / "lora")
    for name in ("lora", "lora/", "./lora", str(folder / "lora")):
        ran = ckpt("show", name)
        assert (ran.code, ran.err) == (0, ""), name
        assert "2 keys" in ran.out
    assert ckpt("diff", "lora", "lora/adapter_model.safetensors", "--exit-code").code == 0


def test_file_without_a_suffix_is_named_like_any(ckpt: Run, folder: Path) -> None:
    save_file(tensors(), folder / "weights")
    torch.save(tensors(), folder / "my weights")
    assert ckpt("show", "weights").code == 0
    assert ckpt("show", "my weights").code == 0
    assert ckpt("rename", "weights", "--rule", "w=x", "--in-place").code == 0
    assert set(load_file(folder / "weights")) == {"x", "b"}


def test_model_goes_before_a_folder_of_its_name(ckpt: Run, folder: Path) -> None:
    adapter(folder / "lora")
    torch.save({"other": torch.zeros(2)}, folder / "net.pt")
    ckpt("register", "net.pt", "--name", "lora")
    assert "other" in ckpt("show", "lora").out
    assert "adapter_model" not in ckpt("show", "lora").out
    assert "2 keys" in ckpt("show", "./lora").out


def test_folder_of_one_file_is_registered_under_its_name(ckpt: Run, folder: Path) -> None:
    adapter(folder / "lora")
    (folder / "lora" / "training_args.bin").write_bytes(b"x")
    torch.save({}, folder / "lora" / "rng_state_0.pth")
    assert "registered lora:v1" in ckpt("register", "lora").out
    ckpt("export", "lora:v1", "-o", "again.safetensors")
    again = (folder / "again.safetensors").read_bytes()
    assert again == (folder / "lora" / "adapter_model.safetensors").read_bytes()


def test_folder_is_not_renamed_in_place(ckpt: Run, folder: Path) -> None:
    adapter(folder / "lora")
    ran = ckpt("rename", "lora", "--rule", "w=x", "--in-place")
    assert ran.code == 2
    assert "--in-place replaces one file; it cannot be used with a folder" in ran.err


def test_old_adapter_beside_the_files_of_a_trainer_is_found(ckpt: Run, folder: Path) -> None:
    (folder / "old").mkdir()
    for name in ("pytorch_model.bin", "optimizer.pt", "rng_state_0.pth", "training_args.bin"):
        torch.save(tensors(), folder / "old" / name)
    assert "2 keys" in ckpt("show", "old").out
    assert "pytorch_model.bin" not in ckpt("register", "old").err


@pytest.mark.parametrize("variant", ["fp16", "non_ema"])
def test_index_of_a_variant_is_an_index(ckpt: Run, folder: Path, variant: str) -> None:
    shards(folder / "unet", "diffusion_pytorch_model", variant)
    index = f"unet/diffusion_pytorch_model.safetensors.index.{variant}.json"
    for name in ("unet", index):
        assert "safetensors-sharded" in ckpt("show", name).out, name
    assert "registered unet:v1" in ckpt("register", index).out


def test_pipeline_names_its_components(ckpt: Run, folder: Path) -> None:
    pipeline(folder / "sd")
    ran = ckpt("show", "sd")
    assert ran.code == 3
    assert "sd: a pipeline of several models" in ran.err
    assert "sd::unet  or  sd::vae" in ran.err
    assert "scheduler" not in ran.err
    assert "tokenizer" not in ran.err
    assert "2 keys" in ckpt("show", "sd::unet").out
    assert "registered vae:v1" in ckpt("register", "sd::vae").out
    assert ckpt("diff", "sd::vae", "vae:v1", "--exit-code").code == 0
    assert ckpt("show", "sd::text").code == 3


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["saved_model.pb", "variables/x"], "a TensorFlow SavedModel"),
        (["checkpoint", "ckpt-1.index", "ckpt-1.data-00000-of-00001"], "a TensorFlow checkpoint"),
        (["checkpoint"], "a folder without a checkpoint"),
        (["ckpt-1.index"], "a folder without a checkpoint"),
        (["_CHECKPOINT_METADATA", "default/manifest.ocdbt"], "an Orbax checkpoint of JAX"),
        (["manifest.ocdbt", "d/a"], "an Orbax checkpoint of JAX"),
        (["zero_to_fp32.py", "latest"], "a DeepSpeed checkpoint in parts"),
        (["Manifest.json", "Data/x"], "a Core ML package"),
        (["MLmodel", "data/x"], "an MLflow model"),
        (["a.safetensors", "b.safetensors"], "a folder with 2 checkpoints"),
        (["x.txt", "inner/a.pt"], "name a folder: it/inner"),
        ([], "a folder without a checkpoint"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and value else None,
)
def test_other_folder_is_called_what_it_is(
    ckpt: Run, folder: Path, files: list[str], says: str
) -> None:
    (folder / "it").mkdir()
    for name in files:
        (folder / "it" / name).parent.mkdir(exist_ok=True)
        (folder / "it" / name).write_bytes(b"")
    ran = ckpt("show", "it")
    assert (ran.code, ran.out) == (3, "")
    assert says in ran.err
    assert "no model" not in ran.err


def test_five_files_are_named_of_many(ckpt: Run, folder: Path) -> None:
    (folder / "it").mkdir()
    for letter in "abcdef":
        (folder / "it" / f"{letter}.pt").touch()
    shown = "  or  ".join(f"it/{letter}.pt" for letter in "abcde")
    ran = ckpt("show", "it")
    assert "it: a folder with 6 checkpoints" in ran.err
    assert ran.err.endswith(f"name a file: {shown}\n")
    for letter in "abcdef":
        (folder / f"{letter}.pt").touch()
    assert ckpt("show", ".").err.endswith(f"name a file: {shown.replace('it/', '')}\n")


@pytest.mark.parametrize("name", ["net.pth.tar", "net.pkl", "net.bin", "epoch.7", "net.model"])
def test_file_of_any_suffix_comes_back(ckpt: Run, folder: Path, name: str) -> None:
    torch.save(tensors(), folder / name)
    (folder / "config.json").write_text("{}")
    assert "registered" in ckpt("register", name, "--name", "net").out
    ckpt("export", "v1", "-o", f"again-{name}")
    assert (folder / f"again-{name}").read_bytes() == (folder / name).read_bytes()
    ckpt("register", name, "--name", "net", "--with", "config.json")
    ckpt("export", "v2", "-o", f"third-{name}")
    assert (folder / f"third-{name}").read_bytes() == (folder / name).read_bytes()
    assert ckpt("show", name).code == 0


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("x.onnx", "expected one of .pt, .pth"),
        ("x.safetensor", "expected .safetensors"),
        ("x.ckp", "expected .ckpt"),
        ("x", "expected one of"),
    ],
)
def test_suffix_of_another_format_is_refused(
    ckpt: Run, folder: Path, out: str, expected: str
) -> None:
    torch.save(tensors(), folder / "net.pt")
    ckpt("register", "net.pt")
    for ref in ("v1", "net.pt"):
        ran = ckpt("export", ref, "-o", out)
        assert ran.code == 2
        assert f"{out}: unknown suffix, {expected}" in ran.err
    assert not (folder / out).exists()
