"""A progress bar for slow work, on stderr if that is a terminal."""

import os
from contextlib import AbstractContextManager
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ckpt.show.look.terminal import Terminal
from ckpt.show.look.words import printable

if TYPE_CHECKING:
    from tqdm import tqdm

PATIENCE = 1.0  # seconds until the bar appears
INTERVAL = 0.1  # seconds between two updates


class ProgressBar(AbstractContextManager["ProgressBar"]):
    """Shows the bytes done and the total; disappears when the block ends.

    Args:
        terminal: Where the bar is shown, unless it is quiet, dumb or not a terminal.
        what: The work, e.g. ``registering big.pt``.
    """

    def __init__(self, terminal: Terminal, what: str) -> None:
        self._terminal = terminal
        self._what = what
        self._begin = perf_counter()
        self._next = self._begin + PATIENCE
        self._bar: tqdm[Any] | None = None
        dumb = os.environ.get("TERM") == "dumb"
        self._shown = terminal.err.isatty() and not terminal.quiet and not dumb

    def __call__(self, done: int, total: int) -> None:
        """Update the bar, at most every `INTERVAL`."""
        now = perf_counter()
        if not self._shown or now < self._next:
            return
        if self._bar is None:
            self._bar = self._new_bar(total)
            self._bar.start_t -= now - self._begin  # rate over the whole time
        self._bar.n, self._bar.total = done, total  # the next step has another total
        self._bar.refresh()
        self._next = now + INTERVAL

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def _new_bar(self, total: int) -> "tqdm[Any]":
        from tqdm import tqdm

        return tqdm(
            total=total,
            desc=printable(self._what),
            file=self._terminal.err,
            leave=False,
            unit="B",
            unit_scale=True,
            bar_format="{desc}  {bar}  {percentage:3.0f}%  {rate_fmt}  {remaining}",
            dynamic_ncols=True,
        )
