"""`ckpt pin`."""

import click

from ckpt.cli.options import Session, ckpt_command
from ckpt.cli.options.completed import VERSION
from ckpt.ops.pin import pin
from ckpt.show.pin import pinned_data, pinned_text


@ckpt_command(examples="ckpt pin mnist-cnn@prod\nckpt export $(ckpt pin v3) -o net.pt")
@click.argument("ref", type=VERSION)
def command(session: Session, ref: str) -> None:
    """Print the digest of a version: a ref for configs that never changes its meaning.

    An alias can move, and a number can change in a merge before it is pushed.
    """
    session.show(pin(ref, registry=session.registry), pinned_text, pinned_data)
