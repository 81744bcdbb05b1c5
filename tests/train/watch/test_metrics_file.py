"""Metrics as lines of JSON: what each says, when it is written, and what is refused."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ckpt.errors import DiskError, UsageError
from ckpt.io.documents.strict_json import parse
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.run import train
from ckpt.train.watch.events import Ended, Epoch, Event, Note, Started, StepDone, call_each
from ckpt.train.watch.metrics_file import MetricsFile

STARTED = Started(
    dataset="MNIST",
    where="~/data/MNIST",
    train_count=54_000,
    holdout_count=6_000,
    test_count=10_000,
    epochs=14,
    effective_batch=256,
    batch_size=64,
    precision="bf16",
    why="timed: 1.4 × fp32",
    loader="resident",
    why_loader="they fit",
    processes=1,
    device="cpu",
    threads=2,
)
EPOCH = Epoch(
    epoch=1,
    loss=0.21344567,
    accuracy=0.934,
    lr=1.0,
    seconds=22.1,
    images_per_second=2715.0,
    skipped_steps=0,
    gradient_norm=1.5,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.jsonl"


def lines(path: Path) -> list[dict[str, object]]:
    """What the file holds, read strictly: a bare NaN would fail."""
    return [parse(line) for line in path.read_text("ascii").splitlines()]


def test_lines_are_written_during_the_run(tmp_path: Path, path: Path, linear: str) -> None:
    counts = []

    def count(event: Event) -> None:
        if isinstance(event, Epoch):
            counts.append(len(lines(path)))

    recipe = Recipe(model=linear, dataset="digits", epochs=2, precision="fp32", holdout=0.2)
    out = tmp_path / "w.pt"
    trained = train(recipe, out, callback=call_each(MetricsFile(path), count))
    assert trained is not None
    assert counts == [2, 3]
    started, *epochs, finished = lines(path)
    assert started["event"] == "started"
    assert (started["holdout_count"], started["batch_size"], started["why"]) == (
        287,
        64,
        "as asked",
    )
    assert "holdout_loss" in trained.series
    assert {each["event"] for each in epochs} == {"epoch"}
    for name, curve in trained.series.items():
        assert [each[name] for each in epochs] == curve
    del finished["time"]
    assert finished == {
        "event": "finished",
        "epoch": trained.epoch,
        "test_accuracy": trained.test_accuracy,
        "test_loss": trained.test_loss,
        "test_images": 360,
        "seconds": trained.seconds,
        "peak_bytes": trained.peak_bytes,
        "path": "w.pt",
    }


def test_started_line_has_the_facts_and_no_folder_of_the_machine(path: Path) -> None:
    MetricsFile(path)(STARTED)
    (line,) = lines(path)
    now = datetime.now(UTC) - datetime.fromisoformat(str(line.pop("time")))
    assert abs(now.total_seconds()) < 60
    assert line == {
        "event": "started",
        "dataset": "MNIST",
        "train_count": 54_000,
        "holdout_count": 6_000,
        "test_count": 10_000,
        "epochs": 14,
        "effective_batch": 256,
        "batch_size": 64,
        "precision": "bf16",
        "why": "timed: 1.4 × fp32",
        "loader": "resident",
        "why_loader": "they fit",
        "processes": 1,
        "device": "cpu",
        "threads": 2,
    }


def test_numbers_that_json_lacks_are_text(path: Path) -> None:
    write = MetricsFile(path)
    write(replace(EPOCH, loss=float("nan"), lr=float("inf")))
    (line,) = lines(path)
    assert (line["loss"], line["lr"], line["accuracy"]) == ("nan", "inf", 0.934)


def test_figures_that_are_not_known_are_left_out() -> None:
    assert "holdout_loss" not in EPOCH.figures
    known = replace(EPOCH, holdout_loss=0.12345678).figures
    assert (known["holdout_loss"], known["loss"]) == (0.123457, 0.213446)


def test_a_resumed_run_appends_lines(path: Path) -> None:
    MetricsFile(path)(STARTED)
    before = path.read_bytes()
    MetricsFile(path, resumed_at=StepDone(3, 640))(STARTED)
    assert path.read_bytes().startswith(before)
    assert lines(path)[1]["resumed_at"] == {"epoch": 3, "images": 640}


def test_a_truncated_line_takes_no_other_with_it(path: Path) -> None:
    path.write_bytes(b'{"event": "sta')
    MetricsFile(path, resumed_at=StepDone(1, 64))(STARTED)
    cut, whole = path.read_text().splitlines()
    assert cut == '{"event": "sta'
    assert json.loads(whole)["event"] == "started"


def test_a_file_that_stands_is_refused_and_replaced_only_when_the_run_starts(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(UsageError, match=r"m\.jsonl: already exists"):
        MetricsFile(path)
    write = MetricsFile(path, replace=True)
    assert path.read_text() == "precious"
    write(STARTED)
    assert len(lines(path)) == 1


def test_a_file_that_appears_in_between_is_refused(path: Path) -> None:
    write = MetricsFile(path)
    path.write_text("precious")
    with pytest.raises(UsageError, match="already exists"):
        write(STARTED)
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("w.pt", r"w\.pt: metrics are written to a \.jsonl file"),
        ("no/m.jsonl", "no: no such folder"),
        ("folder.jsonl", r"folder\.jsonl: not a regular file"),
    ],
)
def test_what_cannot_be_the_file_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(UsageError, match=message):
        MetricsFile(tmp_path / name, replace=True)


def test_a_full_disk_is_an_error_of_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write = MetricsFile(path, replace=True)
    path.symlink_to("/dev/full")
    with pytest.raises(DiskError, match=r"m\.jsonl: No space left on device"):
        write(STARTED)


def test_call_each_calls_in_order() -> None:
    heard: list[tuple[str, Event]] = []
    both = call_each(
        lambda event: heard.append(("a", event)), lambda event: heard.append(("b", event))
    )
    events = (Note("x"), STARTED, StepDone(1, 64), EPOCH, Ended())
    for event in events:
        both(event)
    assert heard == [(name, event) for event in events for name in "ab"]
