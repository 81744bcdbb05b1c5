"""`ckpt alias`."""

from functools import partial

import click

from ckpt.cli.options import Session, ckpt_command, why_option
from ckpt.cli.options.completed import ALIAS, VERSION
from ckpt.errors import UsageError
from ckpt.ops.alias import alias, alias_history, aliases
from ckpt.show.alias import (
    alias_data,
    alias_text,
    aliases_data,
    aliases_text,
    history_data,
    history_text,
)


@ckpt_command(
    examples="ckpt alias\n"
    "ckpt alias prod\n"
    "ckpt alias prod v3\n"
    "ckpt alias prod mnist-cnn:v3 --expect v2\n"
    "ckpt alias prod v3 --if 'accuracy >= prod.accuracy'\n"
    "ckpt alias prod v3 --protect\n"
    "ckpt alias prod v3 -m 'better on the new test set'\n"
    "ckpt alias prod --log\n"
    "ckpt alias -d staging",
    writes=True,
)
@click.argument("name", type=ALIAS, required=False)
@click.argument("ref", type=VERSION, required=False)
@click.option(
    "--expect",
    metavar="VERSION|none",
    help="Move it only if it points to this version now; else exit with 6.",
)
@click.option(
    "--if",
    "condition",
    metavar="CONDITION",
    help="Move it only if the version meets this, as in ckpt ls --where; else exit with 3.",
)
@click.option(
    "--protect/--unprotect",
    default=None,
    help="Require --expect to move it from now on, or not.",
)
@click.option("-d", "--delete", is_flag=True, help="Delete the alias; its version stays.")
@why_option
@click.option(
    "--log", "logged", is_flag=True, help="Show what it pointed to: when, by whom and why."
)
def command(
    session: Session,
    name: str | None,
    ref: str | None,
    expect: str | None,
    condition: str | None,
    protect: bool | None,
    delete: bool,
    message: str,
    logged: bool,
) -> None:
    """Point the alias NAME to the version REF; without REF, show it, without NAME, list all.

    An alias can be used in place of a version: `ckpt export mnist-cnn@prod -o prod.pt`. NAME can
    also be written as MODEL@NAME, to delete or protect an alias of one of several models. If it
    points to REF already, nothing is checked or changed.
    """
    changes = ref or expect or condition or delete or message or protect is not None
    if logged:
        if changes:
            raise UsageError("--log takes only a name")
        history = alias_history(name, registry=session.registry)
        session.show(history, partial(history_text, width=session.terminal.width), history_data)
        return
    if not changes:
        found = aliases(name, registry=session.registry)
        if not found:
            session.terminal.remark("no aliases; create one:  ckpt alias prod v1")
        if found or session.as_json:
            session.show(found, aliases_text, aliases_data)
        return
    if name is None:
        raise UsageError("no alias given", hint="ckpt alias NAME REF")
    done = alias(
        name,
        ref,
        expect=expect,
        condition=condition,
        protect=protect,
        delete=delete,
        message=message,
        registry=session.registry,
    )
    session.show(done, alias_text, alias_data)
