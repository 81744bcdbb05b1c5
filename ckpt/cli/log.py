"""`ckpt log`."""

from functools import partial

import click

from ckpt.cli.options import Session, ckpt_command
from ckpt.cli.options.completed import VERSION
from ckpt.ops.log import log, touches
from ckpt.show.log import log_data, log_text, touches_data, touches_text

_KEYS = "ckpt.keys"


class _WithKeys(click.Command):
    """A command that takes keys after ``--``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the words after ``--`` as keys, and parse the others."""
        at = args.index("--") if "--" in args else len(args)
        ctx.meta[_KEYS] = args[at + 1 :]
        return super().parse_args(ctx, args[:at])


@ckpt_command(
    examples="ckpt log\nckpt log v2\nckpt log mnist-cnn@prod --json\nckpt log v2 -- fc1.weight",
    kind=_WithKeys,
    reads=True,
)
@click.argument("ref", type=VERSION, required=False, metavar="[REF] [-- KEY...]")
def command(session: Session, ref: str | None) -> None:
    """Show the history of a version: its parent, the parent of that, and so on.

    With keys or modules after --, show which versions added, changed or renamed their tensors.
    REF defaults to the latest version of the only model.
    """
    keys = click.get_current_context().meta[_KEYS]
    if keys:
        history = touches(keys, ref, registry=session.registry)
        session.show(history, partial(touches_text, width=session.terminal.width), touches_data)
        return
    session.show(log(ref, registry=session.registry), log_text, log_data)
