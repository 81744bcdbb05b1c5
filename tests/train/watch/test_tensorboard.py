"""Event files, read back by TensorBoard's own reader."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ckpt.errors import UsageError
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.run import train
from ckpt.train.watch import tensorboard
from ckpt.train.watch.events import Ended, Epoch, StepDone, Trained
from ckpt.train.watch.tensorboard import TensorBoard
from tests.train.watch.test_metrics_file import STARTED

EPOCH = Epoch(
    epoch=1,
    loss=0.5,
    accuracy=0.25,
    lr=1.0,
    seconds=2.0,
    images_per_second=100.0,
    skipped_steps=3,
    gradient_norm=1.5,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "1"


def run(folder: Path, model: str, out: Path) -> Trained:
    recipe = Recipe(model=model, dataset="digits", epochs=2, precision="fp32", device="cpu")
    trained = train(recipe, out, callback=TensorBoard(folder))
    assert trained is not None
    return trained


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Step and value of every scalar."""
    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(each.step, each.value) for each in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_a_run_can_be_read_back(tmp_path: Path, folder: Path, linear: str) -> None:
    trained = run(folder, linear, tmp_path / "w.pt")
    found = scalars(folder)
    assert set(found) == {
        *("loss/train", "accuracy/train", "lr", "seconds", "images_per_second", "skipped_steps"),
        *("gradient_norm", "loss/test", "accuracy/test"),
    }
    series = trained.series
    assert found["loss/train"] == [(1, near(series["loss"][0])), (2, near(series["loss"][1]))]
    assert found["accuracy/train"][1] == (2, near(series["accuracy"][1]))
    assert found["lr"] == [(1, 1.0), (2, near(0.7))]
    assert found["accuracy/test"] == [(2, near(trained.test_accuracy))]
    assert found["loss/test"] == [(2, near(trained.test_loss))]


def near(value: float) -> object:
    """TensorBoard has scalars in float32."""
    return pytest.approx(value, rel=1e-6)


def test_the_recipe_is_in_the_table_of_hyperparameters(
    tmp_path: Path, folder: Path, linear: str
) -> None:
    from tensorboard.plugins.hparams import metadata

    trained = run(folder, linear, tmp_path / "w.pt")
    events = EventAccumulator(str(folder)).Reload()
    content = events.summary_metadata[metadata.SESSION_START_INFO_TAG].plugin_data.content
    table = metadata.parse_session_start_info_plugin_data(content).hparams
    assert table["batch_size"].number_value == 64
    assert table["optimizer"].string_value == "adadelta"
    assert set(table) == set(trained.record["recipe"])
    assert not [path for path in folder.iterdir() if path.is_dir()]


def test_what_an_epoch_brought_is_there_before_the_run_ends(folder: Path) -> None:
    write = TensorBoard(folder)
    write(EPOCH)
    assert scalars(folder)["skipped_steps"] == [(1, 3.0)]
    write(Ended())


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("loss", "loss/train"),
        ("holdout_loss", "loss/holdout"),
        ("holdout_accuracy", "accuracy/holdout"),
        ("images_per_second", "images_per_second"),
        ("lr", "lr"),
    ],
)
def test_tag_groups_losses_and_accuracies(name: str, tag: str) -> None:
    assert tensorboard._tag(name) == tag


def test_a_run_that_goes_on_replaces_the_epochs_after_its_place(folder: Path) -> None:
    written = TensorBoard(folder)
    for number in (1, 2, 3):
        written(Epoch(**{**EPOCH.figures, "epoch": number}))
    written(Ended())
    resumed = TensorBoard(folder, resumed_at=StepDone(2, 640))
    resumed(Epoch(**{**EPOCH.figures, "epoch": 2, "loss": 0.125}))
    resumed(Ended())
    assert scalars(folder)["loss/train"] == [(1, 0.5), (2, 0.125)]


def test_another_runs_events_are_refused_and_replaced_when_the_run_starts(
    tmp_path: Path, folder: Path, linear: str
) -> None:
    run(folder, linear, tmp_path / "w.pt")
    (folder / "notes.txt").write_text("precious")
    with pytest.raises(UsageError, match="1: holds the events of another run"):
        TensorBoard(folder)
    write = TensorBoard(folder, replace=True)
    assert len(scalars(folder)) == 9
    write(STARTED)
    write(Ended())
    assert scalars(folder) == {}
    assert (folder / "notes.txt").read_text() == "precious"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("precious")
    with pytest.raises(UsageError, match="f: not a folder"):
        TensorBoard(tmp_path / "f", replace=True)


def test_without_the_package_it_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorboard, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match="needs the package tensorboard") as caught:
        TensorBoard(folder)
    assert caught.value.hint == "pip install tensorboard"


def test_threads_fail_as_before_when_it_is_closed(folder: Path) -> None:
    before = threading.excepthook
    write = TensorBoard(folder)
    write(STARTED)
    assert threading.excepthook != before
    write(Ended())
    assert threading.excepthook == before


FULL = """
import resource, sys
from ckpt.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))  # the first epoch has more than that
main(["train", "--dataset", "digits", "--epochs", "1", "--precision", "fp32",
      "--model", sys.argv[1], "--tensorboard", "runs"])
"""


@pytest.mark.long
def test_a_full_disk_is_one_line(tmp_path: Path, linear: str) -> None:
    pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, "-c", FULL, linear], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 5
    assert done.stderr.splitlines()[-1] == "error: runs: File too large"
    assert "Traceback" not in done.stderr
