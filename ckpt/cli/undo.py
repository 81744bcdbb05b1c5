"""`ckpt undo`."""

import click

from ckpt.cli.options import Session, ckpt_command
from ckpt.ops.undo import history, undo
from ckpt.show.undo import entry_data, entry_text, history_data, history_text


@ckpt_command(examples="ckpt undo\nckpt undo --list", writes=True)
@click.option("--list", "listed", is_flag=True, help="List the changes made on this machine.")
def command(session: Session, listed: bool) -> None:
    """Undo the last change to the registry that was made on this machine.

    An added version is removed, a removed one is restored, aliases and tags get their old values.
    Repeat it to undo earlier changes. A value that has changed again since is an error.
    """
    if listed:
        session.show(history(registry=session.registry), history_text, history_data)
    else:
        session.show(undo(registry=session.registry), entry_text, entry_data)
