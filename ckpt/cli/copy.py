"""`ckpt copy`."""

from pathlib import Path

import click

from ckpt.cli.options import PATH, Session, ckpt_command
from ckpt.cli.options.completed import VERSION
from ckpt.ops.copy import copy
from ckpt.registry.places import FILE_NAME
from ckpt.show.copy import copied_data, copied_text
from ckpt.show.look.progress import progress_bar


@ckpt_command(
    examples="ckpt copy v3 ../production\nckpt copy mnist-cnn@prod /shared/models --name digits"
)
@click.argument("ref", type=VERSION)
@click.argument("folder", type=PATH, metavar="REGISTRY")
@click.option("--name", metavar="MODEL", help="The model there (default: the same name).")
def command(session: Session, ref: str, folder: Path, name: str | None) -> None:
    """Copy a version into the registry of another folder, as the next version of its model.

    Every byte is verified on the way. Its digest stays the same, and its notes, metrics and origin
    are recorded there. Copying the same version again copies nothing.
    """
    with progress_bar(session.terminal, f"copying {ref}") as told:
        copied = copy(ref, folder, name=name, registry=session.registry, told=told)
    if copied.created_registry is not None:
        path = copied.created_registry / FILE_NAME
        session.terminal.remark(f"created a registry: {path}")
    session.show(copied, copied_text, copied_data)
