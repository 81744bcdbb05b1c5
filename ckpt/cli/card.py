"""`ckpt card`."""

from pathlib import Path

import click

from ckpt.cli.options import PATH, Session, ckpt_command
from ckpt.cli.options.completed import VERSION
from ckpt.io.files import write_whole
from ckpt.ops.card import card
from ckpt.show.card import card_data, card_text
from ckpt.show.look.words import printable


@ckpt_command(examples="ckpt card v1\nckpt card mnist-cnn@prod --license apache-2.0 -o README.md")
@click.argument("ref", type=VERSION)
@click.option("-o", "--out", type=PATH, help="Write the card to this file.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--license", metavar="ID", help="The license, such as apache-2.0 or mit.")
@click.option(
    "--task",
    metavar="TYPE",
    help="What the model is for, such as text-generation (default: image-classification for "
    "versions that ckpt train made, else other).",
)
def command(
    session: Session, ref: str, out: Path | None, force: bool, license: str | None, task: str | None
) -> None:
    """Print a model card in Markdown, with the YAML that Hugging Face and other hubs read.

    It tells the metrics, the training and its data, the lineage, and how to load the version.
    """
    found = card(ref, license=license, task=task, registry=session.registry)
    if out is None:
        session.show(found, lambda found: card_text(found).rstrip("\n"), card_data, verbatim=True)
        return
    with write_whole(out, replace=force) as file:
        file.write(card_text(found).encode())
    session.show(
        found,
        lambda _: f"wrote {printable(str(out))}",
        lambda found: {**card_data(found), "path": str(out)},
    )
