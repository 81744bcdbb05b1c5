"""`ckpt log`."""

import click

from ckpt.cli.options import Session
from ckpt.cli.options import command as ckpt_command
from ckpt.ops.show import log
from ckpt.show.checkpoint import log_data, log_text


@ckpt_command(examples="ckpt log v2\nckpt log mnist-cnn@prod --json")
@click.argument("ref")
def command(session: Session, ref: str) -> None:
    """Show where a version comes from, step by step back to its beginning."""
    steps = log(ref, registry=session.registry)
    session.show(lambda: log_text(steps), lambda: log_data(steps))
