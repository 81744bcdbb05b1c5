"""FAULTS 36: clocks that are wrong. What gc does then is tested in test_garbage."""

import json
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from tests.effort import long_pairs
from tests.faults.stage import CKPT, COMMANDS, Scene, copy, run, within

NAMES = [command.name for command in COMMANDS if command.name != "gc"]
CLOCKS = {"ten years ago": "-10y", "in ten years": "+10y"}
needed = pytest.mark.skipif(not shutil.which("faketime"), reason="faketime is not installed")


@needed
@pytest.mark.parametrize(
    ("name", "clock"),
    long_pairs([*product(NAMES, ["ten years ago"]), ("register", "in ten years")], NAMES, CLOCKS),
)
def test_fault_36_command_does_what_it_does_at_any_time(
    name: str, clock: str, scenes: Callable[[str], Scene], folder: Path
) -> None:
    scene = scenes(name)
    copy(scene.template, folder)
    ran = run(folder, *scene.command.line, around=("faketime", "-f", CLOCKS[clock]))
    assert ran.code == 0, ran
    assert scene.state(folder) == "after"


@needed
def test_fault_36_time_that_runs_backwards_changes_no_order(
    scenes: Callable[[str], Scene], folder: Path
) -> None:
    copy(scenes("register").template, folder)
    for clock, words in (
        ("+10y", ("register", "new.safetensors", "--name", "net")),
        ("-10y", ("rename", "net:v3", "--rule", "fc=head")),
        ("+0", ("alias", "best", "v4")),
        ("-5y", ("tag", "v4", "odd")),
    ):
        ran = run(folder, *CKPT, *words, around=("faketime", "-f", clock))
        assert ran.code == 0, ran
    listed = json.loads(within(folder, "ls", "net", "--json").out)
    assert [each["version"] for each in listed] == ["v4", "v3", "v2", "v1"]
    for taken in ("tag net:v4 odd", "alias net@best v4", "rename of v3 as net", "register new"):
        assert f"undid: {taken}" in within(folder, "undo").out
