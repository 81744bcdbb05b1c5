"""Who writes: the author, the machine, and the commit of the work tree around the working folder.

Only commands that write ask git, by at most two short calls. Law: the functions never fail, and
change nothing; their texts are one line, of at most `MOST_CHARACTERS`.
"""

import os
import pwd
from pathlib import Path
from typing import NotRequired, TypedDict

AUTHOR = "CKPT_AUTHOR"  # instead of git's author
MOST_CHARACTERS = 200
# The registry's own files change with every write; they do not make the code another one.
_CODE = (":(top)", ":(exclude,top,glob)**/registry.json", ":(exclude,top,glob)**/.ckpt/**")


class By(TypedDict):
    """Who wrote something.

    Attributes:
        author: ``Ann <ann@example.org>``, as git knows it; else the name of the account.
        host: The name of the machine.
        commit: Of the work tree; missing if there is none.
        dirty: Whether tracked files, without those of the registry, differed from it.
    """

    author: str
    host: str
    commit: NotRequired[str]
    dirty: NotRequired[bool]


def who() -> By:
    """Who writes now."""
    from ckpt.io.git import asked  # which imports subprocess: no reader needs that

    by: By = {"author": _line(_author()), "host": _line(os.uname().nodename)}
    here = _here()
    if not any(os.path.lexists(folder / ".git") for folder in (here, *here.parents)):
        return by
    options = ("--porcelain=v2", "--branch", "--no-ahead-behind", "--untracked-files=no")
    status = asked(here, "status", *options, "--ignore-submodules=dirty", "--", *_CODE)
    commit = (status or "").partition("\n")[0].removeprefix("# branch.oid ")
    if status is None or not commit.isalnum():  # no repository, or one without commits
        return by
    is_dirty = any(not line.startswith("#") for line in status.splitlines())
    return {**by, "commit": commit, "dirty": is_dirty}


def _author() -> str:
    from ckpt.io.git import asked

    if named := os.environ.get(AUTHOR, "").strip():
        return named
    # Only a person that somebody has configured: git would guess one from the host's name.
    ident = asked(_here(), "-c", "user.useConfigOnly=true", "var", "GIT_AUTHOR_IDENT")
    if ident:
        return ident.rsplit(" ", 2)[0]  # without the time and its zone
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # an account without a name, as in a container
        return f"uid {os.geteuid()}"


def _here() -> Path:
    """The working folder; the root if it was deleted."""
    try:
        return Path.cwd()
    except OSError:
        return Path("/")


def _line(text: str) -> str:
    known = text.encode("utf-8", "replace").decode("utf-8")
    return " ".join(known.split())[:MOST_CHARACTERS]
