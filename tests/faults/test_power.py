"""FAULTS 28: the power goes, and with it all that the disk does not have yet."""

from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from tests.effort import EVERY, by_effort, long_but, long_pairs, thinned
from tests.faults import strace
from tests.faults.disk import ext4
from tests.faults.stage import COMMANDS, Command, Scene, copy, record, run, save

NAMES = [command.name for command in COMMANDS]
DISKS = {"ordered": "data=ordered", "writeback": "data=writeback,noauto_da_alloc"}


@strace.needed
@pytest.mark.parametrize(
    ("name", "options"),
    long_pairs([*product(NAMES, ["writeback"]), ("register", "ordered")], NAMES, DISKS),
)
def test_fault_28_power_goes_at_any_call(
    name: str,
    options: str,
    scenes: Callable[[str], Scene],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    scene = scenes(name)
    with ext4(tmp_path, DISKS[options]) as disk:
        folder = disk.root / "registry"
        found = strace.calls(scene.command, copy(scene.template, folder))
        points = [call for call in found if call.changes]
        if not EVERY:
            # From the end: it is there that syncs and names stand close together.
            points = thinned(points[::-1][:: 4 if name in ("register", "rename") else 8])
        states: Counter[str] = Counter()
        for call in points:
            copy(scene.template, folder)
            disk.settle()
            strace.killed(scene.command, folder, call)  # or, rarely, just after it was done
            disk.cut_power()
            try:
                states[scene.state(folder)] += 1
                scene.recovers(folder)
            except Exception as error:
                error.add_note(f"the power went before {call}")
                raise
    record(record_property, f"power cut at a call, {options}", name, states)


@pytest.mark.parametrize("options", long_but(["writeback"], DISKS))
def test_fault_28_what_was_said_is_on_the_disk(
    options: str, scenes: Callable[[str], Scene], tmp_path: Path
) -> None:
    """P1: the power goes as soon as a command has ended well."""
    with ext4(tmp_path, DISKS[options]) as disk:
        folder = disk.root / "registry"
        some = ("begin", "register", "rename-file", "alias", "gc")
        for name in by_effort(some[1::3], some, NAMES):
            scene = scenes(name)
            copy(scene.template, folder)
            disk.settle()
            ran = run(folder, *scene.command.line)
            assert ran.code == 0, ran
            disk.cut_power()
            assert scene.state(folder) == "after", name
            scene.recovers(folder)


@strace.needed
def test_fault_28_what_a_killed_process_left_is_on_the_disk_once_it_is_used(
    scenes: Callable[[str], Scene], tmp_path: Path
) -> None:
    """P1 of a second process, for what it found there and did not write itself."""
    scene = scenes("register")
    with ext4(tmp_path, DISKS["ordered"]) as disk:
        folder = disk.root / "registry"
        points = strace.calls(scene.command, copy(scene.template, folder))
        for call in [call for call in points if call.changes][:: by_effort(30, 8, 1)]:
            copy(scene.template, folder)
            disk.settle()
            strace.killed(scene.command, folder, call)
            assert scene.again(folder).code == 0
            disk.cut_power()
            assert scene.state(folder) == "after", str(call)


@strace.needed
def test_fault_28_disk_loses_what_is_not_synced(
    scenes: Callable[[str], Scene], tmp_path: Path
) -> None:
    """That the power is cut at all: with syncs that do nothing the version is lost."""
    scene = scenes("register")
    quiet = strace.traced(
        "-o", "/dev/null", "-e", "inject=fsync,fdatasync:retval=0", names=strace.SYNCS
    )
    with ext4(tmp_path, DISKS["writeback"]) as disk:
        folder = copy(scene.template, disk.root / "registry")
        disk.settle()
        assert run(folder, *scene.command.line, around=quiet).code == 0
        assert scene.state(folder) == "after"
        disk.cut_power()
        assert scene.state(folder) == "before"


def test_fault_28_file_that_a_rename_wrote_is_on_the_disk(tmp_path: Path) -> None:
    command = Command("rename", ("rename", "a.safetensors", "--rule", "conv=embed"))
    with ext4(tmp_path, DISKS["writeback"]) as disk:
        save(disk.root / "a.safetensors", 1)
        disk.settle()
        assert run(disk.root, *command.line).code == 0
        written = (disk.root / "a.renamed.safetensors").read_bytes()
        disk.cut_power()
        assert (disk.root / "a.renamed.safetensors").read_bytes() == written
