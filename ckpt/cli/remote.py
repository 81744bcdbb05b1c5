"""`ckpt remote`."""

import click

from ckpt.cli.options import Session, ckpt_command
from ckpt.errors import IntegrityError
from ckpt.ops.remote import add_remote, check_remote, remotes, remove_remote
from ckpt.registry.needs.in_git import steps_out_of_git
from ckpt.remote.remotes import AUTHORITIES, Authority
from ckpt.show.remote import (
    added_text,
    checked_data,
    checked_text,
    in_git_text,
    remote_data,
    remotes_data,
    remotes_text,
    removed_text,
)


@click.group()
def command() -> None:
    """Add, list, check or remove remotes: registries in a bucket or a folder."""


@ckpt_command(
    examples="ckpt remote add origin s3://team-models/registry\n"
    "ckpt remote add origin /mnt/models\nckpt remote add weights s3://team-models --index git",
    writes=True,
)
@click.argument("name")
@click.argument("url")
@click.option(
    "--index",
    type=click.Choice(AUTHORITIES),
    help="Who keeps registry.json: the bucket, or git, and the bucket only keeps objects and "
    "manifests (default: git if it tracks registry.json).",
)
@click.option("--unsafe", is_flag=True, help="Add a remote that does not keep writers apart.")
def add(session: Session, name: str, url: str, index: Authority | None, unsafe: bool) -> None:
    """Add a remote: s3://BUCKET/FOLDER, gs://…, az://…, ssh://HOST/FOLDER or a folder.

    A probe object is written and removed to test whether the remote refuses writes whose condition
    does not hold. Credentials come from the environment, such as AWS_ACCESS_KEY_ID, and never
    belong into the URL, which .ckpt/remotes.json keeps for all clones.
    """
    added = add_remote(name, url, index=index, unsafe=unsafe, registry=session.registry)
    session.show(added, added_text, remote_data)
    steps = steps_out_of_git(session.registry) if added.index == "git" else ()
    if steps:
        session.terminal.remark(in_git_text(steps))


@ckpt_command(examples="ckpt remote ls", reads=True)
def ls(session: Session) -> None:
    """List the remotes."""
    session.show(remotes(registry=session.registry), remotes_text, remotes_data)


@ckpt_command(examples="ckpt remote rm backup", writes=True)
@click.argument("name")
def rm(session: Session, name: str) -> None:
    """Remove a remote from the list; what it holds stays there."""
    session.show(remove_remote(name, registry=session.registry), removed_text, remote_data)


@ckpt_command(examples="ckpt remote check\nckpt remote check origin")
@click.argument("name", required=False)
def check(session: Session, name: str | None) -> None:
    """Tell whether a remote has all objects and manifests that registry.json names.

    If it lacks one, the exit code is 4: as a git hook before a push, this keeps an index from
    being published whose objects nobody can get. No object is read.
    """
    checked = check_remote(name, registry=session.registry)
    session.show(checked, checked_text, checked_data)
    if checked.missing:
        click.get_current_context().exit(IntegrityError.exit_code)


command.add_command(add)
command.add_command(ls)
command.add_command(rm)
command.add_command(check)
