"""The options of `ckpt train` that have others than the person hear of a run."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ckpt.train.watch.events import Place, Watcher
from ckpt.train.watch.metrics_file import MetricsFile

if TYPE_CHECKING:
    from ckpt.train.state import State


def watch_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--metrics` and `--tensorboard`; the function gets a path or None for each."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def watchers(
    metrics: Path | None, tensorboard: Path | None, resumed: "State | None", *, replace: bool
) -> Iterator[Watcher]:
    """Those that were asked for; what cannot be written is refused here, before anything is."""
    at = None if resumed is None else Place(resumed.epoch, resumed.progress.samples)
    if metrics is not None:
        yield MetricsFile(metrics, replace=replace, resumed_at=at)
    if tensorboard is not None:
        from ckpt.train.watch.tensorboard import TensorBoard

        yield TensorBoard(tensorboard, replace=replace, resumed_at=at)


_OPTIONS = (
    click.option(
        "--metrics",
        type=click.Path(path_type=Path),
        metavar="FILE.jsonl",
        help="Write a line of JSON at the start, after every epoch, and at the end.",
    ),
    click.option(
        "--tensorboard",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="Write event files for TensorBoard; needs the package tensorboard.",
    ),
)
