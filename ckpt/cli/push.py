"""`ckpt push`."""

import click

from ckpt.cli.options import Session, ckpt_command
from ckpt.cli.options.completed import VERSION
from ckpt.ops.push import push
from ckpt.show.fetch import fetched_lines
from ckpt.show.look.progress import progress_bar
from ckpt.show.push import pushed_data, pushed_text


@ckpt_command(
    examples="ckpt push\nckpt push mnist-cnn@prod\nckpt push v3 v4 --remote backup", writes=True
)
@click.argument("refs", nargs=-1, type=VERSION, metavar="[REF]...")
@click.option("--remote", metavar="NAME", help="The remote (default: origin, or the only one).")
def command(session: Session, refs: tuple[str, ...], remote: str | None) -> None:
    """Add versions to a remote, with their aliases, tags and history; all versions without a REF.

    What is new on the remote is fetched first, as ckpt fetch does. If both sides have a version of
    the same number, the one on the remote keeps it, and the output says which number the other one
    got. Only missing objects are sent. Interrupted pushes can be repeated; others never see half a
    version.
    """
    with progress_bar(session.terminal, "pushing") as told:
        pushed = push(*refs, remote=remote, registry=session.registry, told=told)
    for fetched in pushed.fetched:
        for line in fetched_lines(fetched):
            session.terminal.remark(line)
    session.show(pushed, pushed_text, pushed_data)
