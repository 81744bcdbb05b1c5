"""What people see of a run."""

import io
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ckpt.show import train as module
from ckpt.show.train import (
    TrainingView,
    division,
    duration,
    epoch_line,
    header,
    summary,
    summary_table,
)
from ckpt.train.watch.events import Ended, Epoch, Loading, Note, Started, StepDone, Trained

STARTED = Started(
    dataset="MNIST",
    where="~/.cache/ckpt/MNIST",
    train_count=60_000,
    holdout_count=0,
    test_count=10_000,
    epochs=14,
    effective_batch=64,
    batch_size=64,
    precision="bf16",
    why="timed: 1.4 × fp32",
    loader="resident",
    why_loader="in memory",
    processes=1,
    device="cpu",
    threads=2,
)
EPOCH = Epoch(
    epoch=1,
    loss=0.2134,
    accuracy=0.934,
    lr=1.0,
    seconds=22.1,
    images_per_second=2715.0,
    skipped_steps=0,
    gradient_norm=1.5,
)
TRAINED = Trained(
    path=Path("w.pt"),
    last_path=None,
    epoch=1,
    curves=(EPOCH,),
    test_loss=0.03,
    test_accuracy=0.9921,
    test_correct=9921,
    test_count=10_000,
    seconds=273.4,
    peak_bytes=412_000_000,
    record={},
    definition_source="",
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_header_shows_the_arithmetic():
    assert header(STARTED) == [
        "MNIST: 60,000 images from ~/.cache/ckpt/MNIST        60,000 = 937 × 64 + 32",
        "effective batch 64 = 64 × 1 · bf16 autocast (timed: 1.4 × fp32)"
        " · resident (in memory) · 2 threads",
    ]


BATCHES = [
    ((256, 64, 1), "256 = 64 × 4"),
    ((256, 64, 2), "256 = 64 × 2 × 2 processes"),
    ((256, 256, 1), "256 = 256 × 1"),
    ((256, 100, 1), "256, at most 100 at once"),
    ((65, 65, 2), "65, in 2 processes, at most 65 at once"),
]


@pytest.mark.parametrize(("numbers", "words"), BATCHES, ids=[words for _, words in BATCHES])
def test_header_says_how_the_effective_batch_is_cut(numbers, words):
    whole, micro, processes = numbers
    started = replace(STARTED, effective_batch=whole, batch_size=micro, processes=processes)
    assert f"effective batch {words} · " in header(started)[1]


def test_header_and_lines_have_the_hold_out():
    images = header(replace(STARTED, train_count=54_000, holdout_count=6_000))[0]
    assert "54,000 images from ~/.cache/ckpt/MNIST, 6,000 held out" in images
    line = epoch_line(replace(EPOCH, holdout_loss=0.0512, holdout_accuracy=0.98423), 14)
    assert "acc  93.4%  hold-out 0.0512 98.42%  2,715 img/s" in line


def test_division_without_a_rest_has_none():
    assert division(128, 64) == "128 = 2 × 64"


def test_epoch_line_is_one_line_and_counts_skipped_steps():
    line = "epoch  1/14  loss 0.2134  acc  93.4%  2,715 img/s  0:22"
    assert epoch_line(EPOCH, 14) == line


def test_summary_is_accuracy_time_and_memory():
    assert summary(TRAINED) == (
        "test accuracy 99.21% (10,000 images, read once) · 4 min 33 s · peak 412 MB"
    )


def test_summary_table_has_one_line_of_figures():
    record = {"effective_batch": 64, "precision": {"name": "bf16"}}
    head, _, figures = summary_table(replace(TRAINED, record=record)).splitlines()
    assert head.split("  ")[-1].strip() == "time"
    assert figures.split() == (
        ["1", "64", "bf16", "0.2134", "0.0300", "99.21%", "2,715", "4", "min", "33", "s"]
    )


def test_summary_table_is_a_line_a_figure_on_a_narrow_terminal():
    record = {"effective_batch": 64, "precision": {"name": "bf16"}}
    trained = replace(TRAINED, record=record)
    assert (
        summary_table(trained, width=80)
        == """\
epochs           1
effective batch  64
precision        bf16
train loss       0.2134
test loss        0.0300
test accuracy    99.21%
images/s         2,715
time             4 min 33 s"""
    )
    assert summary_table(trained, width=120) == summary_table(trained)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.24, "8.2 s"), (59.94, "59.9 s"), (59.96, "1 min 0 s"), (7500, "2 h 5 min")],
)
def test_duration_is_as_people_say_it(seconds, text):
    assert duration(seconds) == text


def show(stream):
    lines = []
    view = TrainingView(lines.append, stream)
    view(Note("a note"))
    view(STARTED)
    view(StepDone(1, 64))
    view(StepDone(1, 60_000))
    view(EPOCH)
    view(TRAINED)
    return lines


def test_a_pipe_gets_lines_and_no_bar():
    stream = io.StringIO()
    lines = show(stream)
    assert lines == ["a note", *header(STARTED), epoch_line(EPOCH, 14), summary(TRAINED)]
    assert stream.getvalue() == ""


def test_a_dumb_terminal_gets_no_bar(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    show(stream)
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(module, "BAR_DELAY", 0.0)
    stream = Terminal()
    lines = show(stream)
    assert "epoch  1/14" in stream.getvalue()
    assert stream.getvalue().endswith("\r")
    assert lines[-1] == summary(TRAINED)
    assert sys.stdout is not stream


def test_loading_is_a_bar_on_a_terminal_alone(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(module, "BAR_DELAY", 0.0)
    lines = []
    for stream in (Terminal(), io.StringIO()):
        view = TrainingView(lines.append, stream)
        view(Loading("a\x1b.gz", 1_000_000, 2_000_000, "B"))
        view(Note("wait"))
        view(Loading("b.gz", 1_000_000, 4_000_000, "B"))
        view(Loading("b.gz", 4_000_000, 4_000_000, "B"))
        view(Loading("pets", 1, 2, " img"))
        view(Ended())
        shown = stream.getvalue()
        if stream.isatty():
            assert r"a\x1b.gz" in shown
            assert shown.index("b.gz") < shown.index("pets")
            assert shown.endswith("\r")
        else:
            assert shown == ""
    assert lines == ["wait", "wait"]


def test_names_of_files_cannot_write_on_the_terminal():
    lines = []
    view = TrainingView(lines.append, io.StringIO())
    view(Note("\x1b[2Jnote"))
    view(replace(STARTED, where="\x1b[2J"))
    assert lines[0] == r"\x1b[2Jnote"
    assert r"from \x1b[2J" in lines[1]


def test_a_line_a_minute_says_how_far_a_run_without_a_terminal_is():
    seconds, lines = [0.0], []
    view = TrainingView(lines.append, io.StringIO(), clock=lambda: seconds[0])
    view(STARTED)
    lines.clear()
    for at, images in ((30, 64), (59, 128), (61, 12_800), (90, 13_000), (122, 25_600)):
        seconds[0] = at
        view(StepDone(2, images))
    assert lines == [
        "epoch  2/14  12,800 of 60,000 images",
        "epoch  2/14  25,600 of 60,000 images",
    ]
    seconds[0] = 181
    view(EPOCH)
    view(StepDone(3, 64))
    assert len(lines) == 3, "an epoch's line is a sign of life too"


def test_a_terminal_has_a_bar_and_no_such_lines(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    seconds, lines = [0.0], []
    view = TrainingView(lines.append, Terminal(), clock=lambda: seconds[0])
    view(STARTED)
    lines.clear()
    seconds[0] = 1000
    view(StepDone(2, 64))
    view(Ended())
    assert lines == []
