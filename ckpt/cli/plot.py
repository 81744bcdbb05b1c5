"""`ckpt plot`."""

from functools import partial
from pathlib import Path

import click

from ckpt.cli.options import PATH, Session, ckpt_command
from ckpt.cli.options.completed import VERSION
from ckpt.cli.options.picture import picture_form
from ckpt.io.files import write_whole
from ckpt.ops.plot import plot
from ckpt.show.look.words import printable
from ckpt.show.plot import curves_data, curves_text, picture


@ckpt_command(examples="ckpt plot v1\nckpt plot v1 v3 -o curves.svg\nckpt plot run.jsonl")
@click.argument("refs", type=VERSION, nargs=-1, required=True, metavar="REF...")
@click.option("-o", "--out", type=PATH, help="Write a picture, .png or .svg.")
@click.option("--lr", "rate", is_flag=True, help="Plot the learning rate too.")
@click.option(
    "--gradient-norm",
    "norm",
    is_flag=True,
    help="Plot the norm of the gradient too: the mean of an epoch, before clipping.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
def command(
    session: Session,
    refs: tuple[str, ...],
    out: Path | None,
    rate: bool,
    norm: bool,
    force: bool,
) -> None:
    """Plot curves by epoch, of versions or of files that --metrics wrote.

    Loss and accuracy are measured on the training images during the epoch, with dropout, and on the
    hold-out after it. The score on the test images is that of the weights that were kept. A renamed
    version has the curves of the version that was trained. Curves of other loops come from
    ckpt.register(…, curves=…) in Python.
    """
    form = None if out is None else picture_form(out, replace=force)
    also = [name for name, asked in (("lr", rate), ("gradient_norm", norm)) if asked]
    several = [plot(ref, registry=session.registry) for ref in refs]
    if out is None or form is None:
        session.show(several, partial(curves_text, also=also), curves_data)
        return
    drawn = picture(several, form, also=also)
    with write_whole(out, replace=force) as file:
        file.write(drawn)
    session.show(
        several,
        lambda _: f"wrote {printable(str(out))}",
        lambda several: {**curves_data(several), "path": str(out)},
    )
