"""FAULTS 30: the disk is full, at any page and at any file."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.effort import EVERY, by_effort
from tests.faults.disk import PAGE, mounted, nearly_full
from tests.faults.stage import COMMANDS, Scene, copy, record, run
from tests.faults.test_errors import DISK, expect_told

NAMES = [command.name for command in COMMANDS]
PASSES = 10


def tried(scene: Scene, folder: Path, pages: int) -> str:
    """Run the command with so many free pages; what became of it."""
    with nearly_full(folder.parent, pages):
        ran = run(folder, *scene.command.line)
        state = scene.state(folder)
    assert ran.code == DISK or (ran.code == 0 and state == "after"), ran
    if ran.code:
        expect_told(ran, folder)
        assert "No space left on device" in ran.err, ran
    scene.recovers(folder)
    return f"exit {ran.code}, {state}"


@pytest.mark.parametrize("name", NAMES if EVERY else ["begin", "register", "rename", "rm", "gc"])
def test_fault_30_full_at_any_page(
    name: str,
    scenes: Callable[[str], Scene],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """One page more each time, or a few, until it succeeds."""
    scene, outcomes, pages = scenes(name), Counter[str](), 0
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as disk:
        while outcomes["exit 0, after"] < 2:
            copy(scene.template, disk / "registry")
            outcomes[tried(scene, disk / "registry", pages)] += 1
            pages += by_effort(16, 1, 1)
    record(record_property, "sizes of a full disk", name, outcomes)


@pytest.mark.parametrize("name", NAMES if EVERY else ["begin", "register", "alias"])
def test_fault_30_full_at_any_file(
    name: str,
    scenes: Callable[[str], Scene],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Space enough, but no room for another file."""
    scene, outcomes, more = scenes(name), Counter[str](), 0
    used = sum(1 for _ in scene.template.rglob("*")) + 2
    while not outcomes["exit 0, after"]:
        options = f"size=1m,nr_inodes={used + more}"
        with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", options, "tmpfs") as disk:
            folder = copy(scene.template, disk / "registry")
            ran = run(folder, *scene.command.line)
            state = scene.state(folder)
            assert ran.code in (0, DISK), ran
            outcomes[f"exit {ran.code}, {state}"] += 1
        more += by_effort(6, 1, 1)
    record(record_property, "sizes of a full disk", name, outcomes)


@pytest.mark.parametrize("seed", range(by_effort(2, PASSES, 100)))
def test_fault_30_full_at_random(seed: int, scenes: Callable[[str], Scene], tmp_path: Path) -> None:
    """Any command and size, and a reflog of which a page takes a part of the next line."""
    chance = random.Random(seed)
    scene = scenes(chance.choice(NAMES))
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as disk:
        folder = copy(scene.template, disk / "registry")
        reflog = folder / ".ckpt" / "reflog"
        if reflog.exists():
            before = reflog.read_bytes()
            room = chance.randrange(250)
            reflog.write_bytes(b"#" * (-(len(before) + room + 1) % PAGE) + b"\n" + before)
        tried(scene, folder, chance.randrange(24))
