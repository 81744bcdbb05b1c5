"""FAULTS 46: what a stranger put in the place of a registry's files leads nowhere.

A git clone keeps symbolic links; an archive keeps hard links and pipes too.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.stage import ENVIRONMENT, Scene, copy, within

COMMANDS = [
    ("ls",),
    ("show", "net:v1", "--deep"),
    ("alias", "staging", "v1"),
    ("tag", "v2", "nice"),
    ("register", "new.safetensors", "--name", "net"),
    ("rename", "net:v1", "--rule", "fc=head"),
    ("export", "net:v1", "-o", "out.safetensors", "--force"),
    ("verify",),
    ("verify", "--repair", "net.safetensors"),
    ("undo",),
    ("undo", "--list"),
    ("rm", "net:v2", "--yes"),
    ("gc", "--grace", "0", "--keep-removed", "0", "--yes"),
    ("fsck",),
]
PLACES = [
    ".ckpt", ".ckpt/lock", ".ckpt/writing", ".ckpt/reflog", ".ckpt/id", ".ckpt/.gitignore",
    ".ckpt/tmp", ".ckpt/objects", ".ckpt/objects/??", ".ckpt/objects/??/*", ".ckpt/manifests",
    ".ckpt/manifests/??", ".ckpt/manifests/??/*", "registry.json",
]  # fmt: skip
# What commands open in `.ckpt`, by its pattern.
OPENED = (
    ".gitignore", "id", "lock", "writing", "reflog", "store",
    "tmp/*", "objects/??/*", "manifests/??/*",
    ".ckpt-*.tmp",
)  # fmt: skip
REFUSED = (4, 5)


def symbolic(place: Path, outside: Path) -> None:
    place.symlink_to(outside)


def hard(place: Path, outside: Path) -> None:
    os.link(outside, place)


def pipe(place: Path, outside: Path) -> None:
    os.mkfifo(place)


def state(folder: Path) -> dict[str, tuple[bytes, float]]:
    """Every file with its time, and every folder."""
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns) if path.is_file() else (b"", 0)
        for path in (folder, *folder.rglob("*"))
    }


@pytest.mark.parametrize("kind", [symbolic, hard, pipe], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("pattern", PLACES)
def test_fault_46_nothing_outside_is_changed(
    pattern: str,
    kind: Callable[[Path, Path], None],
    scenes: Callable[[str], Scene],
    folder: Path,
) -> None:
    copy(scenes("register").template, folder)
    place = min(folder.glob(pattern))
    if kind is hard and place.is_dir():
        return
    (folder.parent / "outside").mkdir()
    outside = folder.parent / "outside" / "precious"
    place.rename(outside)
    kind(place, outside)
    before = state(outside.parent)
    refused = 0
    for words in COMMANDS:
        ran = within(folder, *words)
        assert state(outside.parent) == before, words
        if ran.code:
            assert ran.code in REFUSED or "undo" in words, (words, ran)
            assert "internal error" not in ran.err
            assert ran.code != 4 or ran.err.count("error: ") <= 1
            refused += 1
    if kind is not hard:
        assert refused or pattern == ".ckpt/.gitignore"
    if pattern in (".ckpt/lock", ".ckpt/writing", ".ckpt/reflog"):
        assert refused


PROGRAM = """
import json, os, sys
from ckpt.cli import main
opened = []
def note(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        opened.append((arguments[0], arguments[2]))
sys.addaudithook(note)
for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except SystemExit:
        pass
folder = os.path.join(os.getcwd(), "")
never = os.O_NOFOLLOW | os.O_EXCL
for path, flags in opened:
    if path.startswith(folder + ".ckpt/") and not flags & os.O_DIRECTORY:
        how = "safe" if flags & never else "FOLLOWS"
        print("opened", path.removeprefix(folder + ".ckpt/"), how)
"""


def test_fault_46_every_file_of_a_registry_is_opened_without_following_links(
    scenes: Callable[[str], Scene], folder: Path
) -> None:
    """The oracle is Python's own audit hook; it sees every call of `open`."""
    import json

    copy(scenes("begin").template, folder)
    first = [["register", "net.safetensors"], ["rename", "net:v1", "--rule", "conv=embed"]]
    line = [sys.executable, "-P", "-c", PROGRAM, json.dumps([*first, *COMMANDS])]
    ran = subprocess.run(line, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    found = [line.split() for line in ran.stdout.splitlines() if line.startswith("opened ")]
    assert ran.returncode == 0, ran.stderr
    assert not [path for _, path, how in found if how != "safe"]
    patterns = {
        next((each for each in OPENED if Path(path).match(each)), path) for _, path, _ in found
    }
    assert patterns == {*OPENED}


def test_fault_46_reflog_of_a_clone_appends_to_no_other_file(
    scenes: Callable[[str], Scene], tmp_path: Path
) -> None:
    """As reported: a clone with `.ckpt/reflog -> ../../home/.bashrc`."""
    home, clone = tmp_path / "home", tmp_path / "clone"
    home.mkdir()
    (home / ".bashrc").write_text("alias ll='ls -l'\n")
    shutil.copytree(scenes("register").template, clone)
    (clone / ".ckpt" / "reflog").unlink()
    (clone / ".ckpt" / "reflog").symlink_to("../../home/.bashrc")
    ran = within(clone, "tag", "v1", "$(touch PWNED)"[2:7])
    assert (ran.code, "reflog: a symbolic link" in ran.err) == (4, True), ran
    assert (home / ".bashrc").read_text() == "alias ll='ls -l'\n"
