"""`ckpt git-driver`."""

from pathlib import Path

import click

from ckpt.cli.options import PATH, Session, ckpt_command
from ckpt.errors import ConflictError
from ckpt.ops import git_driver
from ckpt.ops.git_driver.as_text import as_text
from ckpt.show.git_driver import (
    conflict_line,
    installed_data,
    installed_text,
    merged_data,
    merged_lines,
)


@click.group(no_args_is_help=False)
def command() -> None:
    """Set up git to merge registry.json and to show checkpoints as text.

    A merge keeps the versions of both branches; if both use a number, theirs gets the next free
    one. Aliases that both branches moved are reported as conflicts.
    """


@ckpt_command(examples="ckpt git-driver install")
def install(session: Session) -> None:
    """Configure git in this clone; run it once in every clone."""
    session.show(git_driver.install(registry=session.registry), installed_text, installed_data)


@ckpt_command(examples="ckpt git-driver merge %O %A %B")
@click.argument("base", type=PATH)
@click.argument("ours", type=PATH)
@click.argument("theirs", type=PATH)
def merge(session: Session, base: Path, ours: Path, theirs: Path) -> None:
    """Merge three files of registry.json into OURS (git calls this).

    BASE is the common ancestor and may be empty. Conflicts are reported, and the exit code is 6.
    """
    merged = git_driver.merge(base, ours, theirs)
    for line in merged_lines(merged):
        session.terminal.remark(line)
    for conflict in merged.conflicts:
        session.terminal.error(conflict_line(conflict))
    if session.as_json:
        session.terminal.data(merged_data(merged))
    if merged.conflicts:
        click.get_current_context().exit(ConflictError.exit_code)


@ckpt_command(examples="ckpt git-driver text net.pt")
@click.argument("file", type=PATH)
def text(session: Session, file: Path) -> None:
    """Print a checkpoint or registry.json as text (git calls this).

    There is one line for each tensor or version. Other files print a note instead of failing,
    since git would show nothing then.
    """
    lines = list(as_text(file))
    if session.as_json:
        session.terminal.data(lines)
    else:
        session.terminal.lines(lines)


command.add_command(install)
command.add_command(text)
command.add_command(merge)
