"""`ckpt gc`."""

import re
import sys
from datetime import timedelta
from pathlib import Path

import click

from ckpt.cli.options import Session
from ckpt.cli.options import command as ckpt_command
from ckpt.ops.gc import GRACE, KEEP_REMOVED, Garbage, gc, gc_files
from ckpt.show.gc import garbage_data, garbage_text, leftovers_data, leftovers_text

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Duration(click.ParamType[timedelta]):
    """``90s``, ``15m``, ``1h``, ``30d``, or ``0``."""

    name = "TIME"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """A duration from the text of an option."""
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"(\d{1,6})([smhd])|0", str(value))
        if not found:
            self.fail(f"{value!r} is not a duration such as 15m, 1h, 30d or 0", param, ctx)
        return timedelta(**{_UNITS[found[2]]: int(found[1])}) if found[1] else timedelta()


@ckpt_command(
    examples="ckpt gc\nckpt gc --yes\nckpt gc --keep-removed 0 --grace 0 --yes\n"
    "ckpt gc --files runs/ --yes",
    writes=True,
)
@click.option(
    "--keep-removed",
    type=Duration(),
    default=KEEP_REMOVED,
    help="How long removed versions can still be restored (default: 30d).",
)
@click.option(
    "--grace",
    type=Duration(),
    default=GRACE,
    help="Keep files that are younger than this (default: 1h).",
)
@click.option(
    "--files",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Look for leftovers of interrupted writes in this folder of files instead.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and stop.")
@click.option(
    "--yes", is_flag=True, help="Skip the prompt (required when stdin is not a terminal)."
)
def command(
    session: Session,
    keep_removed: timedelta,
    grace: timedelta,
    files: Path | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Remove unreferenced objects and leftovers of interrupted writes.

    Shows them first. Removes nothing while a version is being written, nor if the index or a
    manifest cannot be read. Numbers of versions are never reused.
    """
    if files is not None:
        removes = yes and not dry_run
        left = gc_files(files, dry_run=not removes)
        session.show(
            lambda: leftovers_text(left, removed=removes),
            lambda: leftovers_data(left, removed=removes),
        )
        return
    if not yes:
        found = gc(keep_removed=keep_removed, grace=grace, dry_run=True, registry=session.registry)
        _show(session, found, keep_removed, grace, removed=False)
        if dry_run or found.is_empty or session.as_json:
            return
        if not sys.stdin.isatty():
            session.terminal.remark("ckpt gc --yes  removes this")
            return
        click.confirm("remove this?", abort=True, err=True)
    collected = gc(keep_removed=keep_removed, grace=grace, registry=session.registry)
    _show(session, collected, keep_removed, grace, removed=True)


def _show(
    session: Session, garbage: Garbage, keep_removed: timedelta, grace: timedelta, *, removed: bool
) -> None:
    session.show(
        lambda: garbage_text(garbage, keep_removed=keep_removed, grace=grace, removed=removed),
        lambda: garbage_data(garbage, removed=removed),
    )
