"""A bar for what takes long: on a terminal, and nowhere else."""

import io
import os
import pty
import termios
from contextlib import closing

import pytest

from ckpt.show.look import progress
from ckpt.show.look.progress import progress_bar
from ckpt.show.look.terminal import Terminal


def shown(*, quiet: bool = False) -> str:
    """What half a registration writes to a terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    with closing(os.fdopen(theirs, "w")) as err:
        with progress_bar(Terminal(err=err, quiet=quiet), "registering \x1b[31mbig.pt") as told:
            told(10**9, 2 * 10**9)
        err.write("end")
        err.flush()
        text = b""
        while not text.endswith(b"end"):
            text += os.read(ours, 4096)
    os.close(ours)
    return text.decode()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setenv("TERM", "xterm")


def test_bar_stands_on_a_terminal_and_goes_away(impatient: None) -> None:
    text = shown()
    assert r"registering \x1b[31mbig.pt" in text
    assert "50%" in text
    assert text.endswith("\rend"), "the line is free again"


def test_no_bar_for_what_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert shown() == "end"


def test_no_bar_where_it_is_not_wanted(impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(quiet=True) == "end"
    monkeypatch.setenv("TERM", "dumb")
    assert shown() == "end"


def test_no_bar_in_a_pipe(impatient: None) -> None:
    err = io.StringIO()
    with progress_bar(Terminal(err=err), "registering big.pt") as told:
        told(1, 2)
    assert err.getvalue() == ""
