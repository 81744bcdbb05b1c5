"""`ckpt.train.Progress`: a run in Python says what the command says."""

import io

import pytest

import ckpt
from ckpt.errors import UsageError
from ckpt.train.watch.events import Ended, Note
from tests.train.watch.test_metrics_file import EPOCH, STARTED

LINES = """\
MNIST: 54,000 images from ~/data/MNIST, 6,000 held out        54,000 = 210 × 256 + 240
effective batch 256 = 64 × 4 · bf16 autocast (timed: 1.4 × fp32) · resident (they fit) · 2 threads
epoch  1/14  loss 0.2134  acc  93.4%  2,715 img/s  0:22
out of memory, halved
"""


def test_a_class_in_place_of_a_callback_is_refused() -> None:
    with pytest.raises(UsageError, match="callback is the class Progress itself") as caught:
        ckpt.train(dataset="digits", callback=ckpt.train.Progress)  # type: ignore[attr-defined]
    assert caught.value.hint == "callback=Progress()"


def test_a_run_in_python_prints_the_lines_of_the_command(
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = io.StringIO()
    for progress in (ckpt.train.Progress(out), ckpt.train.Progress()):  # type: ignore[attr-defined]
        for event in (STARTED, EPOCH, Note("out of memory, halved"), Ended()):
            progress(event)
    assert out.getvalue() == LINES
    assert capfd.readouterr() == ("", LINES)
