"""`ckpt alias`."""

import click

from ckpt.cli.options import Session, ckpt_command
from ckpt.ops.alias import alias, aliases
from ckpt.show.alias import alias_data, alias_text, aliases_data, aliases_text


@ckpt_command(
    examples="ckpt alias\n"
    "ckpt alias prod v3\n"
    "ckpt alias prod mnist-cnn:v3 --expect v2\n"
    "ckpt alias prod v3 --protect\n"
    "ckpt alias -d staging",
    writes=True,
)
@click.argument("name", required=False)
@click.argument("ref", required=False)
@click.option(
    "--expect",
    metavar="VERSION|none",
    help="Move it only if it points to this version now; else exit with 6.",
)
@click.option(
    "--protect/--unprotect",
    default=None,
    help="Require --expect to move it from now on, or not.",
)
@click.option("-d", "--delete", is_flag=True, help="Delete the alias; its version stays.")
def command(
    session: Session,
    name: str | None,
    ref: str | None,
    expect: str | None,
    protect: bool | None,
    delete: bool,
) -> None:
    """Point the alias NAME to the version REF, or list all aliases.

    An alias can be used in place of a version: `ckpt export mnist-cnn@prod -o prod.pt`. NAME can
    also be written as MODEL@NAME, to delete or protect an alias of one of several models.
    """
    if name is None:
        found = aliases(registry=session.registry)
        if not found:
            session.terminal.remark("no aliases: ckpt alias prod v1  creates one")
        if found or session.as_json:
            session.show(found, aliases_text, aliases_data)
        return
    done = alias(
        name, ref, expect=expect, protect=protect, delete=delete, registry=session.registry
    )
    session.show(done, alias_text, alias_data)
