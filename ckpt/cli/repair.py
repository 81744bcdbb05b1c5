"""`ckpt repair`."""

from pathlib import Path

import click

from ckpt.cli.options import PATH, Session, ckpt_command
from ckpt.ops.repair import repair
from ckpt.show.repair import repaired_data, repaired_text


@ckpt_command(examples="ckpt repair model.safetensors")
@click.argument("path", metavar="FILE", type=PATH)
def command(session: Session, path: Path) -> None:
    """Restore a file whose in-place rename was interrupted.

    The journal beside the file holds the header from before the rename. It is used only if it
    belongs to the file and to its owner. Other commands never change such a file; they refuse it.
    """
    session.show(repair(path), repaired_text, repaired_data)
