"""What strace does to a command: it lists the calls that change something, and spoils one of them.

A call is named by its number among those of its name that the main thread makes, which is nearly
always the same: file names differ by run, the order of the calls does not.
"""

import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.stage import Command, Ran, run

needed = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

WRITES = (
    "openat", "write", "pwrite64", "copy_file_range", "fsync", "fdatasync", "rename", "renameat",
    "renameat2", "link", "linkat", "unlink", "unlinkat", "mkdir", "mkdirat", "chmod", "fchmod",
    "fchmodat", "ftruncate", "utimensat",
)  # fmt: skip
READS = ("openat", "read", "pread64", "close")
SYNCS = ("fsync", "fdatasync")
_DESCRIPTORS = {"read", "write", "pread64", "pwrite64", "close", *SYNCS}
_CALL = re.compile(r"^(\d+) +(\w+)\((.*)", re.MULTILINE)
_HERE = re.compile(r"AT_FDCWD<[^>]*>")
_RELATIVE = re.compile(r'(^|, )"[^/"]')


@dataclass(frozen=True, slots=True)
class Call:
    """One call: the `number`-th of its `name`, and its arguments in the run that was traced."""

    name: str
    number: int
    arguments: str

    @property
    def changes(self) -> bool:
        """Whether something on the disk is another one after it, or is safe after it."""
        opens = self.name == "openat"
        return self.name not in READS or (opens and bool(re.search(r"O_CREAT|O_WRONLY|O_RDWR",
                                                                  self.arguments)))  # fmt: skip

    def __str__(self) -> str:
        return f"{self.name} {self.number}: {self.arguments[:160]}"


def calls(command: Command, folder: Path, names: tuple[str, ...] = WRITES) -> list[Call]:
    """All calls with these names that concern `folder`, in which the command is run."""
    trace = folder.parent / f"{folder.name}.trace"
    ran = run(folder, *command.line, around=traced("-y", "-o", str(trace), names=names))
    assert ran.code == 0 or command.done in ran.err, ran
    found = _parsed(trace.read_text(errors="replace"), folder)
    trace.unlink()
    return found


def killed(command: Command, folder: Path, call: Call) -> bool:
    """Run a command that is killed just before a call, and say whether it came to that call.

    A manifest says when it was made, and its folder is called by its digest: rarely a run finds
    that folder there, makes it not, and ends before the last call of a name.
    """
    inject = f"inject={call.name}:signal=KILL:when={call.number}"
    around = traced("-o", "/dev/null", "-e", inject, names=(call.name,))
    ran = run(folder, *command.line, around=around)
    assert ran.code in (-9, 0) or command.done in ran.err, (str(call), ran)
    return ran.code == -9


def failing(
    command: Command, folder: Path, call: Call, error: str, *, onwards: bool = False
) -> tuple[Ran, list[Call]]:
    """Run a command of which a call fails, or from there on all of its name.

    Returns:
        What it did, and all its syncs in the order in which they began.
    """
    trace = folder.parent / f"{folder.name}.trace"
    inject = f"inject={call.name}:error={error}:when={call.number}{'+' if onwards else ''}"
    names = tuple({call.name, *SYNCS})
    ran = run(
        folder, *command.line, around=traced("-y", "-o", str(trace), "-e", inject, names=names)
    )
    found = _parsed(trace.read_text(errors="replace"), folder, all_threads=True)
    trace.unlink()
    return ran, [each for each in found if each.name in SYNCS]


def traced(*options: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """The words before those of a command."""
    return ("strace", "-f", "-qq", *options, "-e", f"trace={','.join(names)}")


def _parsed(text: str, folder: Path, *, all_threads: bool = False) -> list[Call]:
    found, numbers, main = [], Counter[str](), ""
    for thread, name, arguments in _CALL.findall(text):
        main = main or thread
        if thread != main and not all_threads:
            continue
        numbers[name] += 1
        plain = _HERE.sub("", arguments)
        if str(folder) in plain or (name not in _DESCRIPTORS and _RELATIVE.search(plain)):
            found.append(Call(name, numbers[name], plain))
    return found
