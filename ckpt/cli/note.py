"""`ckpt note`."""

import click

from ckpt.cli.options import Session, ckpt_command
from ckpt.cli.options.completed import VERSION
from ckpt.ops.note import note
from ckpt.show.note import noted_data, noted_text


@ckpt_command(examples="ckpt note v3 -m 'fails on rotated images'", writes=True)
@click.argument("ref", type=VERSION)
@click.option("-m", "--message", required=True, help="The note.")
def command(session: Session, ref: str, message: str) -> None:
    """Add a note to a version; `ckpt show` and `ckpt log` show it with its author and date.

    The version itself never changes, and notes are never overwritten.
    """
    session.show(note(ref, message, registry=session.registry), noted_text, noted_data)
