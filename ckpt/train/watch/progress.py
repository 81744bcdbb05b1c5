"""Show a run in Python, as `ckpt train` shows it. No torch.

The view belongs to the command; it is imported when it is first needed.
"""

import sys
from importlib import import_module
from typing import TextIO

from ckpt.train.watch.events import Callback, Event


class Progress:
    """A `Callback` that prints a run: its setup, a line an epoch, the result, a bar on a terminal.

    Args:
        stream: Where to; None is stderr, as the command does it.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        view = import_module("ckpt.show.train").TrainingView
        self._show: Callback = view(self._print, self._stream)

    def __call__(self, event: Event) -> None:
        """Print the event's lines, or move the bar."""
        self._show(event)

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)
