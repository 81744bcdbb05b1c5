"""`ckpt rm`."""

import sys

import click

from ckpt.cli.options import Session, ckpt_command, why_option, yes_option
from ckpt.cli.options.completed import VERSION
from ckpt.errors import UsageError
from ckpt.ops.rm import rm
from ckpt.show.rm import removed_data, removed_text


@ckpt_command(
    examples="ckpt rm v3\nckpt rm mnist-cnn:v2 mnist-cnn:v3 --yes\nckpt rm v3 -m 'wrong labels'",
    writes=True,
)
@click.argument("refs", type=VERSION, nargs=-1, required=True, metavar="REF...")
@why_option
@yes_option
def command(session: Session, refs: tuple[str, ...], message: str, yes: bool) -> None:
    """Remove versions from the registry; `ckpt restore` brings them back.

    Their data stays in the store until `ckpt gc` deletes it, and their numbers are never reused.
    A version that an alias points to is not removed.
    """
    found = [session.registry.version(ref) for ref in refs]
    names = ", ".join(version.ref for version in found)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"not removed: {names}", hint="--yes  removes without a prompt")
        session.confirm(f"remove {names}?")
    session.show(
        rm([version.ref for version in found], message=message, registry=session.registry),
        removed_text,
        removed_data,
    )
