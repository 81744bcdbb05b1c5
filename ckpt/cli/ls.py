"""`ckpt ls`."""

from functools import partial

import click

from ckpt.cli.options import Session, ckpt_command
from ckpt.ops.ls import ls
from ckpt.show.ls import versions_data, versions_text


@ckpt_command(
    examples="ckpt ls\n"
    "ckpt ls mnist-cnn --json\n"
    "ckpt ls --where 'accuracy>0.99' --sort -accuracy\n"
    "ckpt ls --where tag=golden\n"
    "ckpt ls --where 'accuracy >= prod.accuracy and size < 10MB'"
)
@click.argument("model", required=False)
@click.option(
    "--where",
    multiple=True,
    metavar="CONDITION",
    help="List only versions that match: a metric, size, keys, created, ..., tag or alias, "
    "compared by > >= < <= = != or ~ (a regex), with and, or, not (repeatable; all must match).",
)
@click.option(
    "--sort", metavar="[-]FIELD", help="Sort by this field, ascending; with - descending."
)
def command(session: Session, model: str | None, where: tuple[str, ...], sort: str | None) -> None:
    """List the versions in the registry, newest first."""
    index = session.registry.index()
    every = session.registry.versions(model)
    versions = ls(model, where=where, sort=sort, registry=session.registry)
    if every and not versions:
        session.terminal.remark(f"no version matches, of {len(every):,}")
    if not every:
        session.terminal.remark(
            f"no versions in {session.registry.folder}: "
            "ckpt register FILE  or  ckpt train --register  adds the first"
        )
    if versions or session.as_json:
        text = partial(versions_text, index=index, width=session.terminal.width)
        session.show(versions, text, partial(versions_data, index=index))
