"""`ckpt undo`."""

from functools import partial

import click

from ckpt.cli.options import Session, ckpt_command, why_option
from ckpt.errors import UsageError
from ckpt.ops.undo import history, undo
from ckpt.show.undo import history_data, history_text, undone_data, undone_text


@ckpt_command(
    examples="ckpt undo\nckpt undo --list\nckpt undo 5f0c21d7 -m 'wrong model'", writes=True
)
@click.argument("entry", required=False)
@click.option("--list", "listed", is_flag=True, help="List the changes made on this machine.")
@why_option
def command(session: Session, entry: str | None, listed: bool, message: str) -> None:
    """Undo a change to the registry that was made on this machine: the last one, or ENTRY.

    An added version is removed, a removed one is restored, aliases and tags get their old values;
    notes and metrics stay.
    Repeat it to undo earlier changes; `ckpt redo` brings them back. Changes that cannot be undone,
    since `ckpt gc` deleted a version or a value has changed again, are reported and stepped over.

    ENTRY is the beginning of an id that --list prints. Later changes stay as they are.
    """
    if not listed:
        undone = undo(entry, message=message, registry=session.registry)
        session.show(undone, undone_text, undone_data)
        return
    if entry is not None or message:
        raise UsageError("--list takes no ENTRY and no message")
    text = partial(history_text, width=session.terminal.width)
    session.show(history(registry=session.registry), text, history_data)
