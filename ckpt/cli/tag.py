"""`ckpt tag`."""

import click

from ckpt.cli.options import Session, ckpt_command
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
    tagged = tag(ref, names, present=not delete, registry=session.registry)
    session.show(tagged, tags_text, tags_data)
