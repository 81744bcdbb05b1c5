"""`ckpt diff`."""

import click

from ckpt.cli.options import Session
from ckpt.cli.options import command as ckpt_command
from ckpt.ops.diff import diff
from ckpt.show.difference import comparison_data, comparison_text


@ckpt_command(
    examples="ckpt diff v1 v2\nckpt diff old.pt models/mnist_embed.py:Net\n"
    "ckpt diff v1 new.safetensors --exit-code"
)
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option(
    "--values/--keys",
    default=None,
    help="Read the values of files, or their headers alone. Without either, values are read "
    "where that is little (256 MB). Versions are compared by digest at no cost.",
)
@click.option(
    "--records",
    is_flag=True,
    help="Show as well what is recorded differently: training, metrics, data, environment, and "
    "what files hold besides tensors.",
)
@click.option(
    "--exit-code", is_flag=True, help="Exit with 1 if anything differs; reads values unless --keys."
)
def command(
    session: Session,
    before: str,
    after: str,
    values: bool | None,
    records: bool,
    exit_code: bool,
) -> None:
    """Show what differs from A to B: two versions, files or definitions.

    Keys added, removed, renamed (the same bytes under another key), reshaped, re-typed and
    changed. With a definition on one side: whether the other fits it, strictly.
    """
    if exit_code and values is None:
        values = True
    comparison = diff(before, after, registry=session.registry, values=values)
    session.show(
        lambda: comparison_text(comparison, width=session.terminal.width, records=records),
        lambda: comparison_data(comparison),
    )
    if exit_code and comparison.differs:
        click.get_current_context().exit(1)
