"""A registry that a group shares: two real users with the usual umask. The oracle is the kernel."""

import json
import os
import signal
import stat
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.effort import long_but
from tests.faults import checker
from tests.faults.stage import Ran, save, within

ANN, BOB, STRANGER, GROUP = 1234, 1235, 1236, 4321
GC = ("gc", "--keep-removed", "0", "--grace", "0", "--yes")
# In turn by the two. They may not be able to read Python's modules, so all are imported before.
COMMANDS = (
    ("register", "0.safetensors", "--name", "net"),
    ("register", "1.safetensors", "--name", "net"),
    ("rename", "net:v1", "--rule", "conv=embed"),
    ("alias", "prod", "net:v2"),
    ("tag", "net:v1", "golden"),
    ("rm", "net:v1", "--yes"),
    ("restore", "net:v1"),
    ("undo",),
    ("redo",),
    ("rm", "net:v1", "--yes"),
    GC,
    ("verify",),
    ("fsck",),
    ("register", "2.safetensors", "--name", "net"),
)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="not root")


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that everybody can reach, with files; ckpt has run in another one."""
    with TemporaryDirectory(dir="/tmp") as name:
        place = Path(name)
        place.chmod(0o755)
        for inner in ("registry", "other"):
            (place / inner).mkdir()
            for seed in range(3):
                save(place / inner / f"{seed}.safetensors", seed)
                (place / inner / f"{seed}.safetensors").chmod(0o644)
        for words in (("registry", "init", "--shared", "group"), *COMMANDS):
            assert within(place / "other", *words).code == 0
        os.chown(place / "registry", ANN, GROUP)
        monkeypatch.setenv("CKPT_SAFE_REGISTRIES", str(place / "registry"))
        yield place / "registry"


@dataclass(frozen=True)
class User:
    """A command that somebody else runs."""

    pid: int
    output: int

    def ended(self) -> Ran:
        with open(self.output) as file:
            text = file.read()
        os.waitpid(self.pid, 0)
        return Ran(**json.loads(text))


def as_user(user: int, folder: Path, *words: str, umask: int = 0o022) -> Ran:
    """What a command does for a user who is in a group of their own, and in the shared one."""
    return start(user, folder, *words, umask=umask).ended()


def start(
    user: int, folder: Path, *words: str, umask: int = 0o022, held: tuple[str, str] | None = None
) -> User:
    """Start it; `held` is a call before which it stops, and the end of the call's first path."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([] if user == STRANGER else [GROUP])
            os.setgid(user)
            os.setuid(user)
            os.umask(umask)
            if held is not None:
                sys.addaudithook(partial(stop_before, list(held)))
            os.write(writing, json.dumps(asdict(within(folder, *words))).encode())
        finally:
            os._exit(0)
    os.close(writing)
    return User(child, reading)


def stop_before(held: list[str], event: str, arguments: tuple[object, ...]) -> None:
    """Stop this process before the call, once."""
    if held and event == held[0] and str(arguments[0]).endswith(held[1]):
        held.clear()
        os.kill(os.getpid(), signal.SIGSTOP)


def expect_shared(folder: Path) -> None:
    """The group may do what the owner may, and no stranger may write."""
    for path in (folder / "registry.json", folder / ".ckpt", *(folder / ".ckpt").rglob("*")):
        status = path.stat()
        mode = stat.S_IMODE(status.st_mode)
        assert status.st_gid == GROUP, path
        assert mode & 0o070 == (mode & 0o700) >> 3, (path, oct(mode))
        assert not mode & 0o002, path
        assert not path.is_dir() or mode & stat.S_ISGID, path


@pytest.mark.parametrize("umask", long_but([0o077], [0o022, 0o077]))
def test_both_use_a_registry_in_a_shared_folder(folder: Path, umask: int) -> None:
    folder.chmod(0o2775)
    for number, words in enumerate(COMMANDS):
        ran = as_user((ANN, BOB)[number % 2], folder, *words, umask=umask)
        assert (ran.code, ran.err) == (0, "") or number == 0, (words, ran)
        expect_shared(folder)
    assert checker.check(folder).versions.keys() == {"net:v2", "net:v3", "net:v4"}
    for user in (ANN, BOB):
        assert as_user(user, folder, "verify").code == 0
    ran = as_user(STRANGER, folder, "alias", "prod", "net:v3")
    assert (ran.code, "Permission denied" in ran.err) == (5, True)


@pytest.mark.parametrize("event", ["os.chmod", "os.rename", "os.link"])
def test_what_one_user_is_making_stops_no_other(folder: Path, event: str) -> None:
    """Whatever the moment at which the first one stops, nothing there is theirs alone."""
    folder.chmod(0o2775)
    first = start(ANN, folder, *COMMANDS[0], held=(event, ""))
    os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WNOWAIT)
    ran = as_user(BOB, folder, *COMMANDS[1])
    assert (ran.code, ran.out[:17]) == (0, "registered net:v1"), ran
    os.kill(first.pid, signal.SIGCONT)
    assert first.ended().out.startswith("registered net:v2")
    expect_shared(folder)
    assert as_user(BOB, folder, *GC).code == 0
    assert not list(folder.rglob("*.tmp"))


def test_registry_that_one_user_has_is_shared_with_what_is_in_it(folder: Path) -> None:
    folder.chmod(0o755)
    assert as_user(ANN, folder, *COMMANDS[0]).code == 0
    ran = as_user(BOB, folder, *COMMANDS[1])
    assert (ran.code, "Permission denied" in ran.err) == (5, True)
    ran = as_user(BOB, folder, "registry", "init", "--shared", "group")
    assert (ran.code, "belongs to another user (uid 1234), who alone can share it" in ran.err) == (
        2,
        True,
    )
    ran = as_user(ANN, folder, "registry", "init", "--shared", "group", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out) == {"folder": str(folder), "created": False, "group": str(GROUP)}
    expect_shared(folder)
    for words in COMMANDS[1:]:
        ran = as_user(BOB, folder, *words)
        assert (ran.code, ran.err) == (0, ""), (words, ran)
    expect_shared(folder)


def test_registry_begins_shared(folder: Path) -> None:
    folder.chmod(0o700)
    ran = as_user(ANN, folder, "registry", "init", "--shared", "group")
    assert (ran.code, ran.out.splitlines()[0]) == (0, f"created a registry: {folder}")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o2770
    expect_shared(folder)
    assert as_user(BOB, folder, *COMMANDS[0]).code == 0
    expect_shared(folder)
    again = as_user(BOB, folder, "registry", "init")
    assert (again.code, again.out) == (0, f"already a registry: {folder}\n")


def test_group_that_the_owner_is_not_in_is_refused(folder: Path) -> None:
    os.chown(folder, STRANGER, GROUP)
    folder.chmod(0o755)
    ran = as_user(STRANGER, folder, "registry", "init", "--shared", "group")
    assert (ran.code, "you are not a member of its group 4321" in ran.err) == (2, True)
    assert not (folder / "registry.json").exists()


def test_folder_that_is_not_shared_leaves_it_to_the_umask(folder: Path) -> None:
    """Neither bit alone says that the group may write."""
    for mode in (0o2755, 0o775):
        folder.chmod(mode)
        assert as_user(ANN, folder, *COMMANDS[0]).code == 0
        assert stat.S_IMODE((folder / ".ckpt" / "lock").stat().st_mode) == 0o644
        assert stat.S_IMODE((folder / ".ckpt").stat().st_mode) & 0o777 == 0o755


def test_lost_index_is_not_replaced_by_an_empty_one(folder: Path) -> None:
    folder.chmod(0o2775)
    assert as_user(ANN, folder, *COMMANDS[0]).code == 0
    (folder / "registry.json").unlink()
    for words in ((), ("--shared", "group")):
        ran = as_user(ANN, folder, "registry", "init", *words)
        assert (ran.code, "ckpt fsck --rebuild-index" in ran.err) == (4, True), ran
    assert not (folder / "registry.json").exists()
