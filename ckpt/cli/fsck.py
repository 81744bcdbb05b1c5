"""`ckpt fsck`."""

import sys

import click

from ckpt.cli.options import Session
from ckpt.cli.options import command as ckpt_command
from ckpt.errors import IntegrityError, UsageError
from ckpt.ops.fsck import FINE, NONE, Rebuilding, fsck, plan_rebuild, rebuild_index
from ckpt.show.fsck import checked_data, checked_text, rebuilding_data, rebuilding_text


@ckpt_command(
    examples="ckpt fsck\nckpt fsck --rebuild-index\nckpt fsck --rebuild-index --yes --json"
)
@click.option(
    "--rebuild-index",
    "rebuild",
    is_flag=True,
    help="Rebuild registry.json if it is damaged or missing.",
)
@click.option(
    "--yes", is_flag=True, help="Skip the prompt (required when stdin is not a terminal)."
)
def command(session: Session, rebuild: bool, yes: bool) -> None:
    """Check whether registry.json can be read; exit with 4 if it is damaged.

    --rebuild-index rebuilds it from the local reflog and the manifests in .ckpt. Versions found
    only in manifests get new numbers; aliases, tags and removals are only in the reflog. The
    damaged file is kept as registry.json.damaged.
    """
    if not rebuild:
        checked = fsck(registry=session.registry)
        session.show(lambda: checked_text(checked), lambda: checked_data(checked))
        if checked.kind not in (FINE, NONE):
            click.get_current_context().exit(IntegrityError.exit_code)
        return
    if not yes:
        _ask(session, plan_rebuild(registry=session.registry))
    _show(session, rebuild_index(registry=session.registry), written=True)


def _ask(session: Session, planned: Rebuilding) -> None:
    if not sys.stdin.isatty():
        _show(session, planned, written=False)
        raise UsageError("nothing is written yet", hint="--yes  writes this without a prompt")
    session.terminal.remark(rebuilding_text(planned, written=False))
    session.confirm(f"write {planned.path}?")


def _show(session: Session, rebuilding: Rebuilding, *, written: bool) -> None:
    session.show(
        lambda: rebuilding_text(rebuilding, written=written),
        lambda: rebuilding_data(rebuilding, written=written),
    )
