"""The remotes of a registry, as text and as JSON."""

from collections.abc import Sequence
from typing import Any

from ckpt.ops.remote import RemoteChecked
from ckpt.remote.remotes import Remote
from ckpt.show.look.fields import fields
from ckpt.show.look.terminal import table
from ckpt.show.look.words import count, printable

_MOST = 20  # lines; --json has all


def added_text(remote: Remote) -> str:
    """The remote, and the next command."""
    lines = [f"added {remote.name}: {printable(remote.url)}, {_kept_by(remote)}"]
    lines += [f"  it ignores: {condition}" for condition in remote.unsafe]
    return "\n".join([*lines, "to add the versions here to it:  ckpt push"])


def in_git_text(steps: Sequence[str]) -> str:
    """That git takes objects as well as a remote, and the commands after which it takes none."""
    said = "git takes the objects, too; to keep them out of it, once they are pushed:"
    return "\n".join([said, *(f"  {step}" for step in steps)])


def removed_text(remote: Remote) -> str:
    """The remote that was removed."""
    return f"removed {remote.name}: {printable(remote.url)}; what it holds stays there"


def remotes_text(remotes: Sequence[Remote]) -> str:
    """A table, or how to add one."""
    if not remotes:
        return "no remotes; add one:  ckpt remote add origin URL"
    rows = [[each.name, printable(each.url), each.index, *_doubts(each)] for each in remotes]
    return table(rows, ["remote", "URL", "index by", "ignores"])


def checked_text(checked: RemoteChecked) -> str:
    """The verdict, and what is missing."""
    versions = count(checked.versions, "version")
    if not checked.missing:
        return f"{checked.remote} has everything of {versions}"
    lines = [f"{printable(ref)}: {printable(what)}" for ref, what in checked.missing[:_MOST]]
    if len(checked.missing) > _MOST:
        lines.append(f"and {len(checked.missing) - _MOST:,} more")
    refs = " ".join(dict.fromkeys(ref for ref, _ in checked.missing))
    lines.append(f"{checked.remote} lacks {len(checked.missing):,} of what {versions} need")
    return "\n".join([*lines, f"to send it:  ckpt push {printable(refs)}"])


def remote_data(remote: Remote) -> dict[str, Any]:
    """A remote for JSON."""
    return {**fields(remote, "name", "url", "index"), "ignores": list(remote.unsafe)}


def remotes_data(remotes: Sequence[Remote]) -> list[dict[str, Any]]:
    """All remotes for JSON."""
    return [remote_data(remote) for remote in remotes]


def checked_data(checked: RemoteChecked) -> dict[str, Any]:
    """The verdict for JSON."""
    missing = [{"version": ref, "what": what} for ref, what in checked.missing]
    return {**fields(checked, "remote", "versions"), "missing": missing}


def _kept_by(remote: Remote) -> str:
    return "with the index" if remote.index == "bucket" else "whose index git keeps"


def _doubts(remote: Remote) -> list[str]:
    return [", ".join(remote.unsafe)]
