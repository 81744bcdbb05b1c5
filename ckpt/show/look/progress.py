"""A progress bar for slow work, on stderr if that is a terminal."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ckpt.io.files import Told
from ckpt.show.look.terminal import Terminal
from ckpt.show.look.words import printable

if TYPE_CHECKING:
    from tqdm import tqdm

PATIENCE = 1.0  # seconds until the bar appears
INTERVAL = 0.1  # seconds between two updates


@contextmanager
def progress_bar(terminal: Terminal, what: str) -> Iterator[Told]:
    """Show the bytes done and the total while a block runs, unless that is quick.

    There is no bar if `terminal` is quiet, dumb or not a terminal.
    """
    shown = terminal.err.isatty() and not terminal.quiet and os.environ.get("TERM") != "dumb"
    begin = perf_counter()
    due = begin + PATIENCE
    bar: tqdm[Any] | None = None

    def told(done: int, total: int) -> None:
        nonlocal bar, due
        now = perf_counter()
        if not shown or now < due:
            return
        if bar is None:
            bar = _new_bar(terminal, what, total)
            bar.start_t -= now - begin  # rate over the whole time
        bar.n, bar.total = done, total  # the next step has another total
        bar.refresh()
        due = now + INTERVAL

    try:
        yield told
    finally:
        if bar is not None:
            bar.close()


def _new_bar(terminal: Terminal, what: str, total: int) -> "tqdm[Any]":
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=printable(what),
        file=terminal.err,
        leave=False,
        unit="B",
        unit_scale=True,
        bar_format="{desc}  {bar}  {percentage:3.0f}%  {rate_fmt}  {remaining}",
        dynamic_ncols=True,
    )
