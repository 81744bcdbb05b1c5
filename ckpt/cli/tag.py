"""`ckpt tag`."""

import click

from ckpt.cli.options import Session
from ckpt.cli.options import command as ckpt_command
from ckpt.ops.tag import tag
from ckpt.show.tag import tags_data, tags_text


@ckpt_command(
    examples="ckpt tag v3 golden mnist\nckpt tag mnist-cnn:v3\nckpt tag v3 -d golden", writes=True
)
@click.argument("ref")
@click.argument("names", nargs=-1, metavar="[TAG]...")
@click.option("-d", "--delete", is_flag=True, help="Remove the tags.")
def command(session: Session, ref: str, names: tuple[str, ...], delete: bool) -> None:
    """Add tags to a version, or show its tags.

    Several versions may have the same tag; `ckpt ls --where tag=golden` lists them.
    """
    version, found = tag(ref, names, present=not delete, registry=session.registry)
    session.show(lambda: tags_text(version, found), lambda: tags_data(version, found))
