"""`ckpt registry`."""

import click

from ckpt.cli.options import Session, ckpt_command
from ckpt.ops.registry import init_registry
from ckpt.show.registry import initialised_data, initialised_text


@click.group()
def command() -> None:
    """Create a registry before its first version, or share one with a group."""


@ckpt_command(
    examples="ckpt registry init\nckpt registry init --registry /srv/models --shared group",
    writes=True,
)
@click.option(
    "--shared",
    type=click.Choice(["group"]),
    help="Let the folder's group read and write everything, now and later, whatever the umask.",
)
def init(session: Session, shared: str | None) -> None:
    """Create an empty registry in this folder, unless there is one already, here or above.

    The first `ckpt register` does that, too. A registry in a folder that is writable for its group
    and has the setgid bit (chmod g+ws) is shared from its start.
    """
    done = init_registry(shared=shared is not None, registry=session.registry)
    session.show(done, initialised_text, initialised_data)


command.add_command(init)
