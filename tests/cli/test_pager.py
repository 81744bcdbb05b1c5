"""Results longer than the screen go through a pager, where somebody looks and nobody else reads."""

import fcntl
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from tests.cli.support import Run
from tests.effort import PATIENCE

ROWS, COLUMNS = 24, 80
TEE = {"CKPT_PAGER": "tee paged"}
CKPT = (sys.executable, "-P", "-m", "ckpt")
PROMPT = r"(:|\(END\))$"  # of less


class Screen:
    """A command with a terminal of its own, and a person at it."""

    def __init__(self, *words: str, **variables: str) -> None:
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (ROWS, COLUMNS))
        self._process = subprocess.Popen(
            [*CKPT, *words], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), env=environment(variables),
        )  # fmt: skip
        os.close(theirs)

    def wait_for(self, pattern: str, *, keys: str = "") -> str:
        """What is shown since the last time, until that matches; `keys` are typed until then."""
        shown, ends = "", time.monotonic() + PATIENCE
        while not re.search(pattern, shown):
            assert time.monotonic() < ends, shown
            if select.select([self._ours], [], [], 1)[0]:
                shown = plain(shown + self._read())
            else:
                self.type(keys)
        return shown

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def end(self) -> tuple[int, str]:
        """Its exit code, and the rest of what it shows."""
        rest = plain("".join(iter(self._read, "")))
        return self._process.wait(PATIENCE), rest

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def _read(self) -> str:
        try:
            return os.read(self._ours, 4096).decode(errors="replace")
        except OSError:  # Linux says EIO when the other side is closed
            return ""


def plain(text: str) -> str:
    """Without control codes."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|[\r\x07]", "", text)


Start = Callable[..., Screen]


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    unset = ("PAGER", "LESS", "LV", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
    kept = {key: value for key, value in os.environ.items() if key not in unset}
    return {**kept, "TERM": "xterm", **variables}


@pytest.fixture
def tall(folder: Path) -> Path:
    """Its list of tensors is longer than the screen."""
    torch.save({f"layer{chr(97 + i)}": torch.zeros(1) for i in range(26)}, folder / "tall.pt")
    torch.save({"a": torch.zeros(1)}, folder / "one.pt")
    return folder


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a command with a terminal of its own."""
    with ExitStack() as screens:

        def started(*words: str, **variables: str) -> Screen:
            screen = Screen(*words, **variables)
            screens.callback(screen.close)
            return screen

        yield started


@pytest.fixture
def less(start: Start) -> Start:
    if shutil.which("less") is None:
        pytest.skip("less is not installed")
    return start


def test_person_reads_a_screen_at_a_time(less: Start, tall: Path) -> None:
    screen = less("show", "tall.pt")
    first = screen.wait_for(PROMPT)
    assert "layera" in first
    assert "layerz" not in first
    screen.type("\x03")  # Ctrl-C, at which less forgets what was typed
    assert "layerz" in screen.wait_for(r"\(END\)$", keys=" ")
    screen.type("q")
    code, rest = screen.end()
    assert (code, "interrupted" in rest) == (0, False)


def test_reader_who_leaves_early_changes_no_exit_code(less: Start, tall: Path) -> None:
    screen = less("diff", "tall.pt", "one.pt", "--keys", "--exit-code", LESS="RX")
    screen.wait_for(PROMPT)
    screen.type("q")
    assert screen.end()[0] == 1


@pytest.fixture
def class_beside_it(tall: Path) -> Path:
    """The command that makes a file with a long name fit it is wider than the screen."""
    (tall / "net.py").write_text("import torch\nNet = lambda: torch.nn.Linear(1, 1)\n")
    for name, more in (("short", {}), ("long", {f"layer{chr(97 + i)}": 1 for i in range(26)})):
        weights = {"fc.weight": torch.ones(1, 1), "fc.bias": torch.ones(1)}
        others = {key: torch.zeros(1) for key in more}
        torch.save({**weights, **others}, tall / f"{name}-run-of-last-monday-with-its-best.pt")
    return tall


@pytest.mark.long
def test_short_result_with_a_wide_command_needs_nobody(less: Start, class_beside_it: Path) -> None:
    code, shown = less("diff", "short-run-of-last-monday-with-its-best.pt", "net.py:Net").end()
    assert code == 0
    assert shown.splitlines()[-1] == (
        "To make it fit:  ckpt rename short-run-of-last-monday-with-its-best.pt "
        "--strip fc. --check net.py:Net"
    )


@pytest.mark.long
def test_wide_command_is_wrapped_in_the_pager(less: Start, class_beside_it: Path) -> None:
    screen = less("diff", "long-run-of-last-monday-with-its-best.pt", "net.py:Net")
    screen.wait_for(PROMPT)
    shown = screen.wait_for(r"\(END\)$", keys=" ")
    assert "--to net.py:Net" in shown.replace(" \b", "")  # between the two rows of a line


def test_wide_table_is_scrolled_sideways(less: Start, ckpt: Run, tall: Path) -> None:
    why = "reason " * 20 + "end"
    assert ckpt("register", "one.pt", "--name", "net", "-m", why).code == 0
    screen = less("ls", "--wide")
    shown = screen.wait_for(PROMPT)
    assert "end" not in shown.replace("(END)", "")
    for _ in range(4):
        screen.type("\x1bOC")  # the right arrow
        shown = screen.wait_for(PROMPT)
    assert "reason end" in shown
    screen.type("q")
    assert screen.end()[0] == 0


CASES = {
    "long": (["show", "tall.pt"], TEE, True),
    "fits": (["show", "one.pt"], TEE, False),
    "wide": (["show", "one.pt", "--wide"], TEE, False),
    "PAGER": (["show", "tall.pt"], {"PAGER": "tee paged"}, True),
    "CKPT_PAGER first": (["show", "tall.pt"], {"CKPT_PAGER": "cat", "PAGER": "tee paged"}, False),
    "empty": (["show", "tall.pt"], {"CKPT_PAGER": "", "PAGER": "tee paged"}, False),
    "not there": (["show", "tall.pt"], {"PAGER": "no-such-pager"}, False),
    "dumb": (["show", "tall.pt"], {**TEE, "TERM": "dumb"}, False),
    "--no-pager": (["--no-pager", "show", "tall.pt"], TEE, False),
    "-q": (["show", "tall.pt", "-q"], TEE, False),
    "--json": (["show", "tall.pt", "--json"], TEE, False),
    "diff": (["diff", "tall.pt", "one.pt", "--keys"], TEE, True),
    "writes": (["rename", "tall.pt", "--rule", r"layer(.)->layer_\1"], TEE, False),
}  # fmt: skip


SHORT = ("long", "PAGER", "CKPT_PAGER first", "not there")


@pytest.mark.parametrize(
    ("words", "variables", "is_paged"),
    [
        pytest.param(*case, id=name, marks=[] if name in SHORT else pytest.mark.long)
        for name, case in CASES.items()
    ],
)
def test_who_gets_a_pager(
    start: Start, tall: Path, words: list[str], variables: dict[str, str], is_paged: bool
) -> None:
    code, shown = start(*words, **variables).end()
    assert code == 0
    assert (tall / "paged").exists() == is_paged
    if "tall.pt" in words:
        assert re.search("layer_?z", shown), "nothing is lost"


@pytest.mark.parametrize("piped", ["stdin", "stdout"])
def test_nobody_in_a_pipe_gets_a_pager(tall: Path, piped: str) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (ROWS, COLUMNS))
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs, piped: subprocess.PIPE}
    with subprocess.Popen([*CKPT, "show", "tall.pt"], env=environment(TEE), **streams) as process:
        os.close(theirs)
        if piped == "stdout":
            assert process.stdout is not None
            assert b"layerz" in process.stdout.read()
        assert process.wait(PATIENCE) == 0
    os.close(ours)
    assert not (tall / "paged").exists()
