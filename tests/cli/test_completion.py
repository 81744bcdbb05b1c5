"""Completion, in the shells themselves: what TAB makes of a line that was begun."""

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
import torch

from tests.cli.support import Run, weights
from tests.effort import PATIENCE, by_effort

READY = "ready:"
CLEAR = "\x15"  # Ctrl-U deletes the line
SET_UP = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source <(ckpt completion bash)"),
    "zsh": (
        ["zsh", "-f", "-i"],
        "autoload -U compinit; compinit -u -D; source <(ckpt completion zsh)",
    ),
}
COMPLETED = {
    "ckpt expo": "ckpt export ",
    "ckpt --color al": "ckpt --color always ",
    "ckpt show --de": "ckpt show --deep ",
    "ckpt ls --wi": "ckpt ls --wide ",
    "ckpt help exi": "ckpt help exit-codes ",
    "ckpt log ne": "ckpt log net@prod ",
    "ckpt rm net:": "ckpt rm net:v1 ",
    "ckpt pin net@p": "ckpt pin net@prod ",
    "ckpt rename ol": "ckpt rename old.pt ",
    "ckpt blame fc2.w": "ckpt blame fc2.weight ",
    "ckpt ls n": "ckpt ls net ",
    "ckpt alias pr": "ckpt alias prod ",
    "ckpt export net:v1 -o new": "ckpt export net:v1 -o newer/",
    "ckpt import fo": "ckpt import folder:newer ",
}
AMBIGUOUS = {"bash": {"ckpt log ne": "ckpt log net"}, "zsh": {"ckpt log ne": "ckpt log net"}}


@pytest.fixture
def registry(ckpt: Run, folder: Path) -> Path:
    torch.save(weights(), folder / "old.pt")
    (folder / "newer").mkdir()
    assert ckpt("register", "old.pt", "--name", "net").code == 0
    assert ckpt("alias", "prod", "net:v1").code == 0
    return folder


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "TERM": "dumb", "PS1": READY, "HOME": str(Path.cwd())}


class Shell:
    """An interactive shell on a terminal of its own."""

    def __init__(self, name: str) -> None:
        words, set_up = SET_UP[name]
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
        self._process = subprocess.Popen(
            words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(), close_fds=True,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.run(set_up)

    def run(self, line: str) -> None:
        """Run a line, and wait until the shell reads the next one."""
        self.send(f"{CLEAR}{line}; echo done\n", until=rf"\ndone\n[^\n]*{READY}$")

    def send(self, text: str, *, until: str) -> str:
        """What the terminal shows until that matches `until`, without control codes."""
        os.write(self.ours, text.encode())
        shown, ends = "", time.monotonic() + PATIENCE
        while not re.search(until, shown):
            assert time.monotonic() < ends, shown
            if select.select([self.ours], [], [], 1)[0]:
                shown += os.read(self.ours, 4096).decode(errors="replace")
                shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\x07\r]", "", shown)
                while "\b" in shown:
                    shown = re.sub(r"[^\b]?\x08", "", shown, count=1)
        return shown

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self.ours)


@pytest.mark.parametrize("name", SET_UP)
def test_tab_completes(name: str, registry: Path) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    shell = Shell(name)
    try:
        for begun, whole in [*COMPLETED.items()][:: by_effort(6, 1, 1)]:
            whole = AMBIGUOUS[name].get(begun, whole)
            assert whole in shell.send(f"{begun}\t", until=re.escape(whole))
            shell.run("true")
    finally:
        shell.close()


@pytest.mark.long
def test_fish_completes(registry: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    for begun, whole in COMPLETED.items():
        script = f"ckpt completion fish | source; complete -C '{begun}'"
        done = subprocess.run(
            ["fish", "--no-config", "-c", script], env=environment(), capture_output=True, text=True
        )
        found = [line.split("\t")[0] for line in done.stdout.splitlines()]
        assert whole.split()[-1] in found, (begun, done.stdout, done.stderr)


def test_nothing_is_offered_without_a_registry(folder: Path) -> None:
    script = "source <(ckpt completion bash); _ckpt_completion ckpt; echo ${#COMPREPLY[@]}"
    done = subprocess.run(
        ["bash", "-c", script],
        env={**environment(), "COMP_LINE": "ckpt log ", "COMP_POINT": "9"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "0\n"


@pytest.mark.parametrize(("breaks", "offered"), [(" \t\n", "net:v1"), (" :", "v1"), (" :@", "v1")])
def test_bash_may_end_words_where_it_likes(registry: Path, breaks: str, offered: str) -> None:
    asked = {"_CKPT_COMPLETE": "bash_complete", "COMP_LINE": "ckpt rm net:", "COMP_POINT": "12"}
    done = subprocess.run(
        ["ckpt"], env={**environment(), **asked, "COMP_WORDBREAKS": breaks},
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (f"plain,{offered}\n", "")
