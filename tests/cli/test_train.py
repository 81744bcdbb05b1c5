"""`ckpt train` at a prompt; what it computes is tested in tests/train."""

from pathlib import Path

import torch

from tests.cli.support import Run

QUICK = ("--dataset", "digits", "--epochs", "1", "--precision", "fp32")


def test_weights_become_the_next_version_with_their_record(ckpt: Run, folder: Path) -> None:
    ran = ckpt("train", "--register", *QUICK, "--accumulate", "2", "-m", "first", "--json")
    assert ran.code == 0
    assert ran.data["added"]["version"] == "v1"
    assert sorted(path.name for path in folder.iterdir()) == [".ckpt", "registry.json"]
    assert "effective batch 128 = 64 × 2 · fp32" in ran.err
    shown = ckpt("show", "v1", "--json").data
    assert shown["version"]["made_by"] == "train digits, 1 ep"
    assert shown["version"]["metrics"]["accuracy"] == ran.data["test_accuracy"]
    assert shown["record"]["training"]["recipe"]["accumulate"] == 2
    assert len(shown["record"]["curves"]["loss"]) == 1
    assert shown["record"]["definition"]["nbytes"] > 500
    assert ckpt("verify").code == 0


def test_same_training_again_is_the_same_version(ckpt: Run, folder: Path) -> None:
    first = ckpt("train", "--register", *QUICK, "--json").data["added"]
    again = ckpt("train", "--register", *QUICK, "--json").data["added"]
    assert (first["new"], again["new"]) == (True, False)
    assert first["manifest"] == again["manifest"]


def test_without_register_a_file_is_written(ckpt: Run, folder: Path) -> None:
    ran = ckpt("train", *QUICK, "-q")
    assert ran.code == 0
    assert ran.err == ""
    assert "wrote mnist-cnn.pt  2.4 MB" in ran.out
    assert next(iter(torch.load("mnist-cnn.pt", weights_only=True))) == "conv1.weight"
    assert ckpt("train", *QUICK).code == 2


def test_weights_are_kept_where_the_registry_refuses(ckpt: Run, folder: Path) -> None:
    (folder / "registry.json").write_text("{")
    ran = ckpt("train", "--register", *QUICK)
    assert ran.code == 4
    (saved,) = folder.glob("mnist-cnn.*.pt")
    assert f"the weights are in {saved}" in ran.err
    assert next(iter(torch.load(saved, weights_only=True))) == "conv1.weight"


def test_settings_that_make_no_sense_are_refused(ckpt: Run) -> None:
    for words in (("--epochs", "0"), ("--precision", "int8"), ("--device", "tpu"), ("--name", "m")):
        assert ckpt("train", *words).code == 2


def test_what_is_typed_goes_before_the_recipe(ckpt: Run, folder: Path) -> None:
    (folder / "r.toml").write_text("dataset = 'digits'\nepochs = 2\nbatch_size = 32\nlr = 0.5\n")
    ran = ckpt("train", "--recipe", "r.toml", "--epochs", "1", "--precision", "fp32", "--json")
    assert ran.code == 0, ran.err
    recipe = ran.data["record"]["recipe"]
    assert (recipe["epochs"], recipe["batch_size"], recipe["lr"]) == (1, 32, 0.5)


def test_average_of_the_weights_is_what_is_written(ckpt: Run, folder: Path) -> None:
    words = ("train", "--dataset", "digits", "--epochs", "1", "--precision", "fp32", "--json")
    plain = ckpt(*words, "-o", "plain.pt").data
    averaged = ckpt(*words, "--ema", "0.9", "-o", "ema.pt").data
    assert plain["curves"]["loss"] == averaged["curves"]["loss"]
    assert plain["test_loss"] != averaged["test_loss"]
    assert (folder / "plain.pt").read_bytes() != (folder / "ema.pt").read_bytes()
