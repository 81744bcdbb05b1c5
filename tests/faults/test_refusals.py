"""FAULTS 31: limits, rights and quotas, and folders that are none."""

import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from tests.cli.support import tree
from tests.effort import EVERY, by_effort, long_but, long_pairs, thinned
from tests.faults import strace
from tests.faults.disk import mounted
from tests.faults.stage import CKPT, COMMANDS, Ran, Scene, copy, record, run
from tests.faults.test_errors import DISK, PLAIN, expect_told

NAMES = [command.name for command in COMMANDS]
ERRORS = {
    "EMFILE": ("openat",),
    "EROFS": ("openat", "mkdir", "link", "rename", "unlink", "chmod"),
    "EACCES": ("openat", "mkdir", "link", "rename", "unlink"),
    "EDQUOT": ("openat", "write", "mkdir", "link", "rename", "copy_file_range", "fsync"),
}
NO_POWERS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search",
             "--inh-caps=-dac_override,-dac_read_search")  # fmt: skip


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@strace.needed
@pytest.mark.parametrize(
    ("name", "error"),
    long_pairs(
        [*product(["register"], ERRORS), ("gc", "EROFS"), ("rename-file", "EDQUOT")],
        PLAIN if EVERY else ["register", "gc", "rename-file"],
        ERRORS,
    ),
)
def test_fault_31_call_that_is_refused(
    name: str,
    error: str,
    scenes: Callable[[str], Scene],
    folder: Path,
    record_property: Callable[[str, object], None],
) -> None:
    scene, outcomes = scenes(name), Counter[str]()
    points = strace.calls(scene.command, copy(scene.template, folder), ERRORS[error])
    for call in points if EVERY else thinned(points[::6]):
        copy(scene.template, folder)
        ran, _ = strace.failing(scene.command, folder, call, error)
        try:
            state = scene.state(folder)
            assert ran.code == DISK or (ran.code == 0 and state == "after"), ran
            if ran.code:
                expect_told(ran, folder)
            scene.recovers(folder)
        except Exception as failure:
            failure.add_note(f"{ran}\n{error} at {call}")
            raise
        outcomes[f"exit {ran.code}, {state}"] += 1
    record(record_property, f"calls of which one fails, {error}", name, outcomes)


@needs("prlimit")
@pytest.mark.parametrize("name", NAMES if EVERY else long_but(["register"], ["register", "gc"]))
def test_fault_31_few_open_files(name: str, scenes: Callable[[str], Scene], folder: Path) -> None:
    scene, codes = scenes(name), []
    for most in range(4, 16, by_effort(3, 1, 1)):
        copy(scene.template, folder)
        limit = ("prlimit", f"--nofile={most}")
        if run(folder, *CKPT, "--version", around=limit).code:
            continue  # Python itself does not start
        ran = run(folder, *scene.command.line, around=limit)
        codes.append(ran.code)
        assert "Traceback" not in ran.err or scene.command.script, ran
        scene.state(folder)
        scene.recovers(folder)
    assert set(codes) <= {0, DISK} or scene.command.script
    assert codes[-1] == 0


@needs("prlimit")
@pytest.mark.parametrize(
    "name", NAMES if EVERY else long_but(["register"], ["begin", "register", "alias"])
)
def test_fault_31_short_files(name: str, scenes: Callable[[str], Scene], folder: Path) -> None:
    """A limit on how long a file may become, which takes a part of what is written."""
    scene, codes = scenes(name), []
    most = 0
    while not codes or codes[-1] != 0:
        copy(scene.template, folder)
        ran = run(folder, *scene.command.line, around=("prlimit", f"--fsize={most}"))
        codes.append(ran.code)
        if ran.code:
            assert ran.code == DISK, ran
            expect_told(ran, folder)
            assert "File too large" in ran.err, ran
        scene.state(folder)
        scene.recovers(folder)
        most = int(most * by_effort(8, 1.5, 1.15)) + 40
    assert len(codes) > 4


@pytest.mark.parametrize(
    "name", NAMES if EVERY else ["begin", "register", "rename-file", "undo", "gc"]
)
def test_fault_31_disk_that_is_read_only(
    name: str, scenes: Callable[[str], Scene], tmp_path: Path
) -> None:
    scene = scenes(name)
    folder = copy(scene.template, tmp_path / "registry")
    before = tree(folder)
    with mounted(tmp_path / "seen", "--bind", str(folder)) as seen:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(seen)], check=True)
        ran = run(seen, *scene.command.line)
        expect_refused(ran, seen)
        assert "Read-only file system" in ran.err
        read = run(seen, *CKPT, "ls", "--json")
        assert read.code == 0, read
    assert tree(folder) == before
    scene.recovers(folder)


@needs("setpriv")
@pytest.mark.parametrize("closed", [".", ".ckpt", ".ckpt/objects", ".ckpt/tmp", ".ckpt/lock"])
@pytest.mark.parametrize("name", ["register", "gc", "alias"] if EVERY else ["register"])
def test_fault_31_folder_of_somebody_else(
    name: str, closed: str, scenes: Callable[[str], Scene], folder: Path
) -> None:
    """Root without its powers, or whoever runs this, in a folder that nobody may write to."""
    scene = scenes(name)
    copy(scene.template, folder)
    path = folder / closed
    path.chmod(0o444 if path.is_file() else 0o555)
    try:
        ran = run(folder, *scene.command.line, around=NO_POWERS)
    finally:
        path.chmod(0o644 if path.is_file() else 0o755)
    state = scene.state(folder)  # which needs the lock
    if ran.code == 0:  # it had no need of this folder
        assert state == "after"
    else:
        expect_refused(ran, folder)
        assert "Permission denied" in ran.err
    scene.recovers(folder)


@needs("chattr")
def test_fault_31_object_that_nobody_may_remove(
    scenes: Callable[[str], Scene], folder: Path
) -> None:
    scene = scenes("gc")
    copy(scene.template, folder)
    objects = [path for path in (folder / ".ckpt" / "objects").glob("*/*") if path.is_file()]
    marked = subprocess.run(["chattr", "+i", *objects], capture_output=True, text=True, check=False)
    try:
        if marked.returncode:
            pytest.skip(f"chattr +i: {marked.stderr.strip()}")
        ran = run(folder, *scene.command.line)
        expect_refused(ran, folder)
        assert "Operation not permitted" in ran.err
        assert scene.state(folder) == "after", "the index has forgotten it"
    finally:
        subprocess.run(["chattr", "-i", *objects], capture_output=True, check=False)
    scene.recovers(folder)


@pytest.mark.parametrize(
    "path",
    [".ckpt", ".ckpt/objects", ".ckpt/manifests", ".ckpt/tmp"],
)
def test_fault_31_folder_that_is_a_file(
    path: str, scenes: Callable[[str], Scene], folder: Path
) -> None:
    scene = scenes("register")
    copy(scene.template, folder)
    aside = folder.with_name("aside")
    (folder / path).rename(aside)
    (folder / path).write_bytes(b"a file")
    before = (folder / "registry.json").read_bytes()
    expect_refused(run(folder, *scene.command.line), folder)
    assert (folder / path).read_bytes() == b"a file"
    assert (folder / "registry.json").read_bytes() == before
    (folder / path).unlink()
    aside.rename(folder / path)
    scene.recovers(folder)


@pytest.mark.parametrize("path", ["registry.json", ".ckpt/lock", ".ckpt/writing", ".ckpt/reflog"])
def test_fault_31_file_that_is_a_folder(
    path: str, scenes: Callable[[str], Scene], folder: Path
) -> None:
    scene = scenes("register")
    copy(scene.template, folder)
    aside = folder.with_name("aside")
    (folder / path).rename(aside)
    (folder / path).mkdir()
    ran = run(folder, *scene.command.line, around=("env", f"CKPT_REGISTRY={folder}"))
    expect_refused(ran, folder)
    (folder / path).rmdir()
    aside.rename(folder / path)
    assert scene.state(folder) == "before"
    scene.recovers(folder)


def expect_refused(ran: Ran, folder: Path) -> None:
    assert ran.code == DISK, ran
    expect_told(ran, folder)
