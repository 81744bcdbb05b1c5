"""`ckpt restore`."""

import click

from ckpt.cli.options import Session, ckpt_command, why_option
from ckpt.ops.restore import restore
from ckpt.show.restore import restored_data, restored_text


@ckpt_command(examples="ckpt restore mnist-cnn:v3\nckpt restore sha256:3fa9c1d2", writes=True)
@click.argument("refs", nargs=-1, required=True, metavar="REF...")
@why_option
def command(session: Session, refs: tuple[str, ...], message: str) -> None:
    """Bring removed versions back, under the numbers that they had.

    This works until `ckpt gc` deletes their data. Later changes stay as they are; tags that a
    version had are not restored. A digest also brings back a version that registry.json lost to an
    older one, by `git checkout` for example; it gets the next number if its own is taken.
    """
    restored = restore(refs, message=message, registry=session.registry)
    session.show(restored, restored_text, restored_data)
