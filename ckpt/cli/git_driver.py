"""`ckpt git-driver`."""

from pathlib import Path

import click

from ckpt.cli.options import PATH, Session, ckpt_command
from ckpt.errors import ConflictError
from ckpt.ops import git_driver
from ckpt.ops.git_driver.as_text import as_text
from ckpt.registry.merge import Merged
from ckpt.registry.places import FILE_NAME
from ckpt.show.git_driver import (
    conflict_line,
    installed_data,
    installed_text,
    merged_data,
    merged_lines,
)


@click.group()
def command() -> None:
    """Set up git to merge registry.json and to show checkpoints as text.

    A merge keeps the versions of both branches. If both use a number, the version that was pushed
    keeps it, else the older one. Aliases that both branches moved are conflicts.
    """


@ckpt_command(
    examples="ckpt git-driver install\nckpt git-driver install --lfs\n"
    "ckpt git-driver install --store /data/objects"
)
@click.option(
    "--lfs",
    is_flag=True,
    help="Let Git LFS store the objects: git keeps pointers, and a clone fetches what it needs.",
)
@click.option(
    "--store",
    type=PATH,
    metavar="FOLDER",
    help="Keep the objects in this folder outside of git, which several registries can share.",
)
def install(session: Session, lfs: bool, store: Path | None) -> None:
    """Configure git in this clone; run it once in every clone."""
    installed = git_driver.install(lfs=lfs, store=store, registry=session.registry)
    session.show(installed, installed_text, installed_data)


@ckpt_command(examples="ckpt git-driver merge %O %A %B %P")
@click.argument("base", type=PATH)
@click.argument("ours", type=PATH)
@click.argument("theirs", type=PATH)
@click.argument("path", type=PATH, default=FILE_NAME)
def merge(session: Session, base: Path, ours: Path, theirs: Path, path: Path) -> None:
    """Merge three files of registry.json into OURS (git calls this).

    BASE is the common ancestor and may be empty; PATH is the file's place in the work tree.
    Conflicts are marked in the file and reported, and the exit code is 6.
    """
    _report(session, git_driver.merge(base, ours, theirs, path), decided=False)


@ckpt_command(examples="ckpt git-driver resolve\nckpt git-driver resolve --theirs")
@click.option("--ours", "side", flag_value="ours", help="Take our side of conflicts.")
@click.option("--theirs", "side", flag_value="theirs", help="Take their side of conflicts.")
def resolve(session: Session, side: str | None) -> None:
    """Merge a registry.json with conflict markers again.

    It keeps the versions of both branches, whichever side is taken. If conflicts remain, the exit
    code is 6. In a rebase, ours is the upstream branch. Run  git add registry.json  after it.
    """
    take_theirs = None if side is None else side == "theirs"
    result = git_driver.resolve(take_theirs=take_theirs, registry=session.registry)
    _report(session, result, decided=side is not None)


def _report(session: Session, merged: Merged, *, decided: bool) -> None:
    for line in merged_lines(merged):
        session.terminal.remark(line)
    if not decided:
        for conflict in merged.conflicts:
            session.terminal.error(conflict_line(conflict))
    if session.as_json:
        session.terminal.data(merged_data(merged))
    if merged.conflicts and not decided:
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
command.add_command(resolve)
