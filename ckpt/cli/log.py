"""`ckpt log`."""

import click

from ckpt.cli.options import Session
from ckpt.cli.options import command as ckpt_command
from ckpt.errors import UsageError
from ckpt.ops.blame import touches
from ckpt.ops.log import log
from ckpt.show.blame import touches_data, touches_text
from ckpt.show.log import log_data, log_text

_KEYS = "ckpt.keys"


class _WithKeys(click.Command):
    """A command that takes keys after ``--``, where others take words that begin with a dash."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Like click's own."""
        at = args.index("--") if "--" in args else len(args)
        ctx.meta[_KEYS] = args[at + 1 :]
        return super().parse_args(ctx, args[:at])


@ckpt_command(
    examples="ckpt log v2\nckpt log mnist-cnn@prod --json\nckpt log v2 -- fc1.weight",
    kind=_WithKeys,
)
@click.argument("ref", required=False, metavar="[REF] [-- KEY...]")
def command(session: Session, ref: str | None) -> None:
    """Show where a version comes from, step by step back to its beginning.

    After -- come keys, or modules: what was done to their tensors, and by which version. REF may be
    left out then, and the latest version is meant.
    """
    keys = click.get_current_context().meta[_KEYS]
    if keys:
        found = {
            name: each
            for key in keys
            for name, each in touches(key, ref, registry=session.registry).items()
        }
        session.show(
            lambda: touches_text(found, width=session.terminal.width), lambda: touches_data(found)
        )
        return
    if ref is None:
        raise UsageError(
            "log needs a version", hint="e.g.  ckpt log v2  or  ckpt log -- fc1.weight"
        )
    steps = log(ref, registry=session.registry)
    session.show(lambda: log_text(steps), lambda: log_data(steps))
