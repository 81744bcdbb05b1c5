"""`ckpt ls`."""

import click

from ckpt.cli.options import Session
from ckpt.cli.options import command as ckpt_command
from ckpt.show.versions import versions_data, versions_text


@ckpt_command(examples="ckpt ls\nckpt ls mnist-cnn --json")
@click.argument("model", required=False)
def command(session: Session, model: str | None) -> None:
    """List the versions in the registry, newest first."""
    versions = session.registry.versions(model)
    index = session.registry.index()
    if not versions:
        session.terminal.remark(
            f"no versions in {session.registry.folder}: "
            "ckpt register FILE  or  ckpt train --register  makes the first"
        )
    if versions or session.as_json:
        session.show(
            lambda: versions_text(versions, index, width=session.terminal.width),
            lambda: versions_data(versions, index),
        )
