"""`ckpt repair`."""

from pathlib import Path

import click

from ckpt.cli.options import Session
from ckpt.cli.options import command as ckpt_command
from ckpt.ops.repair import repair
from ckpt.show.repair import repaired_data, repaired_text


@ckpt_command(examples="ckpt repair model.safetensors")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
def command(session: Session, path: Path) -> None:
    """Restore a file whose in-place rename was interrupted.

    The journal beside the file holds the header from before the rename. It is used only if it
    belongs to the file and to its owner. Other commands never change such a file; they refuse it.
    """
    repaired = repair(path)
    session.show(lambda: repaired_text(repaired), lambda: repaired_data(repaired))
