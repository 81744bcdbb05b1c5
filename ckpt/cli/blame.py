"""`ckpt blame`."""

from functools import partial

import click

from ckpt.cli.options import Session, ckpt_command
from ckpt.cli.options.completed import KEY, VERSION
from ckpt.ops.blame import blame
from ckpt.show.blame import blame_data, blame_text


@ckpt_command(examples="ckpt blame conv1.weight\nckpt blame fc1 mnist-cnn@prod", reads=True)
@click.argument("key", type=KEY)
@click.argument("ref", type=VERSION, required=False)
def command(session: Session, key: str, ref: str | None) -> None:
    """Show which version last changed a tensor of REF (default: the latest version).

    KEY is a key, or a module for all its tensors. Tensors are followed through renames; only
    manifests are read.
    """
    found = blame(key, ref, registry=session.registry)
    session.show(found, partial(blame_text, width=session.terminal.width), blame_data)
