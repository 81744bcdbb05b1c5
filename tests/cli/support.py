"""What the command-line tests share."""

import contextlib
import json
import os
import pty
import subprocess
import sys
import termios
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

SHAPES = {
    "conv1.weight": (32, 1, 3, 3),
    "conv1.bias": (32,),
    "conv2.weight": (64, 32, 3, 3),
    "conv2.bias": (64,),
    "fc1.weight": (64, 9216),
    "fc1.bias": (64,),
    "fc2.weight": (10, 64),
    "fc2.bias": (10,),
}


@dataclass(frozen=True)
class Ran:
    """What one command did."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Its stdout, as JSON."""
        return json.loads(self.out)


Run = Callable[..., Ran]
Git = Callable[..., "subprocess.CompletedProcess[str]"]


def weights(seed: int = 0) -> "OrderedDict[str, torch.Tensor]":
    """A state_dict of the MNIST network with random weights."""
    generator = torch.Generator().manual_seed(seed)
    return OrderedDict(
        (key, torch.randn(shape, generator=generator)) for key, shape in SHAPES.items()
    )


def tree(folder: Path) -> dict[str, bytes]:
    """All files of a folder but those that only say who has a lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("lock", "writing")
    }


def save(path: Path, seed: int) -> None:
    torch.save({"w": torch.full((2000,), float(seed))}, path)


def commit(git: Git) -> None:
    git("add", "-A")
    git("commit", "-qm", "x")


def register_seeds(ckpt: Run, folder: Path, *seeds: int) -> None:
    for seed in seeds:
        save(folder / "net.pt", seed)
        assert ckpt("register", "net.pt", "-m", f"seed {seed}").code == 0


def on_a_terminal(columns: int, *words: str) -> str:
    """What a command writes to a terminal so wide."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, columns))
    environment = {
        key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS")
    }
    command = [sys.executable, "-m", "ckpt", *words]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
        env={**environment, "TERM": "xterm"},
    ):  # fmt: skip
        os.close(theirs)
        text = b""
        with contextlib.suppress(OSError):  # Linux says EIO when the other side is closed
            while more := os.read(ours, 4096):
                text += more
    os.close(ours)
    return text.decode()
