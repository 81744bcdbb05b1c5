"""`ckpt gc`."""

import re
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import click

from ckpt.cli.options import PATH, Session, ckpt_command, yes_option
from ckpt.ops.gc import GRACE, gc, gc_files
from ckpt.registry.needs.needed import KEEP_REFLOG, KEEP_REMOVED
from ckpt.show.gc import garbage_data, garbage_text, leftovers_data, leftovers_text

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _duration(_context: click.Context, _option: click.Parameter, text: str) -> timedelta:
    """``90s``, ``15m``, ``1h``, ``30d``, or ``0``."""
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
    "ckpt gc --files runs/ --yes",
    writes=True,
)
@click.option(
    "--keep-removed", **_time(KEEP_REMOVED, "How long removed versions can still be restored")
)
@click.option(
    "--keep-reflog",
    **_time(KEEP_REFLOG, "How long to keep versions that only the local log names"),
)
@click.option("--grace", **_time(GRACE, "Keep files that are younger than this"))
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
    grace: timedelta,
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
    if files is not None:
        removes = yes and not dry_run
        left = gc_files(files, dry_run=not removes)
        session.show(
            left,
            partial(leftovers_text, removed=removes),
            partial(leftovers_data, removed=removes),
        )
        return
    collect = partial(
        gc,
        keep_removed=keep_removed,
        keep_reflog=keep_reflog,
        grace=grace,
        registry=session.registry,
    )
    if not yes:
        found = collect(dry_run=True, local=local and not dry_run)
        session.show(found, garbage_text, garbage_data)
        if dry_run or found.is_empty or session.as_json:
            return
        if not sys.stdin.isatty():
            session.terminal.remark("ckpt gc --yes  removes this")
            return
        session.confirm("remove this?")
    session.show(collect(local=local), garbage_text, garbage_data)
