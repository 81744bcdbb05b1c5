"""The options of `ckpt train` that write its events to files."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ckpt.cli.options import PATH
from ckpt.train.watch.events import Callback, StepDone
from ckpt.train.watch.metrics_file import MetricsFile

if TYPE_CHECKING:
    from ckpt.train.state import State


def watch_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--metrics` and `--tensorboard`; the function gets a path or None for each."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def file_callbacks(
    metrics: Path | None, tensorboard: Path | None, resumed: "State | None", *, replace: bool
) -> Iterator[Callback]:
    """The callbacks for the files that were named; mistakes are caught before the run."""
    at = None if resumed is None else StepDone(resumed.epoch, resumed.progress.samples)
    if metrics is not None:
        yield MetricsFile(metrics, replace=replace, resumed_at=at)
    if tensorboard is not None:
        from ckpt.train.watch.tensorboard import TensorBoard

        yield TensorBoard(tensorboard, replace=replace, resumed_at=at)


_OPTIONS = (
    click.option(
        "--metrics",
        type=PATH,
        metavar="FILE.jsonl",
        help="Write metrics as JSON lines: at the start, after every epoch and at the end.",
    ),
    click.option(
        "--tensorboard",
        type=PATH,
        metavar="FOLDER",
        help="Write TensorBoard event files; needs the package tensorboard.",
    ),
)
