"""Interrupted and resumed: the same weights to the bit, wherever it was, and however."""

import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from ckpt.errors import DatasetError, FitError, FormatError, InterruptedTrainingError, RefError
from ckpt.train import run as running
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.run import train
from ckpt.train.state import Keeper, State, read_state
from ckpt.train.watch.events import Trained
from tests.effort import PATIENCE, by_effort, long_but
from tests.faults.stage import within
from tests.train.starting import held, python
from tests.train.stopping import Stops

WINDOWS = 23  # of an epoch: 1,437 = 22 x 64 + 29
DEFINITION = """
import random
import numpy as np
from torch import nn
class Noise(nn.Module):
    def forward(self, x):
        return x * (1 + random.random() + np.random.standard_normal()) if self.training else x
def net():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), Noise(),
        nn.Linear(16, 10), nn.LogSoftmax(dim=1),
    )
"""


@pytest.fixture
def dropout(tmp_path: Path) -> str:
    """A definition whose training draws random numbers in every step, and has buffers."""
    (tmp_path / "dropout.py").write_text(DEFINITION)
    return f"{tmp_path}/dropout.py:net"


def recipe(model: str, **settings: object) -> Recipe:
    quick = {"dataset": "digits", "epochs": 3, "precision": "fp32", "device": "cpu"}
    return Recipe(**{**quick, "model": model, **settings})  # type: ignore[arg-type]


def run(
    model: str,
    out: Path,
    keeper: Keeper | None = None,
    resumed: State | None = None,
    **settings: object,
) -> Trained:
    made = recipe(model, **settings) if resumed is None else resumed.recipe
    return train(made, out, keeper=keeper, resumed=resumed)


OTHERS = {"optimizer": "adamw", "lr": 0.01, "schedule": "onecycle", "clip": 1.0, "ema": 0.9}
SETTINGS = [{"precision": name} for name in ("fp32", "bf16", "fp16")]
AUGMENTED = {"augment": "RandomRotation(10),RandomErasing()", "warmup": 30, "decay_on": "matrices"}
SETTINGS += [{**AUGMENTED, "optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1}]
SETTINGS += [{"precision": "fp16", **OTHERS}, {"optimizer": "sgd", "lr": 0.1, "schedule": "cosine"}]


@pytest.mark.parametrize(
    "settings",
    long_but([SETTINGS[1], SETTINGS[-2]], SETTINGS),
    ids=lambda each: "-".join(map(str, each.values())),
)
@pytest.mark.parametrize("accumulate", long_but([4], [1, 4]))
def test_resumed_run_ends_with_the_same_bytes(
    tmp_path: Path, dropout: str, settings: dict[str, object], accumulate: int
) -> None:
    """Stopped in the middle, twice, and at the last window of an epoch."""
    settings = {**settings, "accumulate": accumulate, "epochs": 2}
    whole = run(dropout, tmp_path / "whole.pt", **settings)
    windows = -(-WINDOWS // accumulate)
    for number, stops in enumerate([(1,), (windows - 1, 2), (windows,), (windows + 2, 1)]):
        state = None
        for after in stops:
            keeper = Stops(tmp_path / "state.pt", after)
            with pytest.raises(InterruptedTrainingError, match="interrupted in epoch"):
                run(dropout, tmp_path / "never.pt", keeper, state, **settings)
            state = read_state(tmp_path / "state.pt")
        again = run(dropout, tmp_path / f"{number}.pt", None, state)
        assert (tmp_path / f"{number}.pt").read_bytes() == (tmp_path / "whole.pt").read_bytes()
        assert [e.loss for e in again.curves] == [e.loss for e in whole.curves]
        norms = [[epoch.gradient_norm for epoch in each.curves] for each in (again, whole)]
        assert norms[0] == norms[1]
        assert again.record["resumes"] == len(stops)
    assert not (tmp_path / "never.pt").exists()


@pytest.mark.long
def test_state_that_is_written_now_and_then_changes_nothing(tmp_path: Path, dropout: str) -> None:
    run(dropout, tmp_path / "whole.pt")
    run(dropout, tmp_path / "kept.pt", Keeper(tmp_path / "state.pt", every=0))
    assert (tmp_path / "kept.pt").read_bytes() == (tmp_path / "whole.pt").read_bytes()


@pytest.mark.long
def test_workers_go_on_where_they_were(tmp_path: Path, dropout: str) -> None:
    run(dropout, tmp_path / "whole.pt", epochs=2)
    with pytest.raises(InterruptedTrainingError):
        run(dropout, tmp_path / "x.pt", Stops(tmp_path / "state.pt", 9), epochs=2, num_workers=1)
    run(dropout, tmp_path / "again.pt", None, read_state(tmp_path / "state.pt"))
    assert (tmp_path / "again.pt").read_bytes() == (tmp_path / "whole.pt").read_bytes()


def test_other_code_or_other_images_are_refused(tmp_path: Path, dropout: str) -> None:
    with pytest.raises(InterruptedTrainingError):
        run(dropout, tmp_path / "x.pt", Stops(tmp_path / "state.pt", 3))
    state = read_state(tmp_path / "state.pt")
    with pytest.raises(DatasetError, match="not the images that the run started with"):
        from dataclasses import replace

        run(dropout, tmp_path / "x.pt", None, replace(state, dataset="sha256:0"))
    (tmp_path / "dropout.py").write_text(DEFINITION.replace("0.5", "0.4"))
    with pytest.raises(FitError, match="has changed since the run started"):
        run(dropout, tmp_path / "x.pt", None, state)


@pytest.mark.parametrize("what", ["weights", "junk", "other form", "hostile"])
def test_what_is_no_state_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "state.pt"
    match what:
        case "weights":
            torch.save({"a": torch.ones(2)}, path)
        case "junk":
            path.write_bytes(b"hello")
        case "other form":
            torch.save({"form": "ckpt training state 9"}, path)
        case "hostile":
            torch.save({"form": "ckpt training state 1", "recipe": Path}, path)
    with pytest.raises(FormatError, match="not the state of a training run"):
        read_state(path)
    with pytest.raises(RefError):
        read_state(tmp_path / "absent.pt")


TRAIN = ["train", "--dataset", "digits", "--epochs", "3", "--precision", "fp32", "-q"]


SIGNALS = [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)]


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    return python(folder, "-m", "ckpt", *words)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted; its weights are whole.pt."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "dropout.py").write_text(DEFINITION)
    words = [*TRAIN, "--model", f"{folder}/dropout.py:net", "-o", "whole.pt"]
    _, errors = start(folder, *words).communicate(timeout=PATIENCE)
    assert (folder / "whole.pt").exists(), errors
    return folder


@pytest.mark.parametrize(
    ("number", "code"),
    by_effort(SIGNALS[:1], SIGNALS, SIGNALS),
    ids=lambda each: each.name if isinstance(each, signal.Signals) else "",
)
@pytest.mark.long
def test_fault_39_signal_at_a_prompt_loses_nothing(
    tmp_path: Path, whole: Path, number: signal.Signals, code: int
) -> None:
    """A real process, a real signal; after SIGKILL the state that was written before counts."""
    shutil.copy(whole / "dropout.py", tmp_path)
    words = [*TRAIN, "--model", f"{tmp_path}/dropout.py:net"]
    state = tmp_path / "dropout.state.pt"
    with held(python, tmp_path, *words, "-o", "cut.pt", "--save-every", "0") as interrupted:
        interrupted.send_signal(number)
    _, errors = interrupted.communicate(timeout=PATIENCE)
    assert interrupted.returncode == code, errors
    assert not (tmp_path / "cut.pt").exists()
    if number != signal.SIGKILL:
        assert "error: interrupted in epoch" in errors
        assert "ckpt train --resume dropout.state.pt  continues from there" in errors
    again = within(tmp_path, *words)
    assert again.code == 2, "it does not start again over the state of another run"
    assert "holds the state of a run" in again.err
    wrong = within(tmp_path, "train", "--resume", state.name, "--batch-size", "5")
    assert wrong.code == 2
    assert "--batch-size cannot be used with --resume" in wrong.err
    resumed = start(tmp_path, "train", "--resume", state.name, "-q")
    _, errors = resumed.communicate(timeout=PATIENCE)
    assert resumed.returncode == 0, errors
    assert (tmp_path / "cut.pt").read_bytes() == (whole / "whole.pt").read_bytes()
    assert not state.exists()


def test_a_run_whose_end_failed_is_not_lost(
    tmp_path: Path, dropout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full when the weights are written: the state has them."""
    run(dropout, tmp_path / "whole.pt", holdout=0.1)
    keeper = Keeper(tmp_path / "state.pt", every=1e9)
    with monkeypatch.context() as full:

        def fail(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        full.setattr(running, "write_weights", fail)
        with pytest.raises(OSError, match="No space"):
            run(dropout, tmp_path / "x.pt", keeper, holdout=0.1)
    state = read_state(tmp_path / "state.pt")
    assert (state.epoch, state.progress.windows, len(state.curves)) == (4, 0, 3)
    run(dropout, tmp_path / "again.pt", Keeper(tmp_path / "state.pt", every=1e9), state)
    assert (tmp_path / "again.pt").read_bytes() == (tmp_path / "whole.pt").read_bytes()
