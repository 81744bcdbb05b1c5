"""FAULTS 29 and 31: the system refuses a call, once or from then on."""

from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from tests.effort import EVERY, long_pairs, thinned
from tests.faults import strace
from tests.faults.stage import COMMANDS, Ran, Scene, copy, record

DISK = 5
PLAIN = [command.name for command in COMMANDS if not command.script]


def closes_a_folder(call: strace.Call) -> bool:
    """Which Python does after each listing; no system fails there."""
    return call.name == "close" and Path(call.arguments.partition("<")[2].split(">")[0]).is_dir()


def expect_told(ran: Ran, folder: Path) -> None:
    """One line on what is wrong, with the file's name, and at most a hint."""
    lines = ran.err.splitlines()
    told = [line for line in lines if line.startswith("error: ")]
    assert len(told) == 1, ran
    assert all(line.startswith(("error: ", "hint: ", "       ")) for line in lines), ran
    assert any(name in told[0] for name in (str(folder), ".safetensors", ".ckpt-")), ran


def expect_no_second_sync(syncs: list[strace.Call]) -> None:
    """What a failed sync has dropped, a second one that succeeds would not bring back."""
    failed: set[str] = set()
    for sync in syncs:
        file = sync.arguments.split(")", 1)[0]
        assert file.partition("<")[2] not in failed, syncs
        if "INJECTED" in sync.arguments:
            failed.add(file.partition("<")[2])


@strace.needed
@pytest.mark.parametrize(
    ("name", "how"),
    long_pairs(
        [*product(PLAIN, ["once"]), ("register", "onwards"), ("rename-file", "onwards")],
        PLAIN,
        ["once", "onwards"],
    ),
)
def test_fault_29_call_that_fails(
    name: str,
    how: str,
    scenes: Callable[[str], Scene],
    folder: Path,
    record_property: Callable[[str, object], None],
) -> None:
    scene, onwards = scenes(name), how == "onwards"
    names = tuple({*strace.WRITES, *strace.READS})
    found = strace.calls(scene.command, copy(scene.template, folder), names)
    points = [call for call in found if not closes_a_folder(call)]
    if not EVERY:
        points = thinned(points[:: 3 if name == "register" and not onwards else 12])
    outcomes: Counter[str] = Counter()
    for call in points:
        copy(scene.template, folder)
        ran, syncs = strace.failing(scene.command, folder, call, "EIO", onwards=onwards)
        try:
            state = scene.state(folder)
            assert ran.code == DISK or (ran.code == 0 and state == "after"), ran
            if ran.code and (call.name != "write" or not onwards):  # else stderr fails as well
                expect_told(ran, folder)
            expect_no_second_sync(syncs)
            scene.recovers(folder)
        except Exception as error:
            error.add_note(f"{ran}\nfailed from {call}")
            raise
        outcomes[f"exit {ran.code}, {state}"] += 1
    what = "calls from which on all fail" if onwards else "calls of which one fails"
    record(record_property, f"{what}, EIO", name, outcomes)
