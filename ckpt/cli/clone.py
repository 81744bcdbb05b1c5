"""`ckpt clone`."""

from pathlib import Path

import click

from ckpt.cli.options import PATH, Session, ckpt_command
from ckpt.ops.clone import clone
from ckpt.show.clone import cloned_data, cloned_text
from ckpt.show.look.progress import progress_bar


@ckpt_command(examples="ckpt clone s3://team-models/registry\nckpt clone /srv/models models --all")
@click.argument("url")
@click.argument("folder", required=False, type=PATH)
@click.option("--all", "every", is_flag=True, help="Get the tensors of all versions, too.")
def command(session: Session, url: str, folder: Path | None, every: bool) -> None:
    """Create a registry in a new FOLDER from the one at URL, which becomes its remote origin.

    It has all versions, without their tensors: commands fetch what they need. The default folder is
    called like the last part of the URL.
    """
    with progress_bar(session.terminal, "cloning") as told:
        cloned = clone(url, folder, every=every, told=told)
    session.show(cloned, cloned_text, cloned_data)
