"""FAULTS 32: killed once more, while what a first kill has left is put right."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.effort import EVERY, by_effort, thinned
from tests.faults import strace
from tests.faults.stage import BY_NAME, Command, Scene, copy, record

# Of a registry in which nothing was removed lately, this changes no model.
COLLECT = Command("gc", ("gc", "--grace", "0", "--yes"))


@strace.needed
@pytest.mark.parametrize(
    ("name", "second"),
    [
        ("begin", "again"),  # gc refuses where there are objects and no index
        ("register", "again"),
        ("register", "gc"),
        ("rename", "again"),
        ("rename", "gc"),
        ("rm", "again"),
        ("gc", "again"),
        ("gc", "gc"),
    ],
)
def test_fault_32_killed_again(
    name: str,
    second: str,
    scenes: Callable[[str], Scene],
    folder: Path,
    record_property: Callable[[str, object], None],
) -> None:
    scene = scenes(name)
    command = COLLECT if second == "gc" else scene.command
    crashed = folder.with_name("crashed")
    first = strace.calls(scene.command, copy(scene.template, folder))
    states: Counter[str] = Counter()
    for call in thinned([call for call in first if call.changes][3 :: 5 if EVERY else 25]):
        copy(scene.template, folder)
        strace.killed(scene.command, folder, call)
        copy(folder, crashed)
        again = [each for each in strace.calls(command, folder) if each.changes]
        for other in again[2 :: by_effort(40, 16, 4)]:
            copy(crashed, folder)
            strace.killed(command, folder, other)
            try:
                states[scene.state(folder)] += 1
                scene.recovers(folder)
            except Exception as error:
                error.add_note(f"killed before {call}, then before {other}")
                raise
    record(record_property, "killed, and killed once more", name, states)


@strace.needed
def test_fault_32_killed_again_and_again(scenes: Callable[[str], Scene], folder: Path) -> None:
    """Each attempt comes further than the one before, by a sync; the last one is not killed."""
    scene, attempt = scenes("register"), 1
    copy(scene.template, folder)
    while strace.killed(scene.command, folder, strace.Call("fsync", attempt, "")):
        scene.state(folder)
        attempt += by_effort(6, 1, 1)
    assert attempt > 4
    scene.recovers(folder)


def test_fault_32_scene_is_of_another_command(scenes: Callable[[str], Scene]) -> None:
    """A command that changes a registry otherwise is not taken for the one that was killed."""
    scene = scenes("register")
    other = replace(scene, command=BY_NAME["alias"])
    assert other.before == scene.before != scene.after
