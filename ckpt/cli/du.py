"""`ckpt du`."""

import click

from ckpt.cli.options import Session, ckpt_command
from ckpt.cli.options.completed import MODEL
from ckpt.ops.du import du
from ckpt.show.du import usage_data, usage_text


@ckpt_command(examples="ckpt du\nckpt du mnist-cnn --json", reads=True)
@click.argument("model", type=MODEL, required=False)
def command(session: Session, model: str | None) -> None:
    """Show the disk usage of each version.

    "in the store" counts the tensors and the manifest that a version needs, "alone" the part of
    them that no other version needs. "here" is shown if something of it is not on this disk, after
    `ckpt evict` or `ckpt clone`: the part that is.
    """
    session.show(du(model, registry=session.registry), usage_text, usage_data)
