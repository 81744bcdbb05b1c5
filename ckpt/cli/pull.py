"""`ckpt pull`."""

import click

from ckpt.cli.options import Session, ckpt_command
from ckpt.cli.options.completed import VERSION
from ckpt.ops.pull import pull
from ckpt.show.fetch import fetched_lines
from ckpt.show.look.progress import progress_bar
from ckpt.show.pull import pulled_data, pulled_text


@ckpt_command(
    examples="ckpt pull\nckpt pull mnist-cnn@prod\nckpt pull v3 --keys '^encoder'", writes=True
)
@click.argument("refs", nargs=-1, type=VERSION, metavar="[REF]...")
@click.option("--remote", metavar="NAME", help="The remote (default: origin, or the only one).")
@click.option("--keys", metavar="REGEX", help="Get only tensors whose keys match.")
@click.option("--all", "every", is_flag=True, help="Get all versions.")
def command(
    session: Session, refs: tuple[str, ...], remote: str | None, keys: str | None, every: bool
) -> None:
    """Get versions with their tensors: the latest of each model and those with an alias.

    With REF, get those. All other versions are there as after ckpt fetch. Every byte is verified,
    and only missing objects are transferred, so an interrupted pull can be repeated.
    """
    if refs and every:
        raise click.UsageError("REF and --all exclude each other")
    with progress_bar(session.terminal, "pulling") as told:
        pulled = pull(
            *refs, remote=remote, keys=keys, every=every, registry=session.registry, told=told
        )
    for line in fetched_lines(pulled.fetched):
        session.terminal.remark(line)
    session.show(pulled, pulled_text, pulled_data)
