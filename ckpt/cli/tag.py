"""`ckpt tag`."""

import click

from ckpt.cli.options import Session, ckpt_command, why_option
from ckpt.cli.options.completed import VERSION
from ckpt.ops.tag import tag
from ckpt.show.tag import tags_data, tags_text


@ckpt_command(
    examples="ckpt tag v3 golden mnist\n"
    "ckpt tag mnist-cnn:v3\n"
    "ckpt tag v3 golden -m 'passed the review'\n"
    "ckpt tag v3 -d golden",
    writes=True,
)
@click.argument("ref", type=VERSION)
@click.argument("names", nargs=-1, metavar="[TAG]...")
@click.option("-d", "--delete", is_flag=True, help="Remove the tags.")
@why_option
def command(session: Session, ref: str, names: tuple[str, ...], delete: bool, message: str) -> None:
    """Add tags to a version, or show its tags.

    Several versions may have the same tag; `ckpt ls --where tag=golden` lists them.
    """
    tagged = tag(ref, names, present=not delete, message=message, registry=session.registry)
    session.show(tagged, tags_text, tags_data)
