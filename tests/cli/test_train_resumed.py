"""`ckpt train --resume`: what a second command need not say again, and what it may change."""

import signal
from pathlib import Path

import pytest
import torch

import ckpt as package
from ckpt.errors import CkptError, FormatError, RefError, UsageError
from ckpt.show.train import TrainingView
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.state import read_state
from ckpt.train.watch.events import Event, StepDone
from tests.cli.support import Run

QUICK = ("--dataset", "digits", "--precision", "fp32", "--model", "net.py:net")
NET = """
from torch import nn
def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.LogSoftmax(dim=1))
"""


@pytest.fixture(autouse=True)
def net(folder: Path) -> None:
    (folder / "net.py").write_text(NET)


@pytest.fixture
def interrupted(ckpt: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `ckpt`, and stops it in the second epoch."""

    def interrupt(_: TrainingView, event: Event) -> None:
        if event == StepDone(2, 128):
            signal.raise_signal(signal.SIGINT)

    def run(*words: str) -> object:
        with monkeypatch.context() as patch:
            patch.setattr(TrainingView, "__call__", interrupt)
            ran = ckpt(*words)
        assert ran.code == 130, ran.err
        return ran

    return run  # type: ignore[return-value]


def test_file_is_that_of_the_first_command(ckpt: Run, folder: Path, interrupted: Run) -> None:
    ckpt("train", *QUICK, "--epochs", "2", "-o", "whole.pt")
    interrupted("train", *QUICK, "--epochs", "2", "-o", "mine.safetensors", "--save-every", "0")
    assert read_state(Path("net.state.pt")).outputs.save_minutes == 0
    ran = ckpt("train", "--resume", "net.state.pt")
    assert (ran.code, "wrote mine.safetensors" in ran.out) == (0, True), ran.err
    assert {path.name for path in folder.iterdir()} == {"net.py", "mine.safetensors", "whole.pt"}
    same = ckpt("diff", "mine.safetensors", "whole.pt", "--exit-code")
    assert same.code == 0, same.out


def test_registration_name_and_message_are_those_of_the_first_command(
    ckpt: Run, folder: Path, interrupted: Run
) -> None:
    words = ("train", "--register", "--name", "digits", "-m", "first", *QUICK, "--epochs", "2")
    interrupted(*words)
    ran = ckpt("train", "--resume", "digits.state.pt", "--json")
    assert (ran.data["added"]["model"], ran.data["added"]["version"]) == ("digits", "v1")
    assert ckpt("show", "v1", "--json").data["version"]["message"] == "first"
    assert not list(folder.glob("*.pt"))


def test_what_is_typed_again_counts(ckpt: Run, folder: Path, interrupted: Run) -> None:
    interrupted("train", *QUICK, "--epochs", "2", "-o", "one.pt")
    ran = ckpt("train", "--resume", "net.state.pt", "-o", "two.pt", "--epochs", "3")
    assert ran.code == 0, ran.err
    assert "epoch 3/3" in ran.err
    assert (folder / "two.pt").exists()
    assert not (folder / "one.pt").exists()


def test_finished_run_goes_on_where_its_state_was_kept(ckpt: Run, folder: Path) -> None:
    assert ckpt("train", *QUICK, "--epochs", "1", "--keep-state", "-o", "w.pt").code == 0
    state = folder / "net.state.pt"
    refused = ckpt("train", *QUICK, "--epochs", "1", "-o", "x.pt")
    assert refused.code == 2
    assert "net.state.pt: holds the state of a run" in refused.err
    taken = ckpt("train", "--resume", state.name, "--epochs", "3")
    assert (taken.code, "w.pt: already exists" in taken.err) == (2, True)
    assert ckpt("train", "--resume", state.name, "--epochs", "3", "--force").code == 0
    assert state.exists(), "the first command asked for it"
    ckpt("train", *QUICK, "--epochs", "3", "--name", "x", "--register", "-o", "whole.pt")
    assert (folder / "w.pt").read_bytes() == (folder / "whole.pt").read_bytes()


@pytest.mark.parametrize(
    ("words", "option"),
    [(("--lr", "1"), "lr"), (("--recipe", "fast"), "recipe"), (("--arg", "a=1"), "arg")],
)
def test_recipe_is_kept(ckpt: Run, interrupted: Run, words: tuple[str, ...], option: str) -> None:
    interrupted("train", *QUICK, "--epochs", "2")
    ran = ckpt("train", "--resume", "net.state.pt", *words)
    assert ran.code == 2
    assert ran.err.splitlines() == [
        f"error: --{option} cannot be used with --resume, which takes the recipe of net.state.pt",
        "hint:  a resumed run takes other values for --data-dir, --device, --epochs and "
        "--save-every",
    ]


def weights(path: str) -> bytes:
    return Path(path).read_bytes()


SETTINGS = {"dataset": "digits", "precision": "fp32", "model": "net.py:net", "epochs": 1}


def test_python_trains_as_the_command_does(ckpt: Run, folder: Path) -> None:
    assert ckpt("train", *QUICK, "--epochs", "1", "--seed", "5", "-o", "command.pt").code == 0
    done = package.train(out="python.pt", seed=5, **SETTINGS)
    assert weights("python.pt") == weights("command.pt")
    assert done is not None
    assert done.path == Path("python.pt")
    package.train(Recipe(**SETTINGS), "recipe.pt", seed=5)
    assert weights("recipe.pt") == weights("command.pt")
    (folder / "r.toml").write_text("dataset = 'digits'\nepochs = 1\nseed = 5\n")
    package.train("r.toml", "toml.pt", precision="fp32", model="net.py:net")
    assert weights("toml.pt") == weights("command.pt")
    fits = torch.load("python.pt", weights_only=True)
    assert fits["1.weight"].shape == (10, 784)


def test_python_registers_resumes_and_keeps_states(ckpt: Run, folder: Path) -> None:
    settings = {**SETTINGS, "epochs": 2}

    def interrupt(event: Event) -> None:
        if event == StepDone(2, 128):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(CkptError, match="interrupted in epoch 2"):
        package.train(register_result=True, message="m", callback=interrupt, **settings)
    done = package.train(resume="net.state.pt", epochs=3, keep_state=True)
    assert done is not None
    assert done.added is not None
    assert (done.added.version.ref, len(done.trained.curves)) == ("net:v1", 3)
    package.train("classic", "whole.pt", state_file="other.pt", **{**settings, "epochs": 3})
    written = ckpt("export", "net:v1", "-o", "v1.pt")
    assert written.code == 0
    assert weights("v1.pt") == weights("whole.pt")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"epoch": 1}, UsageError, "train: a recipe has no setting 'epoch'"),
        ({"epochs": "1"}, UsageError, "train: epochs is '1', expected a value like 14"),
        ({"epochs": 0}, UsageError, "epochs is 0, expected at least 1"),
        ({"recipe": "slow"}, RefError, "slow: no such recipe"),
        ({"resume": "no.pt"}, RefError, "no.pt: no such file"),
        ({"resume": "net.py"}, FormatError, "net.py: not the state of a training run"),
    ],
    ids=str,
)
def test_python_is_told_what_is_wrong(
    ckpt: Run, given: dict[str, object], error: type[CkptError], message: str
) -> None:
    with pytest.raises(error) as caught:
        package.train(**given)  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)


def test_python_is_told_what_a_resumed_run_keeps(folder: Path) -> None:
    package.train(keep_state=True, **SETTINGS)
    for given in ({"lr": 0.5}, {"recipe": "fast"}):
        with pytest.raises(UsageError, match="cannot be used with --resume"):
            package.train(resume="net.state.pt", **given)  # type: ignore[arg-type]
