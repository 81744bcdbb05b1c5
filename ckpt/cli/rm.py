"""`ckpt rm`."""

import sys

import click

from ckpt.cli.options import Session
from ckpt.cli.options import command as ckpt_command
from ckpt.errors import UsageError
from ckpt.ops.rm import rm
from ckpt.show.ls import version_data


@ckpt_command(examples="ckpt rm v3\nckpt rm mnist-cnn:v2 mnist-cnn:v3 --yes", writes=True)
@click.argument("refs", nargs=-1, required=True, metavar="REF...")
@click.option(
    "--yes", is_flag=True, help="Skip the prompt (required when stdin is not a terminal)."
)
def command(session: Session, refs: tuple[str, ...], yes: bool) -> None:
    """Remove versions from the registry; `ckpt undo` restores them.

    Their data stays in the store until `ckpt gc` deletes it, and their numbers are never reused.
    A version that an alias points to is not removed.
    """
    found = [session.registry.version(ref) for ref in refs]
    names = ", ".join(version.ref for version in found)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"not removed: {names}", hint="--yes  removes without a prompt")
        session.confirm(f"remove {names}?")
    removed = rm(refs, registry=session.registry)
    session.show(
        lambda: f"removed {names}; ckpt undo  restores what was removed",
        lambda: [version_data(version) for version in removed],
    )
