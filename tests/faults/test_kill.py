"""FAULTS 27: a process that is killed, before each call by which it changes something."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.effort import EVERY, thinned
from tests.faults import strace
from tests.faults.stage import COMMANDS, TRAINING, Scene, copy, record

NAMES = [command.name for command in (*COMMANDS, *([TRAINING] if EVERY else []))]
# All points of these in the short form, each third of the others.
SHORT = {"register", "rename", "alias", "rm"}


@strace.needed
@pytest.mark.parametrize("name", NAMES)
def test_fault_27_kill_before_every_call(
    name: str,
    scenes: Callable[[str], Scene],
    folder: Path,
    record_property: Callable[[str, object], None],
) -> None:
    scene = scenes(name)
    found = strace.calls(scene.command, copy(scene.template, folder))
    points = [call for call in found if call.changes]
    if name == TRAINING.name:
        points = points[::9]
    elif not (EVERY or name in SHORT):
        points = points[::3]
    states: Counter[str] = Counter()
    points = thinned(points)
    for call in points:
        copy(scene.template, folder)
        reached = strace.killed(scene.command, folder, call)
        try:
            states[scene.state(folder)] += reached
            scene.recovers(folder)
        except Exception as error:
            error.add_note(f"killed before {call}")
            raise
    assert states["before"]
    # A call may go missing: see strace.killed.
    assert states.total() >= len(points) - max(1, len(points) // 10)
    record(record_property, "killed before a call", name, states)
