"""The shell trap.

An unquoted `--rule conv->embed` hands over `conv-`, and sends the output into a file
`embed`. It is recognised before anything is read, and answered with what to type.
"""

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from ckpt.errors import UsageError


def expect_whole_rules(source: str, rules: Sequence[str]) -> None:
    """Refuse a rule of which the shell has eaten the end: it ends in ``-`` or ``=``."""
    for rule in rules:
        if "->" in rule or "=>" in rule:
            continue
        if rule.endswith("-") or rule.endswith("="):
            raise _eaten(source, rule)


def _eaten(source: str, rule: str) -> UsageError:
    taken = _file_behind_stdout()
    new = taken.name if taken else "NEW"
    old = rule[:-1]
    missing = "has no arrow" if rule.endswith("-") else "has nothing after the ="
    lines = [
        f"ckpt rename {source} --rule '{old}->{new}'     or, without quotes,  --rule {old}={new}"
    ]
    if taken:
        lines.append(f"the shell made an empty file '{new}' in this folder")
    into = f"the file '{new}'" if taken else "a file"
    return UsageError(
        f"--rule '{rule}' {missing}; an unquoted > sends the output into {into}",
        hint="\n".join(lines),
    )


def _file_behind_stdout() -> Path | None:
    """The file of this folder that stdout goes to, if it goes to one."""
    try:
        status = os.fstat(sys.stdout.fileno())
    except (OSError, ValueError):  # stdout is closed, or no file at all
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    for path in Path().iterdir():
        found = path.lstat()
        if (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino):
            return path
    return None
