"""`ckpt git-driver`."""

from pathlib import Path

import click

from ckpt.cli.options import Session
from ckpt.cli.options import command as ckpt_command
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
    """Have git merge registry.json as versions, aliases and tags, and show weights as text.

    Two branches that both registered have all versions afterwards: of two with one number, theirs
    gets the next free one. What both moved to different places is left to you.
    """


@ckpt_command(examples="ckpt git-driver install")
def install(session: Session) -> None:
    """Tell git, in this clone; each clone needs it once."""
    installed = git_driver.install(registry=session.registry)
    session.show(lambda: installed_text(installed), lambda: installed_data(installed))


@ckpt_command(examples="ckpt git-driver merge %O %A %B")
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("ours", type=click.Path(path_type=Path))
@click.argument("theirs", type=click.Path(path_type=Path))
def merge(session: Session, base: Path, ours: Path, theirs: Path) -> None:
    """What git calls.

    Joins three files into OURS, and exits with 6 if there are conflicts. BASE may be empty.
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
@click.argument("file", type=click.Path(path_type=Path))
def text(session: Session, file: Path) -> None:
    """What git compares of a checkpoint or of registry.json: a line for each tensor or version.

    What is neither is said, and is no error: git would show nothing at all.
    """
    session.show(lambda: "\n".join(as_text(file)), lambda: list(as_text(file)))


command.add_command(install)
command.add_command(text)
command.add_command(merge)
