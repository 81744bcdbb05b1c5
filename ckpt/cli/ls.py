"""`ckpt ls`."""

from functools import partial

import click

from ckpt.cli.options import Session, ckpt_command
from ckpt.cli.options.completed import MODEL
from ckpt.ops.ls import ls
from ckpt.show.ls import refs_text, versions_data, versions_text


@ckpt_command(
    examples="ckpt ls\n"
    "ckpt ls mnist-cnn --json\n"
    "ckpt ls --where 'accuracy>0.99' --sort -accuracy\n"
    "ckpt ls --where tag=golden -q\n"
    "ckpt ls --columns model,version,accuracy --limit 5\n"
    "ckpt ls --where 'accuracy >= prod.accuracy and size < 10MB'",
    reads=True,
)
@click.argument("model", type=MODEL, required=False)
@click.option(
    "--where",
    multiple=True,
    metavar="CONDITION",
    help="List only versions that match: a metric, size, keys, created, ..., tag or alias, "
    "compared by > >= < <= = != or ~ (a regex), with and, or, not (repeatable; all must match).",
)
@click.option("--limit", type=click.IntRange(min=1), help="List at most so many versions.")
@click.option("--columns", metavar="NAME,NAME", help="Show these columns, in this order.")
@click.option(
    "--sort", metavar="[-]FIELD", help="Sort by this field, ascending; with - descending."
)
def command(
    session: Session,
    model: str | None,
    where: tuple[str, ...],
    limit: int | None,
    columns: str | None,
    sort: str | None,
) -> None:
    """List the versions in the registry, newest first; with -q their refs alone.

    On a narrow terminal columns are left out; --wide shows all, --columns those that you name. A
    pipe gets all columns.
    """
    index = session.registry.index()
    every = session.registry.versions(model)
    versions = ls(model, where=where, sort=sort, registry=session.registry)[:limit]
    if every and not versions:
        session.terminal.remark(f"no version matches, of {len(every):,}")
    if not every:
        session.terminal.remark(
            f"no versions in {session.registry.folder}: "
            "ckpt register FILE  or  ckpt train --register  adds the first"
        )
    if versions or session.as_json:
        named = columns.split(",") if columns else ()
        text = partial(versions_text, index=index, width=session.terminal.width, columns=named)
        as_text = refs_text if session.terminal.quiet else text
        session.show(versions, as_text, partial(versions_data, index=index))
