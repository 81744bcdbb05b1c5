"""`ckpt show`."""

import click

from ckpt.cli.options import Session
from ckpt.cli.options import command as ckpt_command
from ckpt.ops.show import show
from ckpt.show.checkpoint import shown_data, shown_text


@ckpt_command(
    examples="ckpt show v1\nckpt show old.pt\nckpt show run7.pt::model --json\n"
    "ckpt show models/mnist_cnn.py:Net"
)
@click.argument("ref")
def command(session: Session, ref: str) -> None:
    """Show the tensors and the record of a version, file or definition.

    Of a file only the header is read, and nothing in it is ever executed.
    """
    shown = show(ref, registry=session.registry)
    session.show(lambda: shown_text(shown, width=session.terminal.width), lambda: shown_data(shown))
