"""The pager, for results that are longer than the screen; chosen and called as git does it."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from shutil import get_terminal_size, which

_VARIABLES = ("CKPT_PAGER", "PAGER")
_NOT_FOUND = (126, 127)  # exit codes of a shell that cannot start a command (POSIX, 2.8.2)
_PAINT = re.compile(r"\x1b\[\d*m")


def pager_command() -> str | None:
    """`CKPT_PAGER`, else `PAGER`, else less; None if that is empty, ``cat`` or not installed."""
    named = next((os.environ[name] for name in _VARIABLES if name in os.environ), None)
    if named is not None:
        return None if named.strip() in ("", "cat") else named
    return "less" if which("less") else None


def paged(text: str, encoding: str, *, sideways: bool = False) -> bool:
    """Show a text in the pager, and wait until the reader leaves it.

    Args:
        text: Printable text with our own colours.
        encoding: Of the terminal.
        sideways: Whether lines wider than the terminal are scrolled, not wrapped; a text with
            one is then shown however short it is.

    Returns:
        Whether it was shown; not if its rows, after wrapping, fit the screen, or if there is no
        pager.
    """
    columns, rows = get_terminal_size()
    widths = [len(_PAINT.sub("", line)) for line in text.split("\n")]
    fits = sum(max(1, -(-width // columns)) for width in widths) < rows
    scrolls = sideways and max(widths) > columns
    command = pager_command()
    if (fits and not scrolls) or command is None or os.environ.get("TERM") == "dumb":
        return False
    # F: end if all fits; R: colours; X: leave the text on the screen; S: scroll long lines.
    environment = {"LESS": "RXS" if scrolls else "FRX", "LV": "-c", **os.environ}
    with _interrupts_for_the_pager():
        process = subprocess.Popen(command, shell=True, stdin=subprocess.PIPE, env=environment)
        process.communicate(f"{text}\n".encode(encoding))  # a reader may leave before the end
    return process.returncode not in _NOT_FOUND


@contextmanager
def _interrupts_for_the_pager() -> Iterator[None]:
    """Ctrl-C reaches both processes; in less it stops a search, and must not end us before less."""
    before = signal.signal(signal.SIGINT, lambda _number, _frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
