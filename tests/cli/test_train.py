"""`ckpt train` at a prompt; what it computes is tested in tests/train."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ckpt.errors import DiskError
from ckpt.show.train import TrainingView
from ckpt.train.watch.events import Event, StepDone, Trained
from ckpt.train.watch.metrics_file import MetricsFile
from tests.cli.support import Run, tree
from tests.effort import PATIENCE
from tests.train.starting import held, python

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


@pytest.mark.long
def test_same_training_again_is_the_same_version(ckpt: Run, folder: Path) -> None:
    first = ckpt("train", "--register", *QUICK, "--json").data["added"]
    again = ckpt("train", "--register", *QUICK, "--json").data["added"]
    assert (first["new"], again["new"]) == (True, False)
    assert first["manifest"] == again["manifest"]


@pytest.mark.long
def test_without_register_a_file_is_written(ckpt: Run, folder: Path) -> None:
    ran = ckpt("train", *QUICK, "-q")
    assert ran.code == 0
    assert ran.err == ""
    assert "wrote mnist-cnn.pt  2.4 MB" in ran.out
    assert next(iter(torch.load("mnist-cnn.pt", weights_only=True))) == "conv1.weight"
    assert ckpt("train", *QUICK).code == 2


@pytest.mark.long
def test_weights_are_kept_where_the_registry_refuses(ckpt: Run, folder: Path) -> None:
    (folder / "registry.json").write_text("{")
    ran = ckpt("train", "--register", *QUICK)
    assert ran.code == 4
    (saved,) = set(folder.glob("mnist-cnn.*.pt")) - {folder / "mnist-cnn.state.pt"}
    assert f"the weights are in {saved}" in ran.err
    assert next(iter(torch.load(saved, weights_only=True))) == "conv1.weight"
    (folder / "registry.json").unlink()
    again = ckpt("train", "--register", "--resume", "mnist-cnn.state.pt", "-o", "again.pt")
    assert again.code == 0, again.err
    assert (folder / "again.pt").read_bytes() == saved.read_bytes()
    assert not (folder / "mnist-cnn.state.pt").exists()


def test_two_files_need_a_name(ckpt: Run) -> None:
    ran = ckpt("train", "--register", "--holdout", "0.1", "--keep", "both", *QUICK)
    assert (ran.code, "add -o FILE" in ran.err) == (2, True)


def test_settings_that_make_no_sense_are_refused(ckpt: Run) -> None:
    for words in (("--epochs", "0"), ("--precision", "int8"), ("--device", "tpu"), ("--name", "m")):
        assert ckpt("train", *words).code == 2


@pytest.mark.long
def test_what_is_typed_goes_before_the_recipe(ckpt: Run, folder: Path) -> None:
    (folder / "r.toml").write_text("dataset = 'digits'\nepochs = 2\nbatch_size = 32\nlr = 0.5\n")
    ran = ckpt("train", "--recipe", "r.toml", "--epochs", "1", "--precision", "fp32", "--json")
    assert ran.code == 0, ran.err
    recipe = ran.data["record"]["recipe"]
    assert (recipe["epochs"], recipe["batch_size"], recipe["lr"]) == (1, 32, 0.5)


@pytest.mark.long
def test_average_of_the_weights_is_what_is_written(ckpt: Run, folder: Path) -> None:
    words = ("train", "--dataset", "digits", "--epochs", "1", "--precision", "fp32", "--json")
    plain = ckpt(*words, "-o", "plain.pt").data
    averaged = ckpt(*words, "--ema", "0.9", "-o", "ema.pt").data
    assert plain["curves"]["loss"] == averaged["curves"]["loss"]
    assert plain["test_loss"] != averaged["test_loss"]
    assert (folder / "plain.pt").read_bytes() != (folder / "ema.pt").read_bytes()


SOFTMAX = """
from torch import nn
def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 2), nn.LogSoftmax(dim=1))
"""


def write_pets(folder: Path) -> None:
    """Cats are dark, dogs are bright; and a definition that can tell them apart."""
    noise = np.random.default_rng(0)
    for name, lowest in (("cat", 0), ("dog", 128)):
        (folder / "pets" / name).mkdir(parents=True)
        for number in range(20):
            pixels = noise.integers(lowest, lowest + 128, (6, 6), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "pets" / name / f"{number}.png")
    (folder / "net.py").write_text(SOFTMAX)


OF_PETS = ("--model", "net.py:net", "--epochs", "2", "--precision", "fp32", "--batch-size", "8")


def test_folder_of_images_is_trained_on(ckpt: Run, folder: Path) -> None:
    write_pets(folder)
    ran = ckpt("train", "--register", "--dataset", "pets", *OF_PETS, "--json")
    assert ran.code == 0, ran.err
    assert "pets: 32 images from pets (every fifth for testing)" in ran.err
    assert ran.data["test_accuracy"] == 1.0
    record = ckpt("show", "v1", "--json").data["record"]["training"]
    assert record["dataset"]["class_names"] == ["cat", "dog"]
    assert record["dataset"]["test_from"] == "every fifth"
    assert record["recipe"]["dataset"] == record["dataset"]["name"] == "folder"
    assert "pets" not in str(record)
    again = ckpt("train", "--register", "--dataset", f"{folder}/pets/", *OF_PETS, "--json")
    assert again.data["added"]["new"] is False


def test_resumed_run_finds_its_folder_again(
    ckpt: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pets(folder)
    words = ("train", "--dataset", "pets", "--image-size", "6", *OF_PETS, "--json")
    whole = ckpt(*words, "-o", "whole.pt").data
    with monkeypatch.context() as stopped:
        from ckpt.train.state import Keeper

        write = Keeper.write

        def stop(self: Keeper, state: object) -> None:
            self._stop = signal.SIGINT
            write(self, state)

        stopped.setattr(Keeper, "write", stop)
        assert ckpt(*words, "--save-every", "0", "-o", "x.pt").code == 130
    ran = ckpt("train", "--resume", "net.state.pt", "-o", "again.pt", "--json")
    assert ran.data["test_loss"] == whole["test_loss"]
    assert (folder / "again.pt").read_bytes() == (folder / "whole.pt").read_bytes()


def test_dataset_that_is_none_says_what_may_be_meant(ckpt: Run, folder: Path) -> None:
    ran = ckpt("train", "--dataset", "mnits")
    assert ran.code == 2
    assert "dataset is mnits, expected one of auto, mnist" in ran.err
    assert "did you mean mnist" in ran.err
    for words, code in (
        (("--dataset", "no/where"), 3),
        (("--dataset", "no.npz"), 3),
        (("--dataset", "digits", "--image-size", "8"), 2),
    ):
        ran = ckpt("train", *words)
        assert (ran.code, len(ran.err.splitlines()) <= 2) == (code, True), ran.err


@pytest.mark.long
def test_fault_44_interrupted_training_registers_nothing(ckpt: Run, folder: Path) -> None:
    """A real process, and a real Ctrl-C in the middle of an epoch."""
    write_pets(folder)
    words = ["train", "--register", "--dataset", "pets", *OF_PETS]
    assert ckpt(*words).code == 0
    before = tree(folder)
    with held(python, folder, *words, "--epochs", "9", "--save-every", "0") as process:
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, errors
    (folder / "net.state.pt").unlink()
    assert tree(folder) == before
    assert ckpt("verify").code == 0


def test_metrics_and_events_are_written_beside_what_is_shown(ckpt: Run, folder: Path) -> None:
    write_pets(folder)
    words = ("train", "--dataset", "pets", *OF_PETS, "--epochs", "1", "--json")
    ran = ckpt(*words, "--metrics", "m.jsonl", "--tensorboard", "runs/1")
    assert ran.code == 0, ran.err
    assert "epoch 1/1  loss" in ran.err
    started, epoch, finished = map(json.loads, Path("m.jsonl").read_text().splitlines())
    assert (started["dataset"], finished["path"]) == ("pets", "net.pt")
    assert [epoch["loss"]] == ran.data["curves"]["loss"]
    assert all(path.name.startswith("events.") for path in Path("runs/1").iterdir())


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--metrics", "old.jsonl"), "error: old.jsonl: already exists"),
        (("--metrics", "m.txt"), "error: m.txt: metrics are written to a .jsonl file"),
        (("--metrics", "no/m.jsonl"), "error: no: no such folder"),
        (("--tensorboard", "old.jsonl"), "error: old.jsonl: not a folder"),
    ],
)
def test_places_that_cannot_take_metrics_are_refused_before_the_training(
    ckpt: Run, folder: Path, words: tuple[str, str], error: str
) -> None:
    (folder / "old.jsonl").write_text("precious")
    ran = ckpt("train", *QUICK, *words)
    assert (ran.code, ran.err.splitlines()[0]) == (2, error)
    assert [path.read_text() for path in folder.iterdir()] == ["precious"]


@pytest.mark.long
def test_metrics_of_an_interrupted_run_go_on(
    ckpt: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: TrainingView, event: Event) -> None:
        if event == StepDone(2, 128):
            signal.raise_signal(signal.SIGINT)

    words = ("--dataset", "digits", "--epochs", "2", "--precision", "fp32")
    with monkeypatch.context() as patch:
        patch.setattr(TrainingView, "__call__", interrupt)
        assert ckpt("train", *words, "--metrics", "m.jsonl", "--tensorboard", "t").code == 130
    resumed = ("--resume", "mnist-cnn.state.pt", "--metrics", "m.jsonl", "--tensorboard", "t")
    assert ckpt("train", *resumed).code == 0
    lines = [json.loads(line) for line in Path("m.jsonl").read_text().splitlines()]
    events = [(each["event"], each.get("epoch")) for each in lines]
    assert events == [
        ("started", None),
        ("epoch", 1),
        ("started", None),
        ("epoch", 2),
        ("finished", 2),
    ]
    assert lines[2]["resumed_at"] == {"epoch": 2, "images": 128}


@pytest.mark.long
def test_weights_are_kept_where_the_last_line_cannot_be_written(
    ckpt: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = MetricsFile.__call__

    def fail(self: MetricsFile, event: Event) -> None:
        if isinstance(event, Trained):
            raise DiskError("m.jsonl: No space left on device")
        write(self, event)

    monkeypatch.setattr(MetricsFile, "__call__", fail)
    ran = ckpt("train", "--register", *QUICK, "--metrics", "m.jsonl")
    assert ran.code == 5
    (saved,) = set(folder.glob("mnist-cnn.*.pt")) - {folder / "mnist-cnn.state.pt"}
    assert f"the weights are in {saved}" in ran.err
    assert "error: m.jsonl: No space left on device" in ran.err


TESTED = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(784, 10)
    def forward(self, images):
        found = self.fc(images.flatten(1)).log_softmax(1)
        # Not in the first try of eight images.
        wrong = not self.training and len(images) > 8
        return torch.full_like(found, float("{wrong}")) if wrong else found
"""


def test_weights_whose_test_gives_nan_are_no_version(ckpt: Run, folder: Path) -> None:
    (folder / "net.py").write_text(TESTED.format(wrong="nan"))
    ran = ckpt("train", "--register", *QUICK, "--model", "net.py:Net")
    assert ran.code == 3
    assert "its loss on the test images is nan" in ran.err
    assert not (folder / "registry.json").exists()


def test_infinite_loss_of_a_test_is_no_metric(ckpt: Run, folder: Path) -> None:
    (folder / "net.py").write_text(TESTED.format(wrong="-inf"))
    ran = ckpt("train", "--register", *QUICK, "--holdout", "0.1", "--model", "net.py:Net")
    assert ran.code == 0, ran.err
    (version,) = ckpt("ls", "--json").data
    assert version["metrics"].keys() == {"accuracy"}
    shown = ckpt("plot", "net", "--json").data["curves"][0]["series"]
    assert shown["holdout_loss"] == ["inf"]
    assert ckpt("plot", "net").code == 0


@pytest.mark.parametrize(
    ("model", "error", "hint"),
    [
        ("net.py", "net.py: Python code, and no class is named", "net.py:Net"),
        ("no.py", "no.py: not a definition", "path/to/file.py:Class"),
        ("torchvision.models", "torchvision.models: not a definition", "package.module:Class"),
        ("net.py:Net(8)", "net.py:Net(8): its arguments are not NAME=VALUE", "net.py:Net(depth=2)"),
        (
            "torchvision.models:mnasnet0_5",
            "returns (8, 1000), expected (8, 10)",
            "--arg num_classes=10",
        ),
    ],
)
def test_model_that_cannot_be_is_one_line(
    ckpt: Run, folder: Path, model: str, error: str, hint: str
) -> None:
    (folder / "net.py").write_text(TESTED)
    ran = ckpt("train", *QUICK, "--model", model)
    assert ran.code in (2, 3)
    assert error in ran.err.splitlines()[-2]
    assert hint in ran.err.splitlines()[-1]
