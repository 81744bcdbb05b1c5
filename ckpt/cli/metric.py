"""`ckpt metric`."""

import click

from ckpt.cli.options import Session, ckpt_command, metric_values
from ckpt.cli.options.completed import VERSION
from ckpt.ops.metric import metric
from ckpt.show.metric import measured_data, measured_text


@ckpt_command(
    examples="ckpt metric v3 accuracy=0.992 loss=0.027\n"
    "ckpt metric mnist-cnn@prod robustness=0.71 -m 'rotated by 10 degrees'",
    writes=True,
)
@click.argument("ref", type=VERSION)
@click.argument("values", nargs=-1, required=True, metavar="NAME=NUMBER...", callback=metric_values)
@click.option("-m", "--message", default="", help="How or why it was measured.")
def command(session: Session, ref: str, values: dict[str, float], message: str) -> None:
    """Add metrics to a version, with their author and date.

    `ckpt ls` and `ckpt show` have the newest value of each; `ckpt log` lists all.
    """
    measured = metric(ref, values, message=message, registry=session.registry)
    session.show(measured, measured_text, measured_data)
