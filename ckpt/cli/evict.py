"""`ckpt evict`."""

import click

from ckpt.cli.options import Session, ckpt_command
from ckpt.cli.options.completed import VERSION
from ckpt.ops.evict import evict
from ckpt.registry.needs.in_git import steps_out_of_git
from ckpt.show.evict import evicted_data, evicted_text, tracked_text


@ckpt_command(examples="ckpt evict v1 v2\nckpt evict v1 --dry-run", writes=True)
@click.argument("refs", nargs=-1, required=True, type=VERSION, metavar="REF...")
@click.option("--remote", metavar="NAME", help="The remote (default: origin, or the only one).")
@click.option("-n", "--dry-run", is_flag=True, help="Only show what would be freed.")
def command(session: Session, refs: tuple[str, ...], remote: str | None, dry_run: bool) -> None:
    """Free the disk space of versions that a remote has; the versions stay.

    Each object is looked up on the remote first, and stays if it is not there in its size, or if
    another version needs it. Commands fetch what they need again.
    """
    evicted = evict(*refs, remote=remote, dry_run=dry_run, registry=session.registry)
    session.show(evicted, evicted_text, evicted_data)
    if evicted.tracked:
        session.terminal.remark(tracked_text(evicted, steps_out_of_git(session.registry)))
