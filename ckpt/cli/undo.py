"""`ckpt undo`."""

import click

from ckpt.cli.options import Session
from ckpt.cli.options import command as ckpt_command
from ckpt.ops.undo import done, undo
from ckpt.show.undo import entry_data, entry_text, history_text


@ckpt_command(examples="ckpt undo\nckpt undo --list", writes=True)
@click.option("--list", "listed", is_flag=True, help="Show what was done here, and do nothing.")
def command(session: Session, listed: bool) -> None:
    """Take back the last thing that was done to the registry on this machine.

    A version that was added is removed, one that was removed comes back, aliases and tags stand as
    they stood. Typed again, it goes one step further back. What was changed since is left alone.
    """
    if listed:
        entries = done(registry=session.registry)
        session.show(
            lambda: history_text(entries),
            lambda: [entry_data(entry, undone=undone) for entry, undone in entries],
        )
        return
    entry = undo(registry=session.registry)
    session.show(lambda: entry_text(entry), lambda: entry_data(entry, undone=True))
