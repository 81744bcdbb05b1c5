"""`ckpt fsck`."""

import sys

import click

from ckpt.cli.options import Session, ckpt_command, yes_option
from ckpt.errors import IntegrityError, RefError, UsageError
from ckpt.ops.fsck import FINE, NONE, fsck, rebuild_index, recover
from ckpt.show.fsck import (
    checked_data,
    checked_text,
    rebuilding_data,
    rebuilding_text,
    recovered_data,
    recovered_text,
)


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
    "--recover",
    "lost",
    metavar="DIGEST",
    help="Add a version that git's history has but registry.json does not.",
)
@yes_option
def command(session: Session, rebuild: bool, lost: str | None, yes: bool) -> None:
    """Check whether registry.json can be read; exit with 4 if it is damaged, 2 if there is none.

    --rebuild-index rebuilds it from the local reflog and the manifests in .ckpt. Versions found
    only in manifests get new numbers; aliases, tags and removals are only in the reflog. The
    damaged file is kept as registry.json.damaged.

    Versions in .ckpt that only git's history or the local reflog has are listed: a merge or a
    checkout of an older registry.json may have lost them.
    """
    if lost is not None:
        recovered = recover(lost, registry=session.registry)
        session.show(recovered, recovered_text, recovered_data)
        return
    if not rebuild:
        checked = fsck(registry=session.registry)
        session.show(checked, checked_text, checked_data)
        if checked.kind != FINE:
            is_none = checked.kind == NONE
            code = RefError.exit_code if is_none else IntegrityError.exit_code
            click.get_current_context().exit(code)
        return
    if not yes:
        planned = rebuild_index(dry_run=True, registry=session.registry)
        if not sys.stdin.isatty():
            session.show(planned, rebuilding_text, rebuilding_data)
            raise UsageError("nothing is written yet", hint="--yes  writes this without a prompt")
        session.terminal.remark(rebuilding_text(planned))
        session.confirm(f"write {planned.path}?")
    rebuilt = rebuild_index(registry=session.registry)
    session.show(rebuilt, rebuilding_text, rebuilding_data)
