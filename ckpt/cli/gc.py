"""`ckpt gc`."""

import re
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import click

from ckpt.cli.options import PATH, Session, ckpt_command, yes_option
from ckpt.errors import UsageError
from ckpt.ops.gc import GRACE, gc, gc_files, gc_remote
from ckpt.registry.needs.needed import KEEP_REFLOG, KEEP_REMOVED
from ckpt.show.gc import garbage_data, garbage_text, leftovers_data, leftovers_text

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _duration(
    _context: click.Context, _option: click.Parameter, text: str | None
) -> timedelta | None:
    """``90s``, ``15m``, ``1h``, ``30d``, or ``0``."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,6})([smhd])|0", text)
    if not found:
        raise click.BadParameter(f"{text!r} is not a duration such as 15m, 1h, 30d or 0")
    return timedelta(**{_UNITS[found[2]]: int(found[1])}) if found[1] else timedelta()


def _time(default: timedelta, text: str) -> dict[str, Any]:
    """The parameters of an option that is a duration."""
    hours, days = default // timedelta(hours=1), default // timedelta(days=1)
    said = f"{days}d" if days else f"{hours}h"
    help_text = f"{text} (default: {said})."
    return {"metavar": "TIME", "callback": _duration, "default": said, "help": help_text}


@ckpt_command(
    examples="ckpt gc\nckpt gc --yes\nckpt gc --keep-removed 0 --grace 0 --yes\n"
    "ckpt gc --files runs/ --yes\nckpt gc --remote origin",
    writes=True,
)
@click.option(
    "--keep-removed", **_time(KEEP_REMOVED, "How long removed versions can still be restored")
)
@click.option(
    "--keep-reflog",
    **_time(KEEP_REFLOG, "How long to keep versions that only the local log names"),
)
@click.option(
    "--grace",
    metavar="TIME",
    callback=_duration,
    help="Keep what is younger than this (default: 1h; on a remote, 1d).",
)
@click.option(
    "--remote", metavar="NAME", help="Remove what no version of this remote needs, there."
)
@click.option(
    "--files",
    type=PATH,
    metavar="FOLDER",
    help="Look for leftovers of interrupted writes in this folder of files instead.",
)
@click.option(
    "--local",
    is_flag=True,
    help="Remember that no other machine can write to this disk, whatever its file system.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and stop.")
@yes_option
def command(
    session: Session,
    keep_removed: timedelta,
    keep_reflog: timedelta,
    grace: timedelta | None,
    remote: str | None,
    files: Path | None,
    local: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Remove unreferenced objects and leftovers of interrupted writes.

    Shows them first. Removes nothing while a version is being written, nor if the index or a
    manifest cannot be read, nor where locks may not hold for other machines. Numbers of versions
    are never reused.
    """
    if remote is not None and (local or files is not None):
        other = "--local" if local else f"--files {files}"
        raise UsageError(
            f"--remote and {other.split()[0]} exclude each other",
            hint=f"ckpt gc --remote {remote}\nckpt gc {other}",
        )
    if files is not None:
        removes = yes and not dry_run
        left = gc_files(files, dry_run=not removes)
        session.show(
            left,
            partial(leftovers_text, removed=removes),
            partial(leftovers_data, removed=removes),
        )
        return
    collect = partial(gc, keep_reflog=keep_reflog, local=local and not dry_run, grace=GRACE)
    if remote is not None:
        collect = partial(gc_remote, remote)
    collect = partial(collect, keep_removed=keep_removed, registry=session.registry)
    collect = collect if grace is None else partial(collect, grace=grace)
    if not yes:
        found = collect(dry_run=True)
        session.show(found, garbage_text, garbage_data)
        if dry_run or found.is_empty or session.as_json:
            return
        if not sys.stdin.isatty():
            session.terminal.remark("to remove this, run the same command with --yes")
            return
        session.confirm("remove this?")
    session.show(collect(), garbage_text, garbage_data)
