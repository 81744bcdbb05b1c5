"""`ckpt fetch`."""

import click

from ckpt.cli.options import Session, ckpt_command
from ckpt.ops.fetch import fetch
from ckpt.remote.merging import Side
from ckpt.show.fetch import fetched_data, fetched_text


@ckpt_command(examples="ckpt fetch\nckpt fetch origin --theirs", writes=True)
@click.argument("remote", required=False)
@click.option("--ours", "side", flag_value="ours", help="Keep our side of conflicts.")
@click.option("--theirs", "side", flag_value="theirs", help="Take the remote's side of conflicts.")
def command(session: Session, remote: str | None, side: Side | None) -> None:
    """Get the versions of a remote without their tensors.

    They can be listed, shown, compared by key and renamed. Commands that read tensors fetch these
    then. An alias that was moved here and on the remote is a conflict; the exit code is 6.
    """
    fetched = fetch(remote, side=side, registry=session.registry)
    session.show(fetched, fetched_text, fetched_data)
